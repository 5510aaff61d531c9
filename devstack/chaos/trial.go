package chaos

import (
	"context"
	"fmt"
	"time"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// lane is one installation in which one point after the other is tried. Lanes
// run side by side.
type lane struct{ *harness.Installation }

const hostCount = 3

// endLimit is how long an operation may take to end after the kill. Recovery
// takes a heartbeat timeout (2 s here) or a workflow task timeout (10 s).
const endLimit = 60 * time.Second

// lastPoint is how long after the end of the operations a point may still come.
const lastPoint = 3 * time.Second

// Trial is one point tried.
type Trial struct {
	Point  Point
	Killed bool // the worker died, or was stopped and replaced, where it was asked to
	*Finding
	Took time.Duration
}

// try kills or stops a worker at a point and lets another bring the operations
// to their end.
func (l *lane) try(ctx context.Context, p Point) (*Trial, error) {
	begin := time.Now()
	if p.Kind == "bootstrap" {
		if err := l.ForgetHosts(ctx); err != nil {
			return nil, err
		}
	}
	before, err := l.effects()
	if err != nil {
		return nil, err
	}
	d, err := l.doom(p)
	if err != nil {
		return nil, err
	}
	defer d.kill()
	ids, err := l.Order(ctx, p.Kind)
	if err != nil {
		return nil, err
	}
	// The worker comes to the point, or the operations end without reaching it. The
	// last points come a moment after the end.
	var ended time.Time
	err = harness.Until(ctx, endLimit, "the worker to come to "+p.String(), func() (bool, error) {
		if d.down() {
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
	if !p.Stops() {
		d.kill()
	}
	note, err := d.reached()
	if err != nil {
		return nil, err
	}
	t := &Trial{Point: p, Killed: note != nil}

	next, err := l.Start("worker")
	if err != nil {
		return nil, err
	}
	defer harness.Kill(next)
	if t.Killed && p.Stops() {
		if err := l.resume(ctx, d, note); err != nil {
			return nil, err
		}
	}
	late := harness.Until(ctx, endLimit, "the operations to end", func() (bool, error) { return l.Ended(ctx, ids) })
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if t.Finding, err = l.verify(ctx, p.Kind, ids, before); err != nil {
		return nil, err
	}
	if late != nil {
		t.Notes = append(t.Notes, late.Error())
	}
	t.Took = time.Since(begin)
	return t, nil
}

// clean runs one operation of a kind with a worker that lives, and gives the
// ids of its workflows.
func (l *lane) clean(ctx context.Context, kind string) ([]string, error) {
	before, err := l.effects()
	if err != nil {
		return nil, err
	}
	w, err := l.Start("worker")
	if err != nil {
		return nil, err
	}
	defer harness.Kill(w)
	ids, err := l.Order(ctx, kind)
	if err != nil {
		return nil, err
	}
	if err := harness.Until(ctx, endLimit, "a clean "+kind, func() (bool, error) { return l.Ended(ctx, ids) }); err != nil {
		return nil, err
	}
	f, err := l.verify(ctx, kind, ids, before)
	if err != nil {
		return nil, err
	}
	if !f.OK() {
		return nil, fmt.Errorf("a %s that nobody disturbed went wrong: %v", kind, f.Notes)
	}
	return l.workflows(kind), nil
}

// workflows are the ids of the workflows of an operation of a kind.
func (l *lane) workflows(kind string) []string {
	var ids []string
	for _, h := range l.Fleet.Hosts() {
		ids = append(ids, workflows.HostWorkflowID(fleet.DefaultTenant, h.Address()))
	}
	if kind == "restart" {
		ids = append(ids, workflows.ClusterWorkflowID(fleet.DefaultTenant, harness.Cluster))
	}
	return ids
}
