package chaos

import (
	"context"
	"fmt"
	"time"

	"commissaire/devstack/harness"
)

// lane is one installation in which one point after the other is tried. Lanes
// run side by side.
type lane struct {
	*harness.Installation
	round  int // counts orders, and is the version that they bring
	joined int // hosts that are in the inventory between trials
}

// endLimit is how long an operation may take to end after the harm. Recovery
// takes a heartbeat timeout (2 s here) or a workflow task timeout (10 s); the rest
// is for a busy machine.
const endLimit = 4 * time.Minute

// lastPoint is how long after the end of the operations a point may still come.
const lastPoint = 3 * time.Second

// Trial is one point tried.
type Trial struct {
	Point   Point
	Reached bool // the harm was done where it was asked for
	*Finding
	Took time.Duration
}

// try does harm at a point and sees that the operations come to their right end,
// if need be by another worker.
func (l *lane) try(ctx context.Context, p Point) (*Trial, error) {
	if p.held() {
		return l.tryHeld(ctx, p)
	}
	begin := time.Now()
	if p.kind.name == "bootstrap" {
		if err := l.forget(ctx, p.kind); err != nil {
			return nil, err
		}
	}
	o, err := l.offer(p.kind)
	if err != nil {
		return nil, err
	}
	before, err := l.ledgers()
	if err != nil {
		return nil, err
	}
	d, err := l.doom(p)
	if err != nil {
		return nil, err
	}
	defer d.kill()
	ids, err := l.request(ctx, o)
	if err != nil {
		return nil, err
	}
	operated := l.operate(ctx, o, ids, before)
	note, err := l.harm(ctx, d, ids)
	if err != nil {
		return nil, err
	}
	t := &Trial{Point: p, Reached: note != nil}
	if !t.Reached || !p.Lives() && !p.API() {
		next, err := l.Start("worker")
		if err != nil {
			return nil, err
		}
		defer harness.Kill(next)
	}
	switch {
	case t.Reached && p.Replaced():
		err = l.resume(ctx, d, note)
	case t.Reached && p.API():
		err = l.killAPI(ctx, d, o, ids)
	}
	if err == nil {
		err = <-operated
	}
	if err != nil {
		return nil, err
	}
	if t.Finding, err = l.finish(ctx, o, ids, before); err != nil {
		return nil, err
	}
	t.Took = time.Since(begin)
	return t, nil
}

// harm waits until the worker comes to its point, or the operations end without
// that; the last points come a moment after the end. It gives what the worker
// wrote at its point.
func (l *lane) harm(ctx context.Context, d *doomed, ids []string) ([]string, error) {
	var ended time.Time
	err := harness.Until(ctx, endLimit, "the worker to come to "+d.point.String(), func() (bool, error) {
		if d.struck() {
			return true, nil
		}
		done, err := l.Ended(ctx, ids)
		if done && ended.IsZero() {
			ended = time.Now()
		}
		return done && time.Since(ended) > lastPoint, err
	})
	if err != nil {
		return nil, err
	}
	note, err := d.reached()
	if err == nil && (note == nil || d.dies()) {
		d.kill()
	}
	return note, err
}

// finish waits for the end of the operations and compares what is to be seen with
// what was ordered.
func (l *lane) finish(ctx context.Context, o order, ids []string, before ledgers) (*Finding, error) {
	late := harness.Until(ctx, endLimit, "the operations to end", func() (bool, error) { return l.Ended(ctx, ids) })
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	f, err := l.verify(ctx, o, ids, before)
	if err == nil && late != nil {
		f.Notes = append(f.Notes, late.Error())
	}
	return f, err
}

// clean carries out one operation of a kind with a worker that lives, and counts
// what happens in it.
func (l *lane) clean(ctx context.Context, k kind) (occurrences, error) {
	o, err := l.offer(k)
	if err != nil {
		return nil, err
	}
	before, err := l.ledgers()
	if err != nil {
		return nil, err
	}
	w, err := l.Start("worker")
	if err != nil {
		return nil, err
	}
	defer harness.Kill(w)
	ids, err := l.request(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := <-l.operate(ctx, o, ids, before); err != nil {
		return nil, err
	}
	f, err := l.finish(ctx, o, ids, before)
	if err != nil {
		return nil, err
	}
	if !f.OK() {
		return nil, fmt.Errorf("a %s that nobody disturbed went wrong: %v", k.name, f.Notes)
	}
	return l.occurrences(ctx, k, ids)
}
