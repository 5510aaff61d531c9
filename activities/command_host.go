package activities

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/remote"
	"commissaire/internal/store"
)

// commandRun is where a command stands on one host, in this attempt of its page.
type commandRun struct {
	host   *commandHost
	begun  bool      // it may have been started there
	looked bool      // the host has said whether it was, or we are the first
	end    time.Time // when its time is over; zero while it is not known to run
	said   bool      // the record says what stands in its way
	trouble
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
	r := commandRun{host: h, begun: h.Again, looked: !h.Again, said: h.Noted}
	over := false
	for slots := p.slots.first; ; slots = p.slots.again {
		var err error
		err = slots.with(ctx, func() error {
			over, err = p.try(ctx, &r)
			return err
		}, func() (bool, error) {
			over, err = p.inVain(ctx, &r)
			return over, err
		})
		if over || err != nil || !r.wait(ctx) {
			return err
		}
	}
}

// inVain ends a host that waits for a slot when it is not to begin any more, or its command
// has had its time. over is whether it has ended.
func (p *commandPage) inVain(ctx context.Context, r *commandRun) (over bool, err error) {
	stop, err := p.mayGoOn(ctx, r.host)
	switch {
	case errors.Is(err, errGivenUp):
		return true, nil
	case fleet.KindOf(err) == fleet.Unavailable: // one that gets its slot will see
		return false, nil
	case err != nil:
		return true, err
	case stop != "" && !r.begun:
		return true, p.slots.stop.with(ctx, func() error { return p.skip(ctx, r.host, stop) }, nil)
	case !r.end.IsZero() && wallClock().After(r.end):
		return true, p.slots.stop.with(ctx, func() error { return p.stop(ctx, p.overTime(r.host)) }, nil)
	}
	return false, nil
}

// try goes to the host once. over is whether there is nothing left to do on it.
func (p *commandPage) try(ctx context.Context, r *commandRun) (over bool, err error) {
	tried := wallClock()
	err = p.visit(ctx, r)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, errGivenUp):
		return true, nil
	case fleet.KindOf(err) == fleet.Unavailable: // nothing is begun until Postgres is there again
		r.next = max(r.next, reconnectMin)
		return false, nil
	case !r.begun && errors.Is(err, errOverTime):
		p.record.end(r.host, commandFailed(false, fmt.Sprintf("gave up after %s: %s", p.command.Timeout, r.last)))
		return true, nil
	case errors.Is(err, errOverTime), !r.end.IsZero() && wallClock().After(r.end):
		return true, p.stop(ctx, p.overTime(r.host))
	case remote.KindOf(err) == "":
		return true, err
	}
	patience := p.in.Unreachable
	if !r.begun {
		patience = min(patience, time.Duration(p.command.Timeout))
	}
	if why := r.over(err, tried, patience, r.begun); why != "" {
		p.record.end(r.host, commandFailed(r.begun, why))
		return true, nil
	}
	if !r.said && time.Since(r.since) > troubleQuiet {
		r.said = true
		p.record.say(r.host, fmt.Sprintf("trouble since %s, given up after %s of it: %s", fleet.FormatTime(r.since.UTC()), patience, r.last))
	}
	return false, nil
}

// visit runs the command on a connection of its own, or goes on with it. Without an error
// the host has ended.
func (p *commandPage) visit(ctx context.Context, r *commandRun) error {
	stop, err := p.mayGoOn(ctx, r.host)
	if err != nil {
		return err
	}
	if stop != "" && !r.begun {
		return p.skip(ctx, r.host, stop)
	}
	conn, err := p.dial(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if r.said {
		r.said = false
		p.record.say(r.host, "")
	}
	if r.begun && r.end.IsZero() { // at the latest, until the host says more
		r.end = wallClock().Add(time.Duration(p.command.Timeout))
	}
	if !r.looked {
		if err := p.look(ctx, conn, r); err != nil {
			return err
		}
	}
	if !r.begun {
		// What was true before the login may be old by now.
		if stop, err = p.mayGoOn(ctx, r.host); err != nil {
			return err
		}
		if stop != "" {
			return p.skip(ctx, r.host, stop)
		}
	}
	r.begun = true
	if r.end.IsZero() {
		from := r.since // it had its turn then, and could not be reached
		if from.IsZero() {
			from = wallClock()
		}
		r.end = from.Add(time.Duration(p.command.Timeout))
	}
	out, err := p.once(ctx, conn, r.host, r.end)
	if err != nil {
		// Perhaps before it came so far, and the operation may be cancelled by the next try.
		r.looked, r.host.Again = false, true
		return err
	}
	end := commandEnded(r.host, out)
	if out.Told {
		stop, err := p.toldBy(ctx, r.host, out)
		if err != nil {
			return err
		}
		end = stop.end(out)
	}
	p.record.end(r.host, end)
	return nil
}

// toldBy says why a command was told to end by somebody else: an attempt at its page that
// was lost then, or who cancels the operation while this worker does not know of it.
func (p *commandPage) toldBy(ctx context.Context, h *commandHost, out remote.Outcome) (*commandStop, error) {
	if wallClock().Before(out.Started.Add(time.Duration(p.command.Timeout))) {
		p.lookAgain()
		if stop, err := p.mayGoOn(ctx, h); err != nil || stop != "" {
			return &commandStop{host: h, why: stop}, err
		}
	}
	return p.overTime(h), nil
}

func (p *commandPage) overTime(h *commandHost) *commandStop {
	return &commandStop{host: h, why: fmt.Sprintf("the command took longer than %s", p.command.Timeout)}
}

// dial logs in. Where that has failed before it has no longer than the command.
func (p *commandPage) dial(ctx context.Context, r *commandRun) (*remote.Conn, error) {
	if !r.begun && !r.since.IsZero() {
		limited, cancel := context.WithDeadlineCause(ctx, r.since.Add(time.Duration(p.command.Timeout)), errOverTime)
		defer cancel()
		ctx = limited
	}
	return p.ssh.Dial(ctx, r.host.target())
}

// skip ends a host on which the command is not to begin any more. Where the attempt before
// may be about to begin it, the host itself sees to that.
func (p *commandPage) skip(ctx context.Context, h *commandHost, why string) error {
	if h.Again {
		return p.stop(ctx, &commandStop{host: h, why: why})
	}
	p.record.end(h, store.CommandWrite{End: fleet.HostRunSkipped, State: fleet.StepFailed, Reason: why + "; the command had not begun"})
	return nil
}

// looksFor is how long a host has to say whether the command was started there.
const looksFor = 15 * time.Second

// look asks the host whether the attempt before has started the command: that took the
// host up, but may never have come so far. The time of one that runs goes on.
func (p *commandPage) look(ctx context.Context, conn *remote.Conn, r *commandRun) error {
	limited, cancel := context.WithTimeout(ctx, looksFor)
	defer cancel()
	status, err := conn.Status(limited, p.key(r.host))
	switch {
	case err != nil && limited.Err() != nil && ctx.Err() == nil:
		return &remote.Error{Kind: remote.Unreachable, Host: r.host.Address, Err: fmt.Errorf("it did not say within %s whether the command runs", looksFor)}
	case err != nil:
		return err
	case status.State == remote.Absent:
		r.begun, r.end = false, time.Time{}
	case status.State == remote.Running:
		if end := status.Started.Add(time.Duration(p.command.Timeout)); end.Before(r.end) {
			r.end = end
		}
	}
	r.looked = true
	return nil
}

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

// trouble is that with one host, since it last was of use.
type trouble struct {
	since time.Time // zero while there is none
	last  string    // what it was
	next  time.Duration
}

// over says why a host is given up after this error, "" while it is not. One that refuses
// us, or nobody listens at, is at the first try, unless the command may run there.
func (t *trouble) over(err error, tried time.Time, unreachable time.Duration, begun bool) string {
	var broken *remote.Error
	errors.As(err, &broken)
	t.last = printable(broken.Error())
	switch {
	case broken.Permanent(), !begun && errors.Is(err, syscall.ECONNREFUSED):
		return t.last
	case broken.Kind == remote.Lost && time.Since(tried) > reconnectMax:
		t.since, t.next = time.Now(), reconnectMin // it answered until now
	case t.since.IsZero():
		t.since, t.next = tried, reconnectMin
	}
	if time.Since(t.since) > unreachable {
		return fmt.Sprintf("gave up after %s: %s", unreachable, t.last)
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
