package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/nodes"
	"commissaire/devstack/temporal"
	"commissaire/internal/kubetest"
	"commissaire/internal/privatepg"
)

// NodeOptions say how often to do harm to rollouts over the nodes of a Kubernetes.
type NodeOptions struct {
	Binary string // commissaire, built with the tag chaos
	Dir    string // for everything it leaves behind
	Lanes  int    // installations side by side, on one control plane
	Runs   int
	First  int            // number of the first run, to repeat one
	Only   *regexp.Regexp // runs to carry out, by what happens in them; nil for all
	Seed   uint64         // of what happens in each run
	Out    io.Writer

	// Restore is how long after the end of an operation its nodes may be cordoned;
	// restoreLimit when 0.
	Restore time.Duration
}

// NodeResult adds up every run. All counts but Runs are broken promises.
type NodeResult struct {
	Runs           int
	CordonsLeaked  int // nodes that were not as before so long after the end of an operation as they may be cordoned
	ForeignRemoved int // cordons of others that were opened, and nodes of others that were touched
	OverBudget     int // pods taken below what a budget wants, and cordons too many
	Broken         int // runs that went wrong in another way: an operation that does not end, a lane given up

	Harmed  int           // runs in which the harm came to its point
	Slowest time.Duration // from the end of an operation until its nodes were as before
	Evicted int
}

func (r NodeResult) String() string {
	return fmt.Sprintf("k8s: runs=%d cordons_leaked=%d foreign_removed=%d over_budget=%d", r.Runs, r.CordonsLeaked, r.ForeignRemoved, r.OverBudget)
}

// OK says whether every promise was held.
func (r NodeResult) OK() bool {
	return r.Runs > 0 && r.CordonsLeaked+r.ForeignRemoved+r.OverBudget+r.Broken == 0
}

// plane is what all lanes share: one control plane, and what is known of it.
type plane struct {
	kube      *kubetest.Cluster
	watch     *nodes.Watch
	cert, key string // files that log in to it
	restore   time.Duration

	outage sync.Mutex // held while the apiserver is made to restart
	mu     sync.Mutex // guards what follows
	back   time.Time  // when the apiserver came back last
	rules  nodes.Rules
}

// Nodes does harm to rollouts that drain nodes, at random, and judges what the apiserver
// saw of them.
func Nodes(ctx context.Context, o NodeOptions) (r NodeResult, err error) {
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), MaxConnections: 200})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, pg.Stop(privatepg.Fast)) }()
	log, err := os.Create(filepath.Join(o.Dir, "temporal.log"))
	if err != nil {
		return r, err
	}
	defer log.Close()
	server, err := temporal.Start(ctx, temporal.Options{PostgresDSN: pg.DSN("postgres"), NoUI: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	kube, err := kubetest.Start(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, kube.Close()) }()
	watch, err := nodes.Observe(ctx, kube)
	if err != nil {
		return r, err
	}
	defer watch.Close()
	p := &plane{kube: kube, watch: watch, restore: cmp.Or(o.Restore, restoreLimit), rules: nodes.Rules{Ours: map[string]bool{}, Strangers: map[string]bool{}, Operations: map[string]int{}}}
	if p.cert, p.key, err = kube.ClientCertificate("chaos", "system:masters"); err != nil {
		return r, err
	}

	var lanes []*nodeLane
	defer func() {
		for _, l := range lanes {
			l.close()
		}
	}()
	for i := range o.Lanes {
		h, err := harness.New(ctx, harness.Options{
			Dir: o.Dir, Name: fmt.Sprintf("lane%d", i+1), Binary: o.Binary, Postgres: pg, Temporal: server.Addr(), Hosts: webHosts + dbHosts,
		})
		if err != nil {
			return r, fmt.Errorf("lane %d: %w", i+1, err)
		}
		lanes = append(lanes, &nodeLane{lane: &lane{Installation: h}, plane: p, name: fmt.Sprintf("lane%d", i+1)})
	}
	errs := make([]error, len(lanes))
	var all sync.WaitGroup
	for i, l := range lanes {
		all.Go(func() { errs[i] = l.prepare(ctx) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	fmt.Fprintf(o.Out, "k8s: %d runs from seed %d, %d lanes of %d nodes\n", o.Runs, o.Seed, len(lanes), webHosts+dbHosts)
	harmNodes(ctx, lanes, o, &r)
	p.judge(o.Out, &r) // also of what was done until somebody interrupted it
	return r, errors.Join(ctx.Err(), watch.Err())
}

// harmNodes carries out the runs, each lane taking the next one when it is free.
func harmNodes(ctx context.Context, lanes []*nodeLane, o NodeOptions, r *NodeResult) {
	next := make(chan int, o.Runs)
	for n := max(1, o.First); len(next) < o.Runs; n++ {
		if o.Only == nil || o.Only.MatchString(draw(o.Seed, n, lanes[0].counts).String()) {
			next <- n
		}
	}
	close(next)
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, l := range lanes {
		all.Go(func() {
			for n := range next {
				t, err := l.run(ctx, o.Seed, n)
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				r.count(t, err, l, o)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
}

func (r *NodeResult) count(t *nodeTrial, err error, l *nodeLane, o NodeOptions) {
	r.Runs++
	r.CordonsLeaked += t.leaked
	r.Slowest = max(r.Slowest, t.restored)
	verdict := "ok"
	switch {
	case t.leaked > 0:
		verdict = "LEAKED"
	case err != nil || len(t.notes) > 0:
		verdict = "BROKEN"
		r.Broken++
	case t.harmed:
		r.Harmed++
	default:
		verdict = "ok, not reached"
	}
	fmt.Fprintf(o.Out, "%3d/%d %s %-62s %5.1fs restored after %4.1fs %s %s\n", r.Runs, o.Runs, l.name, t, t.took.Seconds(), t.restored.Seconds(), strings.Join(t.states, ","), verdict)
	for i, reason := range t.reasons {
		if t.states[i] == "failed" {
			fmt.Fprintf(o.Out, "        failed: %s\n", reason)
		}
	}
	for _, note := range t.notes {
		fmt.Fprintf(o.Out, "        %s\n", note)
	}
	if err != nil {
		fmt.Fprintf(o.Out, "        %s; this lane is given up, its logs are in %s\n", err, l.Dir)
	}
}

// judge replays all that the apiserver has done.
func (p *plane) judge(out io.Writer, r *NodeResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.watch.Judge(p.rules)
	r.OverBudget, r.ForeignRemoved, r.Evicted = v.OverBudget, v.ForeignRemoved, v.Evicted
	// A node that was found in a run is not found again here, since the lane has mended it.
	r.CordonsLeaked += v.Leaked
	for _, note := range v.Notes {
		fmt.Fprintf(out, "        %s\n", note)
	}
	fmt.Fprintf(out, "k8s: harm was done in %d runs; %d changes were seen, %d evictions; at most %d nodes were cordoned at once; the slowest was as before %.1f s after the end of its operation\n",
		r.Harmed, v.Events, v.Evicted, v.Most, r.Slowest.Seconds())
}
