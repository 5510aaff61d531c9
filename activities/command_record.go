package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/remote"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// When and how much of a page is written at a time. What a host prints waits in memory
// until then; when there is too much of that, hosts wait, and nothing is left out.
const (
	writeSoon   = 250 * time.Millisecond // after a host has ended, for others to come along
	writeEvery  = time.Second            // what hosts print that go on
	writeHosts  = 100                    // have ended: they are written at once
	writeMost   = 500                    // in one statement
	writeBytes  = 4 << 20
	unwritten   = 256 << 10 // of one host
	unwrittenBy = 32 << 20  // of a page
)

// commandHost is one host of a page.
type commandHost struct {
	store.CommandHost

	// Guarded by the record's mu.
	start   int64  // where printed begins, which is where what is written ends
	note    string // what stands in its way, "" for nothing
	noted   bool   // note is not written yet
	printed []byte // not written yet
	last    ending // of all it printed
	end     *store.CommandWrite
	waits   bool // it is among those to be written
}

func (h *commandHost) target() remote.Target {
	return remote.Target{Address: h.Address, Port: h.Port, User: h.Creds.RemoteUser, Key: h.Creds.PrivateKey, HostKey: h.HostKey, Via: via(h.Bastion)}
}

// commandRecord writes what becomes of the hosts of a page, many in one statement.
type commandRecord struct {
	// write writes what take gives, when it is this page's turn: what comes meanwhile is
	// written with it.
	write func(take func() []store.CommandWrite) error

	mu     sync.Mutex
	open   int            // hosts that have not ended
	ended  int            // of those that wait, how many have ended
	held   int            // bytes printed that are not written
	queue  []*commandHost // those that wait to be written
	room   chan struct{}  // closed when there is room for more
	closed bool
	failed error
	counts workflows.CommandCounts

	soon, now chan struct{} // something has ended; so much waits that it is written at once
}

func newCommandRecord(hosts int, write func(func() []store.CommandWrite) error) *commandRecord {
	return &commandRecord{write: write, open: hosts, room: make(chan struct{}), soon: make(chan struct{}, 1), now: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// position is up to where the output of a host is in our hands.
func (r *commandRecord) position(h *commandHost) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return h.start + int64(len(h.printed))
}

// print takes what a host printed, as soon as there is room for it.
func (r *commandRecord) print(ctx context.Context, h *commandHost, offset int64, data []byte) (next int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.failed == nil && (len(h.printed) > 0 && len(h.printed)+len(data) > unwritten || r.held > 0 && r.held+len(data) > unwrittenBy) {
		room := r.room
		r.mu.Unlock()
		poke(r.now)
		select {
		case <-room:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if ctx.Err() != nil {
			return offset, context.Cause(ctx)
		}
	}
	if r.failed != nil {
		return offset, r.failed
	}
	at := h.start + int64(len(h.printed))
	if offset != at {
		return at, nil // from where to go on
	}
	h.printed = append(h.printed, data...)
	h.last.add(data)
	r.held += len(data)
	r.enqueue(h)
	return at + int64(len(data)), nil
}

// say notes what stands in the way of a host that goes on, "" when nothing does any more.
func (r *commandRecord) say(h *commandHost, note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.note, h.noted = printable(note), true
	r.enqueue(h)
}

// end notes how a host ended. Its step and its output are written with it.
func (r *commandRecord) end(h *commandHost, how store.CommandWrite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if how.TailStart < h.start+int64(len(h.printed)) { // no end of an output begins before what we have of it
		how.Tail, how.TailStart = nil, 0
	}
	h.end = &how
	r.held += len(how.Tail)
	r.enqueue(h)
	r.open--
	r.ended++
	if r.open == 0 || r.ended >= writeHosts {
		poke(r.now)
	}
	poke(r.soon)
}

func (r *commandRecord) enqueue(h *commandHost) {
	if !h.waits {
		h.waits = true
		r.queue = append(r.queue, h)
	}
}

// close has all be written that is there. Nothing may come after it.
func (r *commandRecord) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	poke(r.now)
}

// run writes until the record is closed, or cannot be written. The error is then also that
// of hosts that print.
func (r *commandRecord) run() error {
	every := time.NewTicker(writeEvery)
	defer every.Stop()
	for {
		all := false
		select {
		case <-every.C:
			all = true
		case <-r.now:
			all = true
		case <-r.soon:
			gather := time.NewTimer(writeSoon)
			select {
			case <-gather.C:
			case <-r.now:
				all = true
			}
			gather.Stop()
		}
		closed, err := r.flush(all)
		if err != nil || closed {
			return err
		}
	}
}

// flush writes hosts that have ended; with all, what the others have printed, too.
func (r *commandRecord) flush(all bool) (closed bool, err error) {
	for r.waits(all) {
		var hosts []*commandHost
		var bytes int
		err := r.write(func() (writes []store.CommandWrite) {
			writes, hosts, bytes = r.take(all)
			return writes
		})
		r.mu.Lock()
		r.held -= bytes
		if err != nil {
			r.failed = err
		} else {
			r.count(hosts)
		}
		close(r.room)
		r.room = make(chan struct{})
		r.mu.Unlock()
		if err != nil {
			return true, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed && len(r.queue) == 0, nil
}

// waits says whether there is something to write.
func (r *commandRecord) waits(all bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended > 0 || (all || r.closed) && len(r.queue) > 0
}

// take gives what one statement writes.
func (r *commandRecord) take(all bool) (writes []store.CommandWrite, ended []*commandHost, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all = all || r.closed
	var left []*commandHost
	for i, h := range r.queue {
		if len(writes) >= writeMost || bytes >= writeBytes {
			left = append(left, r.queue[i:]...)
			break
		}
		if h.end == nil && !all {
			left = append(left, h)
			continue
		}
		w := store.CommandWrite{Note: h.note, Noted: h.noted}
		h.noted = false
		if h.end != nil {
			w = *h.end
			ended = append(ended, h)
			r.ended--
		}
		w.StepID, w.Start, w.Data = h.StepID, h.start, h.printed
		bytes += len(w.Data) + len(w.Tail)
		h.start, h.printed, h.waits = h.start+int64(len(h.printed)), nil, false
		writes = append(writes, w)
	}
	r.queue = left
	return writes, ended, bytes
}

// count counts hosts whose end is on record.
func (r *commandRecord) count(ended []*commandHost) {
	for _, h := range ended {
		switch h.end.End {
		case fleet.HostRunSucceeded:
			r.counts.Succeeded++
		case fleet.HostRunSkipped:
			r.counts.Skipped++
		default:
			r.counts.Failed++
		}
	}
}

// commandSink takes what one host prints.
type commandSink struct {
	ctx    context.Context
	record *commandRecord
	host   *commandHost
}

func (s commandSink) Output(offset int64, data []byte) (int64, error) {
	return s.record.print(s.ctx, s.host, offset, data)
}

// Alive needs no answer: the page heartbeats by itself.
func (commandSink) Alive() {}

// commandFailed is the end of a host that could not be used. Whether the command ran
// there is not known when it may have been started.
func commandFailed(begun bool, why string) store.CommandWrite {
	w := store.CommandWrite{End: fleet.HostRunFailed, State: fleet.StepFailed, Reason: why + "; the command had not begun"}
	if begun {
		w.State, w.Reason = fleet.StepIndeterminate, why+"; the command may have been started there, and may still run"
	}
	return w
}

// commandEnded is the end of a host by how its command ended.
func commandEnded(h *commandHost, out remote.Outcome) store.CommandWrite {
	w := withTail(out)
	err := judged("the command", out, h.last.of(out))
	if err == nil {
		w.End, w.State = fleet.HostRunSucceeded, fleet.StepSucceeded
		return w
	}
	w.End = fleet.HostRunFailed
	if out.State == remote.Cancelled {
		w.End = fleet.HostRunSkipped
	}
	return because(w, err)
}

func because(w store.CommandWrite, err error) store.CommandWrite {
	var f *failure
	if !errors.As(err, &f) { // judged and stopped give nothing else
		w.State, w.Reason = fleet.StepIndeterminate, printable(fmt.Sprint(err))
		return w
	}
	w.State, w.Reason = f.state, f.reason+f.detail
	return w
}

// withTail is what the outcome says of the output.
func withTail(out remote.Outcome) store.CommandWrite {
	w := store.CommandWrite{Size: out.OutputSize, Tail: out.Tail, TailStart: out.TailOffset}
	if out.State == remote.Exited {
		w.ExitCode = &out.ExitCode
	}
	return w
}
