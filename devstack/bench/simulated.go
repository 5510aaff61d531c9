package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale"
	"commissaire/devstack/scale/simhost"
)

// SimulatedOptions say how large the fleets are.
type SimulatedOptions struct {
	Binary string // commissaire
	Dir    string
	Sizes  []int // hosts
	Out    io.Writer
}

// Simulated is what one command took on a fleet of hosts that are simulated in this
// process. Figures are medians when there was more than one round.
type Simulated struct {
	Hosts, Rounds          int
	Wall                   time.Duration // by the record
	Client                 time.Duration // from the request until the client knew
	Worker, Stack          int64         // most memory of the worker, and of all parts at once, in bytes
	Events, HistoryBytes   int64
	Database, TemporalData int64                    // that both grew by in one operation, in bytes
	Parts                  map[string]time.Duration // of a processor
	Simulation             time.Duration            // of a processor, that the hosts took themselves
	Busy                   float64                  // processors that other programs had meanwhile
	Failure                string
}

func (s Simulated) print(out io.Writer) {
	if s.Failure != "" {
		fmt.Fprintf(out, "bench: simulated=%d failed: %s\n", s.Hosts, s.Failure)
		return
	}
	var b strings.Builder
	for _, part := range productParts {
		fmt.Fprintf(&b, " %s_cpu_s=%.2f", part, s.Parts[part].Seconds())
	}
	fmt.Fprintf(out, "bench: simulated=%d rounds=%d wall_s=%.2f client_s=%.2f worker_mb=%d stack_mb=%d events=%d history_bytes=%d database_kb=%d temporal_kb=%d%s hosts_cpu_s=%.2f others_cpu=%.2f\n",
		s.Hosts, s.Rounds, s.Wall.Seconds(), s.Client.Seconds(), s.Worker>>20, s.Stack>>20, s.Events, s.HistoryBytes, s.Database>>10, s.TemporalData>>10, b.String(), s.Simulation.Seconds(), s.Busy)
}

// Simulate runs the command on fleets of each size. A size that fails says why.
func Simulate(ctx context.Context, o SimulatedOptions) ([]Simulated, error) {
	if err := os.MkdirAll(o.Dir, 0o711); err != nil { // Postgres runs as another user when we are root
		return nil, err
	}
	var all []Simulated
	for _, hosts := range o.Sizes {
		s, err := simulate(ctx, o, hosts)
		if err != nil {
			if ctx.Err() != nil {
				return all, err
			}
			s = Simulated{Hosts: hosts, Failure: err.Error()}
		}
		s.print(o.Out)
		all = append(all, s)
	}
	return all, nil
}

// fleetLimit is how long one command on a simulated fleet may take.
const fleetLimit = 5 * time.Minute

// largeFleet is from how many hosts on one round has to do.
const largeFleet = 2000

func simulate(ctx context.Context, o SimulatedOptions, hosts int) (s Simulated, err error) {
	s = Simulated{Hosts: hosts, Rounds: 3, Parts: map[string]time.Duration{}}
	if hosts >= largeFleet {
		s.Rounds = 1
	}
	fmt.Fprintf(o.Out, "bench: starting %d simulated hosts and the product\n", hosts)
	fleet, err := simhost.Open(simhost.Options{Hosts: hosts})
	if err != nil {
		return s, err
	}
	defer fleet.Close()
	name := fmt.Sprintf("simulated%d", hosts)
	p, err := openProduct(ctx, o.Binary, filepath.Join(o.Dir, name), name)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := scale.Register(ctx, p.Installation, fleet); err != nil {
		return s, err
	}
	if _, err := p.DB.Exec(ctx, "ANALYZE host, host_creds"); err != nil { // as autovacuum would have by then
		return s, err
	}
	quiet, err := openFiles(p.pids[partWorker])
	if err != nil {
		return s, err
	}
	others, err := watchOthers()
	if err != nil {
		return s, err
	}
	peak := p.watchMemory(ctx)
	var rounds []round
	for range s.Rounds {
		r, err := simulatedRound(ctx, p, fleet, quiet)
		if err != nil {
			_, _ = peak()
			return s, errors.Join(append(unknown(fleet), err)...)
		}
		rounds = append(rounds, r)
	}
	if s.Stack, err = peak(); err != nil {
		return s, err
	}
	if s.Busy, err = others(); err != nil {
		return s, err
	}
	if s.Worker, err = peakMemory(p.pids[partWorker]); err != nil {
		return s, err
	}
	s.sum(rounds)
	lines, err := p.costly(ctx, 5)
	for _, line := range lines {
		fmt.Fprintln(o.Out, "bench: statement", line)
	}
	return s, err
}

// unknown are the requests that the simulation did not understand, as errors.
func unknown(fleet *simhost.Fleet) (errs []error) {
	for _, what := range fleet.Unknown() {
		errs = append(errs, errors.New(what))
	}
	return errs
}

// round is one command on the whole fleet.
type round struct {
	timeline             timeline
	parts                map[string]time.Duration
	simulation           time.Duration
	database, inTemporal int64
}

func simulatedRound(ctx context.Context, p *product, fleet *simhost.Fleet, quiet int) (r round, err error) {
	ctx, cancel := context.WithTimeout(ctx, fleetLimit)
	defer cancel()
	// Nobody may be logged in from the round before.
	const few = 40
	err = harness.Until(ctx, time.Minute, "the worker to close its connections", func() (bool, error) {
		n, err := openFiles(p.pids[partWorker])
		return n <= quiet+few, err
	})
	if err != nil {
		return r, err
	}
	ours, temporal, err := p.databaseSize(ctx)
	if err != nil {
		return r, err
	}
	before, err := p.used()
	if err != nil {
		return r, err
	}
	self, err := selfUsage()
	if err != nil {
		return r, err
	}
	o, err := p.command(ctx)
	if err != nil {
		return r, err
	}
	selfAfter, err := selfUsage()
	if err != nil {
		return r, err
	}
	r.simulation = selfAfter - self
	after, err := p.used()
	if err != nil {
		return r, err
	}
	r.parts = map[string]time.Duration{}
	for part := range after {
		r.parts[part] = after[part] - before[part]
	}
	if err := p.verify(ctx, o.id, "simulated: "+strings.Join(remoteCommand, " "), len(fleet.Hosts())); err != nil {
		return r, err
	}
	oursAfter, temporalAfter, err := p.databaseSize(ctx)
	if err != nil {
		return r, err
	}
	r.database, r.inTemporal = oursAfter-ours, temporalAfter-temporal
	r.timeline, err = p.timeline(ctx, o)
	return r, err
}

// sum fills in the medians.
func (s *Simulated) sum(rounds []round) {
	durations := func(value func(round) time.Duration) time.Duration {
		var values []time.Duration
		for _, r := range rounds {
			values = append(values, value(r))
		}
		return median(values)
	}
	numbers := func(value func(round) int64) int64 {
		var values []int64
		for _, r := range rounds {
			values = append(values, value(r))
		}
		return median(values)
	}
	s.Wall = durations(func(r round) time.Duration { return r.timeline.Wall })
	s.Client = durations(func(r round) time.Duration { return r.timeline.Client })
	s.Simulation = durations(func(r round) time.Duration { return r.simulation })
	for _, part := range productParts {
		s.Parts[part] = durations(func(r round) time.Duration { return r.parts[part] })
	}
	s.Events = numbers(func(r round) int64 { return r.timeline.Events })
	s.HistoryBytes = numbers(func(r round) int64 { return r.timeline.HistoryBytes })
	s.Database = numbers(func(r round) int64 { return r.database })
	s.TemporalData = numbers(func(r round) int64 { return r.inTemporal })
}

// openFiles is how many a process has, its connections included.
func openFiles(pid int) (int, error) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(files), err
}

// ParseSizes reads numbers of hosts: 500,10000.
func ParseSizes(text string) (sizes []int, err error) {
	for word := range strings.SplitSeq(text, ",") {
		var n int
		if _, err := fmt.Sscanf(word, "%d", &n); err != nil || n < 1 || fmt.Sprint(n) != word {
			return nil, fmt.Errorf("%q: not a number of hosts", word)
		}
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	return sizes, nil
}
