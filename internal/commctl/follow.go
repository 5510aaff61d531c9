package commctl

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// Time limits of following an operation.
const (
	silenceTime = time.Minute      // without an event or a comment, which come every 15 s, a stream is dead
	lostTime    = 10 * time.Minute // how long a server that was there may be away
	pollEvery   = 2 * time.Second  // while streams are refused
	streamAgain = 30 * time.Second // then streams are tried again
	firstPause  = 500 * time.Millisecond
	longPause   = 5 * time.Second
)

// follower follows an operation to its end: by its stream of events, which it goes
// on with where a connection was cut, and while the server refuses streams, or to
// whom it does not allow them, by asking for the operation again and again.
type follower struct {
	client *client.ClientWithResponses
	id     string // of the operation
	host   string // only events of this host and of the operation itself; "" of all
	output bool   // also what steps print

	// event gets each event, in order, once. What it returns ends the following.
	event func(event) error
	// polled is called after each poll with the operation as it is; nil to do
	// nothing. Polls make events of the kinds operation and host alone.
	polled func(context.Context, client.Operation) error
	// notice is told when the server is lost ("" when it is back); nil to tell nobody.
	notice func(trouble string)

	last  string            // id of the last event
	state string            // of the operation, from polls and events
	hosts map[string]string // states of the hosts, from polls and events
	ahead bool              // polls have told what the stream will tell again

	trouble string // what notice was told last
}

// errRefused says that the server gives no stream now.
var errRefused = errors.New("the server gives no stream of events now")

// handlerError is an error of the one who follows.
type handlerError struct{ error }

// run follows until the operation has ended and everything came, or the context
// has. A server that was never there is an error at once; one that goes away is
// waited for, up to lostTime.
func (f *follower) run(ctx context.Context) error {
	f.hosts = map[string]string{}
	var contact time.Time // when the server was last there
	pause := firstPause
	for {
		heard := false
		hear := func() {
			heard, contact, pause = true, time.Now(), firstPause
			f.tell("")
		}
		ended, err := f.stream(ctx, hear)
		if errors.Is(err, errRefused) {
			ended, err = f.poll(ctx, hear)
		}
		var own handlerError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &own):
			return own.error
		case ended:
			return nil
		case err != nil && (!passing(err) || contact.IsZero() || time.Since(contact) > lostTime):
			return err
		case err != nil && !heard:
			f.tell("the server does not answer; trying again")
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, longPause)
	}
}

func (f *follower) tell(trouble string) {
	if f.notice != nil && f.trouble != trouble {
		f.trouble = trouble
		f.notice(trouble)
	}
}

// passing says whether an error may be gone a moment later.
func passing(err error) bool {
	var dead *unreachableError
	var known *exitError
	return errors.Is(err, errStreamBroken) || errors.As(err, &dead) ||
		errors.As(err, &known) && (known.code == exitUnavailable || known.code == exitUnreachable)
}

// forbidden says whether the credentials do not allow something.
func forbidden(err error) bool {
	var known *exitError
	return errors.As(err, &known) && known.code == exitForbidden
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stream opens a stream and reads it to its end. ended: everything came.
func (f *follower) stream(ctx context.Context, heard func()) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := f.client.StreamOperationEvents(ctx, f.id, &client.StreamOperationEventsParams{
		Host: given(f.host), Output: &f.output, LastEventID: given(f.last),
	})
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20)) // the status says enough
		err := failure(r.StatusCode, body)
		if passing(err) || forbidden(err) { // a token may be good for polls alone
			err = errRefused
		}
		return false, err
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "text/event-stream" {
		return false, errRefused
	}
	heard()
	watchdog := time.AfterFunc(silenceTime, cancel)
	defer watchdog.Stop()
	err = readEvents(r.Body, func() { watchdog.Reset(silenceTime); heard() }, func(e event) error {
		if e.name == "end" {
			ended = true
		} else {
			f.last = e.id
		}
		return f.handle(e)
	})
	return ended, err
}

// handle notes an event and passes it on, unless a poll was before it.
func (f *follower) handle(e event) error {
	switch e.name {
	case "operation":
		if f.ahead && stage(e.State) <= stage(f.state) {
			return nil
		}
		f.state = e.State
	case "host":
		if f.ahead && stage(e.State) <= stage(f.hosts[e.Address]) {
			return nil
		}
		f.hosts[e.Address] = e.State
	}
	if err := f.event(e); err != nil {
		return handlerError{err}
	}
	return nil
}

// stage numbers the states of operations and of hosts in them in the order they
// come; -1 is before all.
func stage(state string) int {
	if fleet.HostRunState(state).Ended() || fleet.OperationState(state).Ended() {
		return len(stages)
	}
	return slices.Index(stages, state)
}

var stages = []string{string(fleet.HostRunPending), string(fleet.HostRunStaging), string(fleet.HostRunStaged), string(fleet.HostRunRunning)}

// poll asks for the operation until it has ended, or streams are to be tried again.
func (f *follower) poll(ctx context.Context, heard func()) (ended bool, err error) {
	f.ahead = true
	for until := time.Now().Add(streamAgain); ; {
		op, err := f.look(ctx)
		if err != nil {
			return false, err
		}
		heard()
		if f.polled != nil {
			if err := f.polled(ctx, op); err != nil {
				return false, handlerError{err}
			}
		}
		if fleet.OperationState(op.State).Ended() {
			return true, nil
		}
		if time.Now().After(until) {
			return false, nil
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return false, err
		}
	}
}

// look asks once, and makes events of what has changed. The operation is asked
// first, so that its hosts are as they ended when it has.
func (f *follower) look(ctx context.Context) (client.Operation, error) {
	op, err := getOperation(ctx, f.client, f.id)
	if err != nil {
		return op, err
	}
	hosts, err := operationHosts(ctx, f.client, f.id, "")
	if err != nil && !forbidden(err) { // then the operation itself must do
		return op, err
	}
	for _, h := range hosts {
		if (f.host != "" && f.host != h.Address) || f.hosts[h.Address] == h.State {
			continue
		}
		at := h.FinishedAt
		if at == "" {
			at = h.StartedAt
		}
		if err := f.handle(event{name: "host", Event: client.Event{At: at, Address: h.Address, State: h.State, Reason: h.Reason}}); err != nil {
			return op, err
		}
	}
	if state := string(op.State); state != f.state {
		at := slices.MaxFunc([]string{op.CreatedAt, op.StartedAt, op.FinishedAt}, func(a, b string) int { return parseTime(a).Compare(parseTime(b)) })
		return op, f.handle(event{name: "operation", Event: client.Event{At: at, State: state, Reason: op.Reason}})
	}
	return op, nil
}

func getOperation(ctx context.Context, c *client.ClientWithResponses, id string) (client.Operation, error) {
	return fetch[client.Operation](ctx, func(ctx context.Context) (*http.Response, error) { return c.GetOperation(ctx, id) })
}

// operationHosts gives the hosts of an operation in the order they are worked on,
// those in a state when it is not "".
func operationHosts(ctx context.Context, c *client.ClientWithResponses, id, state string) ([]client.HostRun, error) {
	var all []client.HostRun
	params := &client.ListOperationHostsParams{State: given(state), Limit: pointer(1000)}
	for {
		page, err := fetch[client.HostRunPage](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListOperationHosts(ctx, id, params) })
		if err != nil {
			return nil, err
		}
		all = append(all, page.Hosts...)
		if page.Next == "" {
			return all, nil
		}
		params.Cursor = &page.Next
	}
}

// operationSteps gives the steps of an operation in the order they began, those of
// a host when it is not "".
func operationSteps(ctx context.Context, c *client.ClientWithResponses, id, host string) ([]client.Step, error) {
	var all []client.Step
	params := &client.ListOperationStepsParams{Host: given(host), Limit: pointer(1000)}
	for {
		page, err := fetch[client.StepPage](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListOperationSteps(ctx, id, params) })
		if err != nil {
			return nil, err
		}
		all = append(all, page.Steps...)
		if page.Next == "" {
			return all, nil
		}
		params.Cursor = &page.Next
	}
}
