package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
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
	Points, Kills           int
	Lost, Duplicated, Stuck int
	Unreached               []Point // points that were not reached, so nobody was killed
}

func (r Result) String() string {
	return fmt.Sprintf("chaos: points=%d kills=%d lost=%d duplicated=%d stuck=%d", r.Points, r.Kills, r.Lost, r.Duplicated, r.Stuck)
}

// OK says whether every promise was held and every kill happened.
func (r Result) OK() bool {
	return r.Points > 0 && r.Kills == r.Points && r.Lost+r.Duplicated+r.Stuck == 0
}

// kinds of operation, in the order in which a host lives through them.
var kinds = []string{"bootstrap", "restart"}

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
		l, err := harness.New(ctx, harness.Options{Dir: o.Dir, Name: fmt.Sprintf("lane%d", i+1), Binary: o.Binary, Postgres: pg, Temporal: server.Addr(), Hosts: hostCount})
		if err != nil {
			return Result{}, fmt.Errorf("lane %d: %w", i+1, err)
		}
		lanes = append(lanes, &lane{l})
	}
	points, err := plan(ctx, lanes, o)
	if err != nil {
		return Result{}, err
	}
	fmt.Fprintf(o.Out, "chaos: %d points, %d lanes of %d hosts\n", len(points), len(lanes), hostCount)
	return try(ctx, lanes, points, o.Out)
}

// plan runs every kind once undisturbed in each lane, which also leaves the
// lane's hosts ready, and takes the points from the first lane's histories.
func plan(ctx context.Context, lanes []*lane, o Options) ([]Point, error) {
	var points []Point
	for i, l := range lanes {
		for _, kind := range kinds {
			ids, err := l.clean(ctx, kind)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				continue
			}
			found, err := pointsOf(ctx, l.Temporal, kind, ids)
			if err != nil {
				return nil, err
			}
			for _, p := range found {
				if o.Only == nil || o.Only.MatchString(p.String()) {
					points = append(points, p)
				}
			}
		}
	}
	return points, nil
}

// try tries the points, each lane taking the next one when it is free.
func try(ctx context.Context, lanes []*lane, points []Point, out io.Writer) (Result, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	next := make(chan Point)
	go func() {
		defer close(next)
		for _, p := range points {
			select {
			case next <- p:
			case <-ctx.Done():
				return
			}
		}
	}()
	var (
		mu  sync.Mutex
		r   Result
		all sync.WaitGroup
	)
	for _, l := range lanes {
		all.Go(func() {
			for p := range next {
				t, err := l.try(ctx, p)
				if err != nil {
					stop(fmt.Errorf("%s: %w (logs in %s)", p, err, l.Dir))
					return
				}
				mu.Lock()
				r.count(t, out, len(points))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return r, context.Cause(ctx)
}

func (r *Result) count(t *Trial, out io.Writer, of int) {
	r.Points++
	r.Lost += t.Lost
	r.Duplicated += t.Duplicated
	r.Stuck += t.Stuck
	verdict := "ok"
	if t.Killed {
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
