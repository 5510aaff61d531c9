package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

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

// commandsAtOnce is on how many hosts one worker runs commands at a time. Each has a
// connection of its own, which takes about 100 KiB.
const commandsAtOnce = 1024

// looksAgain is how old what the record says may be when a command is begun.
const looksAgain = time.Second

// Commands are the steps that run one command on many hosts. They keep no connection.
type Commands struct {
	store func(tenant string) CommandStore
	ssh   *remote.Dialer
	slots chan struct{}
	turns turns
}

// NewCommands makes them.
func NewCommands(store func(tenant string) CommandStore, ssh *remote.Dialer) *Commands {
	return &Commands{store: store, ssh: ssh, slots: make(chan struct{}, commandsAtOnce)}
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
		return p.stop(ctx, h, p.stopped) // which the record may say better
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
	record  *commandRecord

	mu      sync.Mutex
	looked  time.Time       // when the record last said what follows
	running map[string]bool // hosts that are at work by the record
	stopped string          // why no more hosts begin, "" while they do
}

// each takes up a page and does what is to be done on each of its hosts. An error of one
// is no fault of the host and ends the page, for another attempt to go on with it.
func (a *Commands) each(ctx context.Context, in workflows.CommandPage, stop string, do func(*commandPage, context.Context, *commandHost) error) (counts workflows.CommandCounts, err error) {
	to := a.store(in.Tenant)
	done, err := a.turns.take(ctx, in.OperationID)
	if err != nil {
		return counts, err
	}
	taken, err := to.TakeUpCommand(ctx, in.OperationID, in.From, in.To, stop)
	done()
	if err != nil {
		return counts, verdict(ctx, err)
	}
	work, over := alive(ctx)
	defer over()
	work, fail := context.WithCancelCause(work)
	defer fail(nil)

	p := &commandPage{in: in, command: taken.Command, store: to, ssh: a.ssh, looked: wallClock(), running: map[string]bool{}, stopped: taken.Stopped}
	p.record = newCommandRecord(len(taken.Hosts), func(take func() []store.CommandWrite) error {
		return a.write(ctx, work, to, in.OperationID, take)
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
		select {
		case a.slots <- struct{}{}:
		case <-work.Done():
		}
		if work.Err() != nil {
			break
		}
		hosts.Go(func() {
			defer func() { <-a.slots }()
			if err := do(p, work, &commandHost{CommandHost: h, start: h.OutputTo}); err != nil {
				fail(err)
			}
		})
	}
	hosts.Wait()
	p.record.close()
	writing.Wait()
	counts = p.record.counts
	counts.Stopped = p.stopped != ""
	cause := context.Cause(work)
	switch {
	case ctx.Err() != nil:
		return counts, ctx.Err()
	case errors.Is(cause, errStopping), errors.Is(cause, errLate):
		return counts, cause
	}
	return counts, verdict(ctx, cause)
}

// write writes a batch when it is its turn. To begin the page anew costs far more than to
// wait for Postgres, so while the page is ours that is done for a while.
func (a *Commands) write(ctx, work context.Context, to CommandStore, id string, take func() []store.CommandWrite) error {
	ctx = context.WithoutCancel(ctx)
	done, err := a.turns.take(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	writes := take()
	for until := time.Now().Add(writePatience); ; {
		try, cancel := context.WithTimeout(ctx, recordTimeout)
		err := to.RecordCommands(try, id, writes)
		cancel()
		if fleet.KindOf(err) != fleet.Unavailable || work.Err() != nil || time.Now().After(until) {
			return err
		}
		select {
		case <-work.Done():
		case <-time.After(reconnectMax):
		}
	}
}

// writePatience is how long Postgres may be away before a page is begun anew.
const writePatience = 2 * time.Minute

// turns let the pages of one operation write one after the other: in Postgres they would
// wait for each other too, but there each takes a connection and has seconds only.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

type turn struct {
	free  chan struct{} // holds one token
	users int
}

// take waits until it is the caller's turn with an operation, which ends with done.
func (t *turns) take(ctx context.Context, id string) (done func(), err error) {
	t.mu.Lock()
	if t.of == nil {
		t.of = map[string]*turn{}
	}
	it := t.of[id]
	if it == nil {
		it = &turn{free: make(chan struct{}, 1)}
		it.free <- struct{}{}
		t.of[id] = it
	}
	it.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if it.users--; it.users == 0 {
			delete(t.of, id)
		}
	}
	select {
	case <-it.free:
		return func() { it.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// errGivenUp says that a host is not ours any more: it has ended on record.
var errGivenUp = errors.New("the host has ended on record")

// mayGoOn comes before anything is started on a host. This worker may have been asleep, or
// the host out of reach for long: who ended the host's part meanwhile did so for good. One
// look holds for all hosts of the page for a moment. stop says why a host that was not
// begun is not to be.
func (p *commandPage) mayGoOn(ctx context.Context, h *commandHost) (stop string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wallClock().Sub(p.looked) > looksAgain {
		now := wallClock()
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

// errOverTime ends a command whose time is over.
var errOverTime = errors.New("the command has had its time")

// run runs the command on one host and puts on record how it ended. An error is none of
// the host's.
func (p *commandPage) run(ctx context.Context, h *commandHost) error {
	if h.Failed != "" {
		p.record.end(h, commandFailed(h.Again, h.Failed))
		return nil
	}
	begun := h.Again  // the command may have been started
	var end time.Time // when its time is over; counts from the first try
	var t trouble
	for {
		stop, err := p.mayGoOn(ctx, h)
		switch {
		case errors.Is(err, errGivenUp), ctx.Err() != nil:
			return nil
		case fleet.KindOf(err) == fleet.Unavailable: // nothing is begun until it is there again
			if t.next = max(t.next, reconnectMin); !t.wait(ctx) {
				return nil
			}
			continue
		case err != nil:
			return err
		case stop != "" && !begun:
			p.record.end(h, store.CommandWrite{End: fleet.HostRunSkipped, State: fleet.StepFailed, Reason: stop + "; the command had not begun"})
			return nil
		}
		tried := time.Now()
		var out remote.Outcome
		conn, err := p.ssh.Dial(ctx, h.target())
		if err == nil {
			if !begun && time.Since(tried) > looksAgain { // it took long
				if stop, err = p.mayGoOn(ctx, h); err == nil && stop != "" {
					err = errStopped
				}
			}
			if err == nil {
				begun = true
				if end.IsZero() {
					end = time.Now().Add(time.Duration(p.command.Timeout))
				}
				out, err = p.once(ctx, conn, h, end)
			}
			_ = conn.Close()
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			p.record.end(h, commandEnded(h, out))
			return nil
		case errors.Is(err, errStopped):
			continue // which says so
		case errors.Is(err, errOverTime), !end.IsZero() && time.Now().After(end):
			return p.stop(ctx, h, fmt.Sprintf("the command took longer than %s", p.command.Timeout))
		case errors.Is(err, errGivenUp):
			return nil
		case fleet.KindOf(err) == fleet.Unavailable:
			continue // as above
		case remote.KindOf(err) == "":
			return err
		}
		if why := t.over(err, tried, p.in.Unreachable, begun); why != "" {
			p.record.end(h, commandFailed(begun, why))
			return nil
		}
		if !t.wait(ctx) {
			return nil
		}
	}
}

// errStopped says that the command was cancelled while a host was being reached.
var errStopped = errors.New("cancelled")

// once runs the command on a connection, for as long as it may take.
func (p *commandPage) once(ctx context.Context, conn *remote.Conn, h *commandHost, end time.Time) (remote.Outcome, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, end, errOverTime)
	defer cancel()
	command := remote.Command{Key: p.key(h), Argv: p.command.Argv, Limits: remote.Limits{Head: fleet.OutputHead}}
	return conn.Once(ctx, command, p.record.position(h), commandSink{ctx, p.record, h})
}

// key names the command on the host. It is the same in every attempt, which is what makes
// the command run once.
func (p *commandPage) key(h *commandHost) remote.Key {
	return remote.Key{Operation: p.in.OperationID, Host: h.Address, Step: fleet.StepCommand, Attempt: 1}
}

// stop ends the command on a host and puts on record how it ended. One that was never
// started never will be.
func (p *commandPage) stop(ctx context.Context, h *commandHost, why string) error {
	if h.Failed != "" {
		p.record.end(h, commandFailed(true, h.Failed))
		return nil
	}
	var t trouble
	for {
		tried := time.Now()
		var out remote.Outcome
		conn, err := p.ssh.Dial(ctx, h.target())
		if err == nil {
			if err = conn.Cancel(ctx, p.key(h), cancelGrace); err == nil {
				out, err = conn.Attach(ctx, p.key(h), remote.Limits{Head: fleet.OutputHead}, p.record.position(h), commandSink{ctx, p.record, h})
			}
			_ = conn.Close()
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			p.record.end(h, commandStopped(h, why, out))
			return nil
		case remote.KindOf(err) == "":
			return err
		}
		if reason := t.over(err, tried, min(p.in.Unreachable, stopTries), true); reason != "" {
			p.record.end(h, commandFailed(true, why+"; the host could not be told to end it: "+reason))
			return nil
		}
		if !t.wait(ctx) {
			return nil
		}
	}
}

// stopTries is how long a host may be out of reach whose command is to end.
const stopTries = 15 * time.Second

// trouble is that with one host, since it last was of use.
type trouble struct {
	since time.Time // zero while there is none
	next  time.Duration
}

// over says why a host is given up after this error, "" while it is not. One that refuses
// us, or nobody listens at, is at the first try, unless the command may run there.
func (t *trouble) over(err error, tried time.Time, unreachable time.Duration, begun bool) string {
	var broken *remote.Error
	errors.As(err, &broken)
	switch {
	case broken.Permanent(), !begun && errors.Is(err, syscall.ECONNREFUSED):
		return printable(broken.Error())
	case broken.Kind == remote.Lost && time.Since(tried) > reconnectMax:
		t.since, t.next = time.Now(), reconnectMin // it answered until now
	case t.since.IsZero():
		t.since, t.next = tried, reconnectMin
	}
	if time.Since(t.since) > unreachable {
		return printable(fmt.Sprintf("gave up after %s: %s", unreachable, broken.Error()))
	}
	return ""
}

// wait lets some time go by before the next try; false when ctx ends.
func (t *trouble) wait(ctx context.Context) bool {
	pause := time.NewTimer(t.next)
	defer pause.Stop()
	t.next = min(2*t.next, reconnectMax)
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
		return true
	}
}
