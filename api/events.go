package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// Limits of event streams.
const (
	maxStreams     = 200              // open at once in one process
	streamFor      = time.Hour        // then the client comes again, with its credentials
	heartbeatEvery = 15 * time.Second // of silence
	slowClient     = 10 * time.Second // for a client to take what was written
	eventsPage     = 1000             // events read and held at once; the store bounds their output
	lookAgain      = 100 * time.Millisecond
	lookForHidden  = time.Second // the longest wait for what an older transaction holds back
	lastWords      = time.Second // after the end of an operation, for what is on its way to the record
)

// StreamOperationEvents answers with the events of an operation, as they happen.
// What is wrong with the request is said before the stream begins.
func (h *handlers) StreamOperationEvents(ctx context.Context, r gen.StreamOperationEventsRequestObject) (gen.StreamOperationEventsResponseObject, error) {
	host, err := hostFilter(r.Params.Host)
	if err != nil {
		return nil, err
	}
	s := &eventStream{
		handlers:  h,
		ctx:       callOf(ctx).unlimited,
		operation: r.Id,
		filter: store.EventFilter{
			After:  or(r.Params.LastEventID, or(r.Params.After, "")),
			Host:   host,
			Output: or(r.Params.Output, true),
			Limit:  1,
		},
	}
	_, err = h.Store.Events(ctx, r.Id, s.filter)
	if fleet.KindOf(err) == fleet.Invalid && r.Params.LastEventID == nil {
		err = blame(err, "after")
	}
	s.filter.Limit = eventsPage
	return s, err
}

// eventStream is an answer that is written while an operation goes on.
type eventStream struct {
	*handlers
	ctx       context.Context // the connection's; the request's own ends too early
	operation string
	filter    store.EventFilter // After moves on with what was sent
	ended     bool              // the end of the operation was sent
}

// VisitStreamOperationEventsResponse writes the stream. A client that cannot keep
// up is cut off; it comes again and goes on where it was, and so it does when the
// server stops.
func (s *eventStream) VisitStreamOperationEventsResponse(w http.ResponseWriter) error {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return fleet.Errorf(fleet.Unavailable, "%d event streams are open already, which is the most; try again later", maxStreams)
	}
	ctx, cancel := context.WithTimeout(s.ctx, streamFor)
	defer cancel()
	changed, unsubscribe := s.Changes(ctx, s.operation)
	defer unsubscribe()

	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	if err := out.begin(); err != nil {
		return err
	}
	wait := lookAgain
	for {
		sent, err := s.send(ctx, out)
		if err != nil {
			return err
		}
		longest := heartbeatEvery
		if sent {
			wait = lookAgain
		} else {
			over, hidden, err := s.over(ctx)
			switch {
			case err != nil:
				return err
			case over:
				return out.end()
			case hidden: // and nobody gives notice when it can be read
				longest = lookForHidden
			}
		}
		wait = min(wait, longest)
		select {
		case <-changed:
			wait = lookAgain
		case <-time.After(min(wait, out.silence())):
			wait = min(2*wait, longest)
			if err := out.heartbeat(); err != nil {
				return err
			}
		case <-stopping(ctx):
			return nil
		case <-ctx.Done():
			return nil // the client has gone, or its hour is over
		}
	}
}

// send writes what is on record and was not sent yet.
func (s *eventStream) send(ctx context.Context, out *eventWriter) (sent bool, err error) {
	for {
		page, err := s.Store.Events(ctx, s.operation, s.filter)
		if err != nil || len(page) == 0 {
			return sent, err
		}
		for _, e := range page {
			if err := out.event(e); err != nil {
				return sent, err
			}
			s.filter.After = e.ID
			s.ended = s.ended || e.Kind == "operation" && fleet.OperationState(e.State).Ended()
		}
		sent = true
		if err := out.flush(); err != nil {
			return sent, err
		}
	}
}

// over says whether nothing more will come, after everything that can be read was
// sent, or else whether something is on record that cannot be read yet. When the end
// of the operation was not among what was sent, it came before the event that the
// client has already, or before there were events.
func (s *eventStream) over(ctx context.Context) (over, hidden bool, err error) {
	over = s.ended
	if !over {
		op, err := s.Store.Operation(ctx, s.operation)
		if err != nil {
			return false, false, err
		}
		over = op.State.Ended() && time.Since(op.Finished) > lastWords
	}
	// Asked after the state, so that what was written together with it is seen.
	hidden, err = s.Store.EventsAfter(ctx, s.operation, s.filter)
	return over && !hidden, hidden, err
}

// eventWriter writes server-sent events (WHATWG HTML, section 9.2).
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	wrote   time.Time
}

// begin sends the header. The deadlines of the server are for short answers.
func (o *eventWriter) begin() error {
	if err := o.control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	header := o.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Accel-Buffering", "no") // nginx would collect it
	if err := o.control.SetWriteDeadline(time.Now().Add(slowClient)); err != nil {
		return err
	}
	o.w.WriteHeader(http.StatusOK)
	return o.flush()
}

// event writes one event of the record.
func (o *eventWriter) event(e store.Event) error {
	return o.named(e.ID, e.Kind, eventData(e))
}

// end says that everything was sent. It has no id: there is nothing behind it.
func (o *eventWriter) end() error {
	if err := o.named("", "end", gen.Event{At: fleet.FormatTime(time.Now())}); err != nil {
		return err
	}
	return o.flush()
}

func (o *eventWriter) named(id, name string, data gen.Event) error {
	var b bytes.Buffer
	if id != "" {
		b.WriteString("id: " + id + "\n")
	}
	b.WriteString("event: " + name + "\ndata: ")
	encoder := json.NewEncoder(&b) // ends in a line end
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(data); err != nil {
		return err
	}
	b.WriteByte('\n')
	return o.write(b.Bytes())
}

// heartbeat writes a comment after a long silence, so that both ends notice when
// the other is gone.
func (o *eventWriter) heartbeat() error {
	if o.silence() > 0 {
		return nil
	}
	if err := o.write([]byte(":\n\n")); err != nil {
		return err
	}
	return o.flush()
}

// silence is how long nothing may be written from now on.
func (o *eventWriter) silence() time.Duration {
	return max(0, time.Until(o.wrote.Add(heartbeatEvery)))
}

// write gives the client some time to take it. What cannot be written ends ctx,
// too.
func (o *eventWriter) write(text []byte) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(slowClient)); err != nil {
		return err
	}
	_, err := o.w.Write(text)
	return err
}

func (o *eventWriter) flush() error {
	o.wrote = time.Now()
	return o.control.Flush()
}

// eventData is what an event says, by its kind.
func eventData(e store.Event) gen.Event {
	v := gen.Event{At: fleet.FormatTime(e.At), Address: e.Address, Step: e.Step, Attempt: e.Attempt, Reason: e.Reason, ExitCode: e.ExitCode, By: e.By, Detail: e.Detail}
	switch e.Kind {
	case "output":
		v.Offset, v.Length, v.Text = &e.Offset, len(e.Data), legible(e.Data)
	case "steer":
		v.Action = e.State
	default:
		v.State = e.State
	}
	return v
}
