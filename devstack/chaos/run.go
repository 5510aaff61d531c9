package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
)

// Options say what to try.
type Options struct {
	Binary string         // commissaire, built with the tag chaos
	Dir    string         // for everything it leaves behind
	Lanes  int            // installations side by side
	Only   *regexp.Regexp // points to try, nil for all
	Out    io.Writer
}

// Result adds up every trial.
type Result struct {
	Points, Kills int // a kill is any harm that was done
	Finding
	Unreached []Point // points that were not reached, so that no harm was done
}

func (r Result) String() string {
	return fmt.Sprintf("chaos: points=%d kills=%d lost=%d duplicated=%d stuck=%d slots_leaked=%d", r.Points, r.Kills, r.Lost, r.Duplicated, r.Stuck, r.Leaked)
}

// OK says whether every promise was held and every kill happened.
func (r Result) OK() bool { return r.Points > 0 && r.Kills == r.Points && r.Finding.OK() }

// Run tries every point.
func Run(ctx context.Context, o Options) (_ Result, err error) {
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), MaxConnections: 200})
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, pg.Stop(privatepg.Fast)) }()
	server, err := temporal.Start(ctx, temporal.Options{PostgresDSN: pg.DSN("postgres"), NoUI: true})
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	var lanes []*lane
	defer func() {
		for _, l := range lanes {
			l.Close()
		}
	}()
	for i := range o.Lanes {
		l, err := harness.New(ctx, harness.Options{Dir: o.Dir, Name: fmt.Sprintf("lane%d", i+1), Binary: o.Binary, Postgres: pg, Temporal: server.Addr(), Machines: machines})
		if err != nil {
			return Result{}, fmt.Errorf("lane %d: %w", i+1, err)
		}
		lanes = append(lanes, &lane{Installation: l})
	}
	points, err := plan(ctx, lanes, o)
	if err != nil {
		return Result{}, err
	}
	fmt.Fprintf(o.Out, "chaos: %d points, %d lanes of %d hosts\n", len(points), len(lanes), len(machines))
	return try(ctx, lanes, points, o.Out)
}

// plan runs every kind once undisturbed in each lane, which also leaves the
// lane's hosts ready, and takes the points from what happened in every lane.
func plan(ctx context.Context, lanes []*lane, o Options) (points []Point, err error) {
	counts := make([]map[kind]occurrences, len(lanes))
	errs := make([]error, len(lanes))
	var all sync.WaitGroup
	for i, l := range lanes {
		all.Go(func() { counts[i], errs[i] = l.prepare(ctx) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, k := range kinds {
		least := counts[0][k]
		for _, c := range counts[1:] {
			least = least.least(c[k])
		}
		for _, p := range slices.Concat(least.points(k), k.points()) {
			if o.Only == nil || o.Only.MatchString(p.String()) {
				points = append(points, p)
			}
		}
	}
	return points, nil
}

// prepare makes the hosts of a lane ready and runs every kind once.
func (l *lane) prepare(ctx context.Context) (map[kind]occurrences, error) {
	for _, h := range l.hosts(kind{cluster: imagesCluster}) {
		for _, version := range deployed {
			if err := h.PublishOSTree(version); err != nil {
				return nil, err
			}
		}
	}
	for _, cluster := range []string{imagesCluster, bastionCluster, commandsCluster} {
		if _, err := l.clean(ctx, kind{"bootstrap", cluster}); err != nil {
			return nil, err
		}
	}
	counts := map[kind]occurrences{}
	for _, k := range kinds {
		var err error
		if counts[k], err = l.clean(ctx, k); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// try tries the points, each lane taking the next one when it is free. A lane in
// which a trial did not come to its end is given up; the others go on.
func try(ctx context.Context, lanes []*lane, points []Point, out io.Writer) (Result, error) {
	next := make(chan Point, len(points))
	for _, p := range points {
		next <- p
	}
	close(next)
	var (
		mu  sync.Mutex
		r   Result
		all sync.WaitGroup
	)
	for _, l := range lanes {
		all.Go(func() {
			for p := range next {
				t, err := l.insist(ctx, p)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t = &Trial{Point: p, Finding: new(Finding)}
					t.add(&t.Stuck, "%s; this lane is given up, its logs are in %s", err, l.Dir)
				}
				mu.Lock()
				r.count(t, out, len(points))
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return r, ctx.Err()
}

// insist tries a point again when it was not reached: how often the workflow of a
// rollout looks around depends on which host is done first.
func (l *lane) insist(ctx context.Context, p Point) (t *Trial, err error) {
	const most = 3
	for range most {
		if t, err = l.try(ctx, p); err != nil || t.Reached || !t.OK() {
			break
		}
	}
	return t, err
}

func (r *Result) count(t *Trial, out io.Writer, of int) {
	r.Points++
	r.sum(t.Finding)
	verdict := "ok"
	if t.Reached {
		r.Kills++
	} else {
		r.Unreached = append(r.Unreached, t.Point)
		verdict = "not reached"
	}
	if !t.OK() {
		verdict = "BROKEN"
	}
	fmt.Fprintf(out, "%3d/%d %-50s %5.1fs %s\n", r.Points, of, t.Point, t.Took.Round(100*time.Millisecond).Seconds(), verdict)
	for _, note := range t.Notes {
		fmt.Fprintf(out, "        %s\n", note)
	}
}
