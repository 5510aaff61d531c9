package activities

import (
	"context"
	"sync"
	"time"
)

// commandSlots bound on how many hosts a worker is at work at a time. Those that were out
// of reach wait for slots of their own, so that they keep others from a first try once
// only, for as long as theirs takes, and a command that is to end waits for none that run.
type commandSlots struct {
	first, again, stop slots
}

func newCommandSlots(each int) commandSlots {
	return commandSlots{first: make(slots, each), again: make(slots, each), stop: make(slots, each)}
}

// slots has a token in it for each that is in use.
type slots chan struct{}

// slotsAsk is how often who waits for a slot asks whether that is in vain.
const slotsAsk = 5 * time.Second

// with does something in a slot, as soon as one is free. Nothing is done once ctx has
// ended, or inVain, unless it is nil, says that it is over, or fails.
func (s slots) with(ctx context.Context, do func() error, inVain func() (over bool, err error)) error {
	for got := false; !got; {
		var ask <-chan time.Time
		if inVain != nil {
			ask = time.After(slotsAsk)
		}
		select {
		case s <- struct{}{}:
			got = true
		case <-ctx.Done():
			return nil
		case <-ask:
			if over, err := inVain(); over || err != nil {
				return err
			}
		}
	}
	defer func() { <-s }()
	if ctx.Err() != nil {
		return nil
	}
	return do()
}

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
