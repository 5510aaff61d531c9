package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
	"commissaire/internal/remote/nspawntest"
)

// Options say what a run is made of.
type Options struct {
	Dir    string // for state and logs
	Binary string // commissaire
	// How many machines of each sort.
	APT, DNF, Images int
	Out              io.Writer // a line for everything that was seen
}

// Result counts what was seen on the machines.
type Result struct {
	Hosts    int // machines that were bootstrapped
	Reboots  int // new boot ids after an order
	Upgrades int // upgrades that brought a machine what it should have
	Deploys  int // deploys that a machine booted
	Failed   int // sorts of machines with something that was not as it must be
}

func (r Result) String() string {
	return fmt.Sprintf("acceptance: hosts=%d reboots=%d upgrades=%d deploys=%d failed=%d", r.Hosts, r.Reboots, r.Upgrades, r.Deploys, r.Failed)
}

// OK says whether all was as it must be.
func (r Result) OK() bool { return r.Hosts > 0 && r.Failed == 0 }

// Available says why this machine cannot carry out a run; nil when it can.
func Available() error { return nspawntest.Available() }

// run is one under way.
type run struct {
	*site
	out   io.Writer
	kills sync.Mutex // held while there is no worker

	mu     sync.Mutex // of out and result
	result Result
}

// Run carries out everything. An error means that it could not be tried; what went
// wrong on machines is in the result.
func Run(ctx context.Context, o Options) (_ Result, err error) {
	begin := time.Now()
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), NoSync: true})
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, pg.Stop(privatepg.Immediate)) }()
	server, err := temporal.Start(ctx, temporal.Options{PostgresDSN: pg.DSN("postgres"), NoUI: true})
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	s, err := newSite(ctx, o, pg, server.Addr())
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	r := &run{site: s, out: o.Out}
	all := s.machines.All()
	r.say("%d machines are up: %d apt, %d dnf, %d rpm-ostree (%.1f s)", len(all), o.APT, o.DNF, o.Images, time.Since(begin).Seconds())
	var sorts sync.WaitGroup
	for _, g := range []group{
		{"debian", all[:o.APT], r.packages(aptSystem(s.repository))},
		{"fedora", all[o.APT : o.APT+o.DNF], r.packages(dnfSystem(s.repository))},
		{"images", all[o.APT+o.DNF:], r.images},
	} {
		if len(g.machines) == 0 {
			continue
		}
		sorts.Go(func() {
			if err := g.story(ctx, g); err != nil {
				r.failed(g, err)
			}
		})
	}
	sorts.Wait()
	return r.result, nil
}

// group is the machines of a sort, a cluster of the product.
type group struct {
	cluster  string
	machines []*nspawntest.Machine
	story    func(context.Context, group) error
}

// say prints what was seen.
func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format+"\n", args...)
}

// saw prints what was seen on a machine.
func (r *run) saw(m *nspawntest.Machine, format string, args ...any) {
	r.say("%-3s "+format, append([]any{m.Name()}, args...)...)
}

func (r *run) count(number *int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*number++
}

func (r *run) failed(g group, err error) {
	r.count(&r.result.Failed)
	r.say("FAILED %s: %v", g.cluster, err)
	for _, m := range g.machines {
		console := strings.TrimSpace(m.Console())
		r.say("end of the console of %s, which rebooted %d times:\n%s", m.Name(), m.Reboots(), console[max(0, len(console)-2000):])
	}
}
