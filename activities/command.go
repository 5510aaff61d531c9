package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/internal/remote"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// CommandStore is what commands on many hosts need of the store, for one tenant.
type CommandStore interface {
	TakeUpCommand(ctx context.Context, id string, from, to int, stop string) (store.CommandPage, error)
	CommandState(ctx context.Context, id string, from, to int) (running map[string]bool, stop string, err error)
	RecordCommands(ctx context.Context, id string, writes []store.CommandWrite) error
	EndCommand(ctx context.Context, id, why string, cancelled bool) (fleet.Operation, error)
}

// commandsAtOnce is on how many hosts one worker runs commands at a time, and how many
// it reaches for again beside them, and on how many it ends commands. Each has a
// connection of its own, which takes about 100 KiB.
const commandsAtOnce = 1024

// looksAgain is how old what the record says may be when a command is begun.
const looksAgain = time.Second

// Commands are the steps that run one command on many hosts. They keep no connection.
type Commands struct {
	store func(tenant string) CommandStore
	ssh   *remote.Dialer
	slots commandSlots
	turns turns
}

// NewCommands makes them.
func NewCommands(store func(tenant string) CommandStore, ssh *remote.Dialer) *Commands {
	return &Commands{store: store, ssh: ssh, slots: newCommandSlots(commandsAtOnce)}
}

// Page runs the command on the hosts of a page. Repeating it goes on with those that have
// not ended: each host decides by a key whether its command was started, and the record
// has the output up to some byte.
func (a *Commands) Page(ctx context.Context, in workflows.CommandPage) (workflows.CommandCounts, error) {
	return a.each(ctx, in, "", (*commandPage).run)
}

// Stop ends the command on the hosts of a page, and skips those on which it was not begun.
// Repeating it finds it ended. An operation that has ended is left as it is.
func (a *Commands) Stop(ctx context.Context, in workflows.CommandPage) (workflows.CommandCounts, error) {
	counts, err := a.each(ctx, in, "cancelled", func(p *commandPage, ctx context.Context, h *commandHost) error {
		return a.slots.stop.with(ctx, func() error {
			return p.stop(ctx, &commandStop{host: h, why: p.stopped}) // which the record may say better
		}, nil)
	})
	var app *temporal.ApplicationError
	if errors.As(err, &app) && (app.Type() == string(fleet.Conflict) || app.Type() == string(fleet.NotFound)) {
		return counts, nil
	}
	return counts, err
}

// End ends a command by what became of its hosts. The first ending stands; repeating it
// changes nothing.
func (a *Commands) End(ctx context.Context, in workflows.CommandEnd) (workflows.CommandEnded, error) {
	op, err := a.store(in.Tenant).EndCommand(ctx, in.OperationID, in.Failed, in.Cancelled)
	return workflows.CommandEnded{State: op.State, Reason: fleet.OurWords(op.Reason)}, verdict(ctx, err)
}

// commandPage is a page of a command under way.
type commandPage struct {
	in      workflows.CommandPage
	command fleet.Command
	store   CommandStore
	ssh     *remote.Dialer
	slots   commandSlots
	record  *commandRecord

	mu      sync.Mutex
	looked  time.Time       // when the record last said what follows
	running map[string]bool // hosts that are at work by the record
	stopped string          // why no more hosts begin, "" while they do
}

// each takes up a page and does what is to be done on each of its hosts. An error of one
// is no fault of the host and ends the page, for another attempt to go on with it.
func (a *Commands) each(ctx context.Context, in workflows.CommandPage, stop string, do func(*commandPage, context.Context, *commandHost) error) (workflows.CommandCounts, error) {
	before := surprises(ctx)
	work, over := alive(ctx, before)
	defer over()
	work, fail := context.WithCancelCause(work)
	defer fail(nil)
	counts := a.doEach(work, fail, in, stop, do)
	cause := context.Cause(work)
	over()
	return counts, pageEnd(ctx, cause, before)
}

// doEach is each, whose work fail ends.
func (a *Commands) doEach(work context.Context, fail context.CancelCauseFunc, in workflows.CommandPage, stop string, do func(*commandPage, context.Context, *commandHost) error) (counts workflows.CommandCounts) {
	to := a.store(in.Tenant)
	taken, err := a.takeUp(work, to, in, stop)
	if err != nil {
		fail(err)
		return counts
	}

	p := &commandPage{in: in, command: taken.Command, store: to, ssh: a.ssh, slots: a.slots, looked: wallClock(), running: map[string]bool{}, stopped: taken.Stopped}
	p.record = newCommandRecord(len(taken.Hosts), func(take func() []store.CommandWrite) error {
		return a.write(work, to, in.OperationID, take)
	})
	for _, h := range taken.Hosts {
		p.running[h.Address] = true
	}
	var writing, hosts sync.WaitGroup
	writing.Go(func() {
		if err := p.record.run(); err != nil {
			fail(err)
		}
	})
	for _, h := range taken.Hosts {
		hosts.Go(func() {
			if err := do(p, work, &commandHost{CommandHost: h, start: h.OutputTo, last: h.OutputEnd}); err != nil {
				fail(err)
			}
		})
	}
	hosts.Wait()
	p.record.close()
	writing.Wait()
	counts = p.record.counts
	counts.Stopped = p.stopped != ""
	return counts
}

// takeUp takes up a page when it is its turn.
func (a *Commands) takeUp(ctx context.Context, to CommandStore, in workflows.CommandPage, stop string) (taken store.CommandPage, err error) {
	done, err := a.turns.take(ctx, in.OperationID)
	if err != nil {
		return taken, err
	}
	defer done()
	return to.TakeUpCommand(ctx, in.OperationID, in.From, in.To, stop)
}

// surprises is how many attempts at a page met an error that nobody foresaw, so far. Those
// whose worker was lost met none, and a command may outlive many workers.
func surprises(ctx context.Context) (n int) {
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &n) // what is no number counts none
	}
	return n
}

// pageEnd says how a page ended whose work was ended by some cause, or by none, and which
// does not heartbeat any more.
func pageEnd(ctx context.Context, cause error, before int) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(cause, errStopping), errors.Is(cause, errLate):
		return cause
	case errors.Is(cause, store.ErrOvertaken):
		// No surprise, however often the page was begun: the next attempt reads how far the record is.
		return fmt.Errorf("record: %w", cause)
	case cause != nil && fleet.KindOf(cause) == "":
		activity.RecordHeartbeat(ctx, before+1) // for the next attempt
	}
	return verdictAfter(ctx, cause, before+1)
}

// write writes a batch when it is its turn. To begin the page anew costs far more than to
// wait for Postgres, so while the page is ours that is done for a while. Between two tries
// it is the turn of others.
func (a *Commands) write(work context.Context, to CommandStore, id string, take func() []store.CommandWrite) error {
	ctx, over := outlive(work, recordTimeout)
	defer over()
	var writes []store.CommandWrite
	try := func() error {
		done, err := a.turns.take(ctx, id)
		if err != nil {
			return err
		}
		defer done()
		if writes == nil {
			writes = take()
		}
		try, cancel := context.WithTimeout(ctx, recordTimeout)
		defer cancel()
		return to.RecordCommands(try, id, writes)
	}
	for until := time.Now().Add(writePatience); ; {
		err := try()
		if fleet.KindOf(err) != fleet.Unavailable || work.Err() != nil || time.Now().After(until) {
			return err
		}
		select {
		case <-work.Done():
		case <-time.After(reconnectMax):
		}
	}
}

// outlive gives a context that ends some time after another one has.
func outlive(ctx context.Context, by time.Duration) (_ context.Context, over func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(by):
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}

// writePatience is how long Postgres may be away before a page is begun anew.
const writePatience = 2 * time.Minute

// errGivenUp says that a host is not ours any more: it has ended on record.
var errGivenUp = errors.New("the host has ended on record")

// mayGoOn comes before anything is started on a host. This worker may have been asleep, or
// the host out of reach for long: who ended the host's part meanwhile did so for good. One
// look holds for all hosts of the page for a moment. stop says why a host that was not
// begun is not to be.
func (p *commandPage) mayGoOn(ctx context.Context, h *commandHost) (stop string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The clock may have been set back, too.
	if now := wallClock(); now.Sub(p.looked).Abs() > looksAgain {
		running, stopped, err := p.store.CommandState(ctx, p.in.OperationID, p.in.From, p.in.To)
		if err != nil {
			return "", err
		}
		p.looked, p.running, p.stopped = now, running, stopped
	}
	if !p.running[h.Address] {
		return "", errGivenUp
	}
	return p.stopped, nil
}

// lookAgain has the next mayGoOn look.
func (p *commandPage) lookAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = time.Time{}
}
