package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/profile"
	"commissaire/internal/remote"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// HostStore is what steps on hosts need of the store, for one tenant.
type HostStore interface {
	Host(ctx context.Context, address string) (fleet.Host, error)
	HostCreds(ctx context.Context, address string) (secret.HostCreds, error)
	Bastion(ctx context.Context, address string) (*store.Bastion, error)
	PinFirstHostKey(ctx context.Context, id, address, key string) (pinned string, err error)
	RecordFacts(ctx context.Context, id, address string, facts fleet.Facts) error
	SetHostRunBootID(ctx context.Context, id, address, bootID string) (string, error)
	SetHostRunTarget(ctx context.Context, id, address, target string) (string, error)
	Surroundings(ctx context.Context, address string) (store.Surroundings, error)
	StepStore
}

// StepStore keeps what one step did.
type StepStore interface {
	TakeUp(ctx context.Context, id, address string, turn int) error
	BeginStep(ctx context.Context, id, address, name string, attempt int) (fleet.Step, error)
	AppendOutput(ctx context.Context, step, offset int64, data []byte) (next int64, err error)
	AppendTail(ctx context.Context, step, from, offset int64, data []byte) (next int64, err error)
	NoteStep(ctx context.Context, step int64, note string) error
	OutputEnd(ctx context.Context, step int64) ([]byte, error)
	EndStep(ctx context.Context, end store.StepEnd) (fleet.Step, error)
}

// Hosts are the steps on hosts.
type Hosts struct {
	Store func(tenant string) HostStore
	SSH   *remote.Pool
	// Settings gives those of the installation for what bootstraps put on hosts; nil
	// for none.
	Settings func() (profile.Settings, error)
}

// failure is an ending of a step that no repetition would change.
type failure struct {
	state  fleet.StepState
	reason string
	detail string // what the host said, printable; for the record in Postgres only
	// judgement: no fact about the host, but our own patience is over. A worker
	// that only thinks it still has the step must not write that down, so Temporal
	// is told, which knows whose step it is, and the workflow writes it.
	judgement bool
}

func (f *failure) Error() string { return f.reason }

// failed ends a step by a fact about the host.
func failed(format string, args ...any) error {
	return &failure{state: fleet.StepFailed, reason: printable(fmt.Sprintf(format, args...))}
}

// gaveUp ends a step because our patience is over.
func gaveUp(format string, args ...any) error {
	return &failure{reason: printable(fmt.Sprintf(format, args...)), judgement: true}
}

// errStopping ends a step because its worker stops; another worker goes on.
var errStopping = errors.New("this worker is stopping; another one goes on")

// stepRecord is one step of a host's part, as the record has it.
type stepRecord struct {
	steps StepStore
	in    workflows.HostStep
	row   fleet.Step
	exit  *int   // of the command, when one ended
	last  ending // of what it printed
	note  string // what the record says of a step that succeeded
	told  string // what the record says of it while it runs
	tells time.Time
}

// stepRun is one step under way on one host.
type stepRun struct {
	*stepRecord
	store HostStore
	ssh   *remote.Pool
	host  fleet.Host
	to    remote.Target
}

// run is the frame of every step on a host: begin it in the record, do it, and
// end it there. A step that has ended is not done again, whoever ended it: it
// answers as the record does. Anything else than an ending leaves the step
// running, and Temporal repeats it.
func (a *Hosts) run(ctx context.Context, in workflows.HostStep, do func(context.Context, *stepRun) error) (*stepRun, error) {
	to := a.Store(in.Tenant)
	s := &stepRun{stepRecord: &stepRecord{steps: to, in: in}, store: to, ssh: a.SSH}
	if done, err := s.begin(ctx); done || err != nil {
		return s, err
	}
	work, stop := s.alive(ctx)
	err := do(work, s)
	stop()
	return s, s.end(ctx, work, err)
}

// nothing is the answer of a step that only has an effect.
func nothing(_ *stepRun, err error) (workflows.Nothing, error) { return workflows.Nothing{}, err }

// begin puts the step on record and finds out how to reach the host. done says
// that the step has ended before; err is then how.
func (s *stepRun) begin(ctx context.Context) (done bool, err error) {
	if first := s.in.Step == workflows.StepCheck || s.in.Step == workflows.StepStage; first && s.in.Turn > 0 {
		err := s.store.TakeUp(ctx, s.in.OperationID, s.in.Address, s.in.Turn)
		if errors.Is(err, store.ErrGivenBack) {
			return false, temporal.NewNonRetryableApplicationError(err.Error(), workflows.TypeGivenBack, nil)
		}
		if err != nil {
			return false, verdict(ctx, err)
		}
	}
	if done, err := s.stepRecord.begin(ctx); done || err != nil {
		return done, err
	}
	if s.host, err = s.store.Host(ctx, s.in.Address); err != nil {
		return false, verdict(ctx, err)
	}
	creds, err := s.store.HostCreds(ctx, s.in.Address)
	if err != nil {
		return false, verdict(ctx, err)
	}
	bastion, err := s.store.Bastion(ctx, s.in.Address)
	if err != nil {
		return false, verdict(ctx, err)
	}
	s.to = remote.Target{Address: s.host.Address, Port: s.host.Port, User: creds.RemoteUser, Key: creds.PrivateKey, Via: via(bastion)}
	if s.host.HostKey != nil {
		s.to.HostKey = s.host.HostKey.Key
	} else if s.in.Step != workflows.StepInvestigate {
		// Only the first contact may meet a key that nobody has seen.
		return false, s.end(ctx, ctx, failed("the host's key is not pinned; bootstrap it first"))
	}
	return false, nil
}

// begin puts the step on record. done says that it has ended before; err is then how.
func (s *stepRecord) begin(ctx context.Context) (done bool, err error) {
	if s.row, err = s.steps.BeginStep(ctx, s.in.OperationID, s.in.Address, s.in.Step, s.in.Attempt); err != nil {
		return false, verdict(ctx, err)
	}
	if s.row.State.Ended() {
		return true, ended(s.row)
	}
	s.told = s.row.Reason // by another worker
	if s.row.OutputTo > 0 {
		// A reason quotes the end of the output, also when there is no more to come.
		if s.last, err = s.steps.OutputEnd(ctx, s.row.ID); err != nil {
			return false, verdict(ctx, err)
		}
	}
	return false, nil
}

// end writes down how the step ended, if it did.
func (s *stepRecord) end(ctx, work context.Context, err error) error {
	end := store.StepEnd{StepID: s.row.ID, State: fleet.StepSucceeded, Reason: s.note, ExitCode: s.exit, OutputSize: s.row.OutputSize}
	var f *failure
	switch {
	case err == nil:
	case errors.As(err, &f) && f.judgement:
		return temporal.NewNonRetryableApplicationError(f.reason, workflows.TypeGaveUp, nil)
	case errors.As(err, &f):
		end.State, end.Reason = f.state, f.reason+f.detail
	case ctx.Err() != nil:
		return ctx.Err() // cancelled, or the step is not ours any more
	case errors.Is(context.Cause(work), errDeadline):
		last := ""
		if !errors.Is(err, errDeadline) && !errors.Is(err, context.Canceled) {
			last = "; last: " + err.Error()
		} else if s.told != "" { // perhaps by an attempt before this one
			last = "; last: " + s.told
		}
		if known := hostos.Diagnose(s.last); known != "" {
			last += ": " + known
		}
		return temporal.NewNonRetryableApplicationError(errDeadline.Error()+printable(last), workflows.TypeGaveUp, nil)
	case errors.Is(context.Cause(work), errStopping), errors.Is(context.Cause(work), errLate):
		return context.Cause(work)
	case fleet.KindOf(err) == fleet.Conflict:
		// Perhaps another attempt has ended the step meanwhile: then it answers.
		if row, again := s.steps.BeginStep(ctx, s.in.OperationID, s.in.Address, s.in.Step, s.in.Attempt); again == nil && row.State.Ended() {
			s.row = row
			return ended(row)
		}
		return verdict(ctx, err)
	default:
		return verdict(ctx, err)
	}
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	row, err := s.steps.EndStep(write, end)
	if err != nil {
		return verdict(ctx, err)
	}
	s.row = row
	return ended(row)
}

// ended answers for a step that has ended.
func ended(row fleet.Step) error {
	if row.State == fleet.StepSucceeded {
		return nil
	}
	// What the host said stays in Postgres: it may be anything, and history is
	// read by others.
	return temporal.NewNonRetryableApplicationError(fleet.OurWords(row.Reason), string(row.State), nil)
}

const (
	recordTimeout = 10 * time.Second
	reconnectMin  = 200 * time.Millisecond
	reconnectMax  = 2 * time.Second

	troubleQuiet = 3 * time.Second
	bootQuiet    = time.Minute
	tellTimeout  = 3 * time.Second
	tellEvery    = 10 * time.Second // errors may name a new port with every try
)

// errDeadline ends a step before Temporal would, so that the reason is ours. What
// runs on the host is ended by the step Stop.
var errDeadline = errors.New("no result within the step's deadline")

// errLate ends the part of a worker that was asleep when the deadline came: the
// step may be another one's by now, whose time is not over.
var errLate = errors.New("this worker slept over the step's deadline; another one goes on")

// patience is the moment at which the step's own time is over: what attempts
// before this one had of it, by their last heartbeat, is gone. The time in which
// nobody was at it does not count.
func patience(ctx context.Context) (end time.Time, spent time.Duration) {
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &spent) // a version without them had none
	}
	deadline := activity.GetInfo(ctx).Deadline
	return deadline.Add(-min(time.Until(deadline)/2, workflows.EndGrace) - spent), spent
}

// alive heartbeats until the step has ended. The context ends earlier: when the
// worker stops or the step's time is over.
func (s *stepRecord) alive(ctx context.Context) (context.Context, func()) {
	info := activity.GetInfo(ctx)
	work, cancel := context.WithCancelCause(ctx)
	begun := time.Now()
	end, spent := patience(ctx)
	deadline := time.NewTimer(time.Until(end))
	beat := time.NewTicker(max(info.HeartbeatTimeout/4, 50*time.Millisecond))
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer beat.Stop()
		defer deadline.Stop()
		stopping := activity.GetWorkerStopChannel(ctx)
		for {
			last := wallClock()
			activity.RecordHeartbeat(ctx, spent+time.Since(begun))
			select {
			case <-beat.C:
			case <-deadline.C:
			case <-stopping:
				cancel(errStopping)
				stopping = nil
			case <-over:
				return
			}
			switch now := wallClock(); {
			case now.Before(end):
			case now.After(info.Deadline), info.HeartbeatTimeout > 0 && now.Sub(last) > info.HeartbeatTimeout:
				cancel(errLate)
			default:
				cancel(errDeadline)
			}
		}
	}()
	return work, func() {
		cancel(nil)
		close(over)
		<-done
	}
}

// wallClock is the clock that goes on while a machine or a process sleeps, and
// by which Temporal counts.
func wallClock() time.Time { return time.Now().Round(0) }

// via is the way to a host through a bastion, nil for none.
func via(b *store.Bastion) *remote.Target {
	if b == nil {
		return nil
	}
	return &remote.Target{Address: b.Address, Port: b.Port, User: b.Creds.RemoteUser, Key: b.Creds.PrivateKey, HostKey: b.HostKey}
}

// connect gives a connection to the host. A bastion that nobody had been in contact with
// when the step began may have been bootstrapped by now.
func (s *stepRun) connect(ctx context.Context) (*remote.Conn, func(), error) {
	if s.to.Via != nil && s.to.Via.HostKey == "" {
		bastion, err := s.store.Bastion(ctx, s.in.Address)
		if err != nil {
			return nil, nil, err
		}
		s.to.Via = via(bastion)
	}
	return s.ssh.Get(ctx, s.to)
}

// contact runs f on a connection to the host. While the host is merely out of
// reach or cannot run anything, or the connection breaks, it connects again and
// repeats f, which must therefore be safe to repeat; that ends when the host was
// of no use for longer than allowed. A connection that held for a while was of use.
func (s *stepRun) contact(ctx context.Context, unreachable time.Duration, f func(context.Context, *remote.Conn) error) error {
	var trouble time.Time // since when; zero while there is none
	wait := reconnectMin
	for {
		begun := time.Now()
		conn, release, err := s.connect(ctx)
		if err == nil {
			s.tell(ctx, "")
			err = f(ctx, conn)
			release()
		}
		var broken *remote.Error
		switch {
		case err == nil || ctx.Err() != nil || !errors.As(err, &broken):
			return err
		case broken.Permanent():
			return failed("%s", broken.Error())
		case broken.Kind == remote.Lost && time.Since(begun) > reconnectMax:
			trouble, wait = time.Now(), reconnectMin // it answered until now
		case trouble.IsZero():
			trouble = begun
		}
		if time.Since(trouble) > unreachable {
			return gaveUp("gave up after %s: %s", unreachable, broken.Error())
		}
		if time.Since(trouble) > s.quiet() {
			s.tell(ctx, fmt.Sprintf("trouble since %s, given up after %s of it: %s", fleet.FormatTime(trouble.UTC()), unreachable, broken.Error()))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		wait = min(2*wait, reconnectMax)
	}
}

// quiet is how long trouble with a host is nobody's concern. One that boots is meant
// to be away.
func (s *stepRun) quiet() time.Duration {
	if s.in.Step == workflows.StepWait {
		return bootQuiet
	}
	return troubleQuiet
}

// tell puts on record what stands in the way of the step while it runs. It is for
// people who look on, so that it does not work is no trouble of the step.
func (s *stepRecord) tell(ctx context.Context, note string) {
	note = printable(note)
	if note == s.told || note != "" && time.Since(s.tells) < tellEvery {
		return
	}
	s.tells = time.Now()
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	if err := s.steps.NoteStep(ctx, s.row.ID, note); err == nil {
		s.told = note
	}
}

// printable takes out of a text from outside what could harm a terminal, a log
// or a column.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
