package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/internal/remote"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// HostStore is what steps on hosts need of the store, for one tenant.
type HostStore interface {
	Host(ctx context.Context, address string) (fleet.Host, error)
	HostCreds(ctx context.Context, address string) (secret.HostCreds, error)
	PinFirstHostKey(ctx context.Context, id, address, key string) (pinned string, err error)
	RecordFacts(ctx context.Context, id, address string, facts fleet.Facts) error
	BeginHostRun(ctx context.Context, id, address string) (fleet.HostRun, error)
	SetHostRunBootID(ctx context.Context, id, address, bootID string) (string, error)
	StepStore
}

// StepStore keeps what one step did.
type StepStore interface {
	BeginStep(ctx context.Context, id, address, name string, attempt int) (fleet.Step, error)
	AppendOutput(ctx context.Context, step, offset int64, data []byte) (next int64, err error)
	AppendTail(ctx context.Context, step, from, offset int64, data []byte) (next int64, err error)
	EndStep(ctx context.Context, end store.StepEnd) (fleet.Step, error)
}

// Hosts are the steps on hosts.
type Hosts struct {
	Store func(tenant string) HostStore
	SSH   *remote.Pool
}

// failure is an ending of a step that no repetition would change.
type failure struct {
	state  fleet.StepState
	reason string
}

func (f *failure) Error() string { return f.reason }

func failed(format string, args ...any) error {
	return &failure{state: fleet.StepFailed, reason: fmt.Sprintf(format, args...)}
}

// errStopping ends a step because its worker stops; another worker goes on.
var errStopping = errors.New("this worker is stopping; another one goes on")

// stepRun is one step under way on one host.
type stepRun struct {
	store HostStore
	ssh   *remote.Pool
	in    workflows.HostStep
	host  fleet.Host
	to    remote.Target
	row   fleet.Step
	exit  *int   // of the command, when one ended
	last  []byte // end of what it printed
}

// run is the frame of every step on a host: begin it in the record, do it, and
// end it there. A step that ended in an earlier attempt is not done again: it
// answers as it did then. Only an ending that no repetition would change is
// written down; on anything else the step stays running and Temporal repeats it.
func (a *Hosts) run(ctx context.Context, in workflows.HostStep, do func(context.Context, *stepRun) error) error {
	s := &stepRun{store: a.Store(in.Tenant), ssh: a.SSH, in: in}
	row, err := s.store.BeginStep(ctx, in.OperationID, in.Address, in.Step, in.Attempt)
	if err != nil {
		return verdict(err)
	}
	if row.State.Ended() {
		return ended(row.State, row.Reason)
	}
	s.row = row
	if s.host, err = s.store.Host(ctx, in.Address); err != nil {
		return verdict(err)
	}
	creds, err := s.store.HostCreds(ctx, in.Address)
	if err != nil {
		return verdict(err)
	}
	s.to = remote.Target{Address: s.host.Address, Port: s.host.Port, User: creds.RemoteUser, Key: creds.PrivateKey}
	if s.host.HostKey != nil {
		s.to.HostKey = s.host.HostKey.Key
	}

	work, stop := s.alive(ctx)
	err = do(work, s)
	stop()
	return s.end(ctx, work, err)
}

// end writes down how the step ended, if it did.
func (s *stepRun) end(ctx, work context.Context, err error) error {
	end := store.StepEnd{StepID: s.row.ID, State: fleet.StepSucceeded, ExitCode: s.exit, OutputSize: s.row.OutputSize}
	var f *failure
	switch {
	case err == nil:
	case errors.As(err, &f):
		end.State, end.Reason = f.state, f.reason
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		// Cancelled by the operation, not by a lost worker: the workflow ends the step.
		return ctx.Err()
	case errors.Is(context.Cause(work), errDeadline):
		end.State, end.Reason = fleet.StepFailed, errDeadline.Error()
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			end.Reason += "; last: " + err.Error()
		}
	case errors.Is(context.Cause(work), errStopping):
		return errStopping
	default:
		return verdict(err)
	}
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if _, err := s.store.EndStep(write, end); err != nil {
		return verdict(err)
	}
	return ended(end.State, end.Reason)
}

// ended answers for a step that has ended.
func ended(state fleet.StepState, reason string) error {
	if state == fleet.StepSucceeded {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(reason, string(state), nil)
}

const (
	recordTimeout = 10 * time.Second
	reconnectMin  = 200 * time.Millisecond
	reconnectMax  = 2 * time.Second
)

// errDeadline ends a step a little before Temporal would, so that the reason
// is ours and the step is ended in the record.
var errDeadline = errors.New("no result within the step's deadline")

// alive heartbeats while the step runs and gives a context that also ends when
// the worker stops or the step's deadline is near.
func (s *stepRun) alive(ctx context.Context) (context.Context, func()) {
	info := activity.GetInfo(ctx)
	work, cancel := context.WithCancelCause(ctx)
	margin := min(time.Until(info.Deadline)/10, 3*time.Second)
	deadline := time.NewTimer(time.Until(info.Deadline) - margin)
	beat := time.NewTicker(max(info.HeartbeatTimeout/4, 50*time.Millisecond))
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer beat.Stop()
		defer deadline.Stop()
		stopping := activity.GetWorkerStopChannel(ctx)
		for {
			activity.RecordHeartbeat(ctx)
			select {
			case <-beat.C:
			case <-deadline.C:
				cancel(errDeadline)
			case <-stopping:
				cancel(errStopping)
				stopping = nil
			case <-work.Done():
				return
			}
		}
	}()
	return work, func() {
		cancel(nil)
		<-done
	}
}

// contact runs f on a connection to the host. While the host is merely out of
// reach or cannot run anything, or the connection breaks, it connects again and
// repeats f, which must therefore be safe to repeat; that ends when the host was
// of no use for longer than allowed.
func (s *stepRun) contact(ctx context.Context, unreachable time.Duration, f func(context.Context, *remote.Conn) error) error {
	var trouble time.Time // since when; zero while there is none
	wait := reconnectMin
	for {
		failing := time.Now()
		conn, release, err := s.ssh.Get(ctx, s.to)
		if err == nil {
			err = f(ctx, conn)
			release()
			failing = time.Now()
		}
		var broken *remote.Error
		switch {
		case err == nil || ctx.Err() != nil || !errors.As(err, &broken):
			return err
		case broken.Permanent():
			return failed("%s", broken.Error())
		case broken.Kind == remote.Lost:
			trouble, wait = failing, reconnectMin // it answered until now
		case trouble.IsZero():
			trouble = failing
		}
		if time.Since(trouble) > unreachable {
			return failed("gave up after %s: %s", unreachable, broken.Error())
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		wait = min(2*wait, reconnectMax)
	}
}
