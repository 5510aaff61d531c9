package commctl

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// When nothing has been shown of a command for quietTime, it is told whom it waits for;
// then after twice as long again, and so on up to quietMost.
const (
	quietTime = 10 * time.Second
	quietMost = 10 * time.Minute
)

// running shows a command while it goes on: on standard output what hosts print, on
// standard error which hosts failed, what keeps others, and whom it waits for.
type running struct {
	*logs
	op     client.Operation // as far as it is known
	states map[string]string
	order  []string // hosts, as they were first heard of
	unread bool     // what hosts print may not be read
	shown  bool     // something was, since that was last asked
	quiet  time.Duration
}

func (a *App) newRunning(c *client.ClientWithResponses, op client.Operation) *running {
	r := &running{logs: a.logsOf(c, op.Id), op: op, states: map[string]string{}, quiet: quietTime}
	r.bare, r.out, r.errs = true, noting{a.Out, &r.shown}, noting{a.Err, &r.shown}
	return r
}

// noting is a writer that notes that something was written.
type noting struct {
	io.Writer
	written *bool
}

func (n noting) Write(text []byte) (int, error) {
	*n.written = true
	return n.Writer.Write(text)
}

// follow shows it until it has ended. Only the caller's goroutine writes.
func (r *running) follow(ctx context.Context, a *App) error {
	// Who reads us may go away. Without this the process would end then, and not say that
	// the command goes on.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)

	quiet, err := a.clientTelling(io.Discard)
	if err != nil {
		return err
	}
	acts, done := make(chan func()), make(chan error, 1)
	here := func(act func() error) error {
		result := make(chan error, 1)
		acts <- func() { result <- act() }
		return <-result
	}
	f := &follower{client: quiet, id: r.id, output: true,
		event: func(e event) error { return here(func() error { return r.event(e) }) },
		polled: func(ctx context.Context, op client.Operation) error {
			return here(func() error { return r.polled(ctx, op) })
		},
		notice: func(trouble string) { _ = here(func() error { return r.lost(trouble) }) },
	}
	go func() { done <- f.run(ctx) }()
	next := r.quiet
	timer := time.NewTimer(next)
	defer timer.Stop()
	for {
		select {
		case act := <-acts:
			act()
			if !r.shown {
				continue
			}
			next = r.quiet
		case <-timer.C:
			r.tellWaiting()
			next = min(2*next, quietMost)
		case err := <-done:
			if err != nil {
				return err
			}
			return r.flushAll()
		}
		r.shown = false
		timer.Reset(next)
	}
}

// event prints output, and tells of hosts what is no success.
func (r *running) event(e event) error {
	switch e.name {
	case "operation":
		r.op.State, r.op.Reason = client.OperationState(e.State), e.Reason
		if fleet.OperationState(e.State).Ended() {
			r.op.FinishedAt = e.At
		}
	case "host":
		if _, known := r.states[e.Address]; !known {
			r.order = append(r.order, e.Address)
		}
		r.states[e.Address] = e.State
		if e.State == string(fleet.HostRunFailed) || e.State == string(fleet.HostRunSkipped) {
			return r.say("%s: %s: %s", e.Address, e.State, fleet.OurWords(e.Reason))
		}
	case "step":
		if e.State == string(fleet.StepRunning) && e.Reason != "" {
			return r.say("%s: %s", e.Address, fleet.OurWords(e.Reason))
		}
	}
	return r.logs.event(e)
}

// polled takes in the operation as it is, while there is no stream.
func (r *running) polled(ctx context.Context, op client.Operation) error {
	r.op = op
	if r.unread {
		return nil
	}
	err := r.catchUp(ctx)
	if err != nil && forbidden(err) {
		r.unread = true
		return r.say("what the hosts print is not shown: %s", err)
	}
	return err
}

// lost tells that the server is.
func (r *running) lost(trouble string) error {
	if trouble == "" {
		return nil
	}
	return r.say("commctl: %s", trouble)
}

func (r *running) say(format string, args ...any) error {
	_, err := fmt.Fprintln(r.errs, cell(fmt.Sprintf(format, args...)))
	return err
}

// tellWaiting tells which hosts it waits for, those at work first.
func (r *running) tellWaiting() {
	var open []string
	for _, state := range []fleet.HostRunState{fleet.HostRunRunning, fleet.HostRunPending} {
		for _, host := range r.order {
			if r.states[host] == string(state) {
				open = append(open, host)
			}
		}
	}
	if len(open) > 0 {
		_ = r.say("waiting for %d of %d hosts: %s", len(open), len(r.order), some(open)) // the next write shows what is wrong
	}
}

// tellEnd tells how it went on all hosts, by what was heard of them or by the counts of the
// operation.
func (r *running) tellEnd() error {
	if len(r.order) > 0 {
		p := &client.Progress{Total: len(r.order)}
		for _, state := range r.states {
			switch fleet.HostRunState(state) {
			case fleet.HostRunSucceeded:
				p.Succeeded++
			case fleet.HostRunFailed:
				p.Failed++
			case fleet.HostRunSkipped:
				p.Skipped++
			}
		}
		r.op.Progress = p
	}
	var long []string
	for key := range r.missing {
		long = append(long, key.host)
	}
	if len(long) > 0 {
		slices.Sort(long)
		if err := r.say("the middle of the output is not kept of %s", some(long)); err != nil {
			return err
		}
	}
	counts := ""
	if p := r.op.Progress; p != nil {
		counts = fmt.Sprintf("%d of %d hosts succeeded, %d failed, %d skipped, ", p.Succeeded, p.Total, p.Failed, p.Skipped)
	}
	return r.say("operation %s: %sin %s", r.id, counts, took(r.op.CreatedAt, r.op.FinishedAt))
}

// some names the first of a list.
func some(names []string) string {
	const shown = 3
	list := strings.Join(names[:min(len(names), shown)], ", ")
	if len(names) > shown {
		list += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return list
}
