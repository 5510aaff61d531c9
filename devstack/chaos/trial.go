package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"commissaire/devstack/harness"
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
	Killed bool // the worker died where it was asked to
	*Finding
	Took time.Duration
}

// try kills a worker at a point and lets another bring the operations to their
// end.
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
	hit := filepath.Join(l.Dir, "hit")
	if err := os.Remove(hit); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	doomed, err := l.Start("worker", "CHAOS_FAILPOINT="+p.Failpoint(), "CHAOS_FAILPOINT_HIT="+hit)
	if err != nil {
		return nil, err
	}
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		_ = doomed.Wait()
	}()
	defer func() {
		_ = doomed.Process.Kill()
		<-dead
	}()
	ids, err := l.Order(ctx, p.Kind)
	if err != nil {
		return nil, err
	}
	// The worker dies at the point, or the operations end without reaching it. The
	// last points come a moment after the end.
	var ended time.Time
	err = harness.Until(ctx, endLimit, "the worker to die at "+p.String(), func() (bool, error) {
		select {
		case <-dead:
			return true, nil
		default:
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
	_ = doomed.Process.Kill()
	<-dead
	reached, err := os.ReadFile(hit)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	t := &Trial{Point: p, Killed: string(reached) == p.Failpoint()}

	next, err := l.Start("worker")
	if err != nil {
		return nil, err
	}
	defer harness.Kill(next)
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
	var workflows []string
	for _, h := range l.Fleet.Hosts() {
		workflows = append(workflows, "host/default/"+h.Address())
	}
	if kind == "restart" {
		workflows = append(workflows, "cluster/default/"+harness.Cluster)
	}
	return workflows, nil
}
