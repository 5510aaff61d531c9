package bench

import (
	"cmp"
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
)

// FanOutOptions say what to compare.
type FanOutOptions struct {
	Binary  string // commissaire
	Commctl string
	Dir     string // for everything it leaves behind
	Hosts   int
	Rounds  int
	Limit   time.Duration // no round begins after it, but for the first three
	Only    []string      // names of contenders; empty for all
	Out     io.Writer
}

// FanOut is what came of a comparison. Figures are medians of all rounds.
type FanOut struct {
	Hosts, Rounds int
	Figures       []Figure
	Missing       []string                 // tools that are not installed
	Busy          float64                  // processors that programs other than these had meanwhile
	Parts         map[string]time.Duration // of a processor, that each part of the product used
	Timeline      timeline
	Statements    map[string]statements // of one operation, by database; empty when unknown
	FirstAnswer   time.Duration         // from an order for one host to its answer on record, at rest
	Orders        int                   // behind FirstAnswer
}

// Figure is what one contender took.
type Figure struct {
	Name, Title string
	Warm        bool // over connections that were there already
	Ours        bool
	Wall        time.Duration
	Least, Most time.Duration // of the walls
	Client      time.Duration // of processors, at the side that gives the order
	Host        time.Duration // of processors, at all hosts together
	Failure     string        // why there are no figures
}

const (
	nameGo   = "go"
	nameOurs = "commissaire"
	nameCLI  = "commctl-run" // what a person types, who sees what the hosts print
)

// contender is one that is measured.
type contender struct {
	Figure
	run    func(ctx context.Context) (wall, client time.Duration, err error)
	finish func(ctx context.Context) error // ends what it left open
	walls  []time.Duration
	client []time.Duration
	host   []time.Duration
}

// comparison is one under way.
type comparison struct {
	FanOutOptions
	hosts      *sshHosts
	lane       *lane
	goClient   *goClient
	product    *product
	contenders []*contender

	parts      map[string][]time.Duration
	timelines  []timeline
	statements []map[string]statements
}

// CompareFanOut runs a trivial command on real sshd hosts by the product, by the tools that
// people use, and by a bare Go program, in turns.
func CompareFanOut(ctx context.Context, o FanOutOptions) (r FanOut, err error) {
	r.Hosts = o.Hosts
	c := &comparison{FanOutOptions: o, parts: map[string][]time.Duration{}}
	if err := os.MkdirAll(o.Dir, 0o711); err != nil { // Postgres runs as another user when we are root
		return r, err
	}
	fmt.Fprintf(o.Out, "bench: starting %d sshd hosts and the product\n", o.Hosts)
	if c.hosts, err = startHosts(ctx, o.Dir, o.Hosts); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.hosts.close()) }()
	if c.lane, err = openLane(ctx, filepath.Join(o.Dir, "rivals"), c.hosts.site); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.lane.keeper.close()) }()
	if c.goClient, err = newGoClient(c.hosts.site); err != nil {
		return r, err
	}
	defer c.goClient.close()
	if c.product, err = openProduct(ctx, o.Binary, filepath.Join(o.Dir, "product"), "bench"); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.product.close()) }()
	if err := c.product.bootstrap(ctx, c.hosts.site); err != nil {
		return r, err
	}
	if err := c.product.writeCommctl(filepath.Join(c.lane.dir, commctlConfig)); err != nil {
		return r, err
	}
	c.enter(&r)
	if len(o.Only) > 0 {
		c.contenders = slices.DeleteFunc(c.contenders, func(one *contender) bool { return !slices.Contains(o.Only, one.Name) })
	}
	others, err := watchOthers()
	if err != nil {
		return r, err
	}
	if err := c.rounds(ctx, &r); err != nil {
		return r, err
	}
	if r.Busy, err = others(); err != nil {
		return r, err
	}
	if r.FirstAnswer, r.Orders, err = c.firstAnswer(ctx); err != nil && !errors.Is(err, errNoCommand) {
		return r, err
	}
	c.sum(&r)
	r.print(o.Out)
	return r, nil
}

// enter lists who takes part.
func (c *comparison) enter(r *FanOut) {
	c.contenders = append(c.contenders, &contender{
		Figure: Figure{Name: nameOurs, Title: "Commissaire: durable, once-only, recorded", Ours: true},
		run:    c.runOurs,
	})
	cli := rival{name: nameCLI, title: "Commissaire by `commctl run`, which prints it, too", tool: c.Commctl, argv: append([]string{c.Commctl, "run", harness.Cluster, "--"}, remoteCommand...)}
	if cli.installed() {
		c.contenders = append(c.contenders, &contender{
			Figure: Figure{Name: nameCLI, Title: cli.title, Ours: true},
			run:    func(ctx context.Context) (wall, client time.Duration, err error) { return c.runCLI(ctx, cli) },
		})
	} else {
		fmt.Fprintf(c.Out, "bench: there is no %s; left out\n", c.Commctl)
	}
	for _, title := range []struct {
		name, title string
		warm        bool
	}{
		{nameGo, "bare Go (x/crypto/ssh, no tool at all)", false},
		{nameGo + "-open", "bare Go, connections open", true},
	} {
		c.contenders = append(c.contenders, &contender{
			Figure: Figure{Name: title.name, Title: title.title, Warm: title.warm},
			run: func(ctx context.Context) (wall, client time.Duration, err error) {
				return c.goClient.run(ctx, c.lane.release, title.warm)
			},
			finish: func(context.Context) error { c.goClient.close(); return nil },
		})
	}
	for _, rival := range rivals(c.Hosts) {
		if !rival.installed() {
			if !slices.Contains(r.Missing, rival.tool) {
				r.Missing = append(r.Missing, rival.tool)
				fmt.Fprintf(c.Out, "bench: %s is not installed and left out (scripts/setup-bench installs it)\n", rival.tool)
			}
			continue
		}
		c.contenders = append(c.contenders, &contender{
			Figure: Figure{Name: rival.name, Title: rival.title, Warm: rival.warm},
			run:    func(ctx context.Context) (wall, client time.Duration, err error) { return c.runRival(ctx, rival) },
			finish: c.lane.keeper.clear,
		})
	}
}

// runRival gives how long a tool took, and what it and all that it started have used.
func (c *comparison) runRival(ctx context.Context, r rival) (wall, client time.Duration, err error) {
	before, _, err := usage(c.lane.keeper.pid())
	if err != nil {
		return 0, 0, err
	}
	if wall, err = c.lane.run(ctx, r); err != nil {
		return 0, 0, err
	}
	// A moment later, since some of it may be at its end still.
	if _, err := c.hosts.settle(ctx); err != nil {
		return 0, 0, err
	}
	after, _, err := usage(c.lane.keeper.pid())
	return wall, after - before, err
}

// runCLI is an operation of the product as a person gives the order.
func (c *comparison) runCLI(ctx context.Context, r rival) (wall, client time.Duration, err error) {
	before, err := c.product.used()
	if err != nil {
		return 0, 0, err
	}
	if wall, client, err = c.runRival(ctx, r); err != nil {
		return 0, 0, err
	}
	after, err := c.product.used()
	for part := range after {
		client += after[part] - before[part]
	}
	return wall, client, err
}

// rounds lets everybody run in turns. Who fails is out, and the reason is kept.
func (c *comparison) rounds(ctx context.Context, r *FanOut) error {
	const least = 3
	begin := time.Now()
	for r.Rounds < c.Rounds && (r.Rounds < least || time.Since(begin) < c.Limit) {
		for i := range c.contenders {
			one := c.contenders[(i+r.Rounds)%len(c.contenders)] // nobody always follows the same one
			if one.Failure != "" {
				continue
			}
			if err := c.measure(ctx, one); err != nil {
				if ctx.Err() != nil {
					return err
				}
				one.Failure = err.Error()
				fmt.Fprintf(c.Out, "bench: %s is out: %v\n", one.Name, err)
			}
		}
		r.Rounds++
		fmt.Fprintf(c.Out, "bench: round %d of %d is done after %.0f s\n", r.Rounds, c.Rounds, time.Since(begin).Seconds())
	}
	return nil
}

// measure runs a contender once, with connections of its own.
func (c *comparison) measure(ctx context.Context, one *contender) (err error) {
	if one.finish != nil {
		defer func() { err = errors.Join(err, one.finish(ctx)) }()
	}
	if err := c.hosts.free(ctx); err != nil {
		return err
	}
	if one.Warm {
		if _, _, err := one.run(ctx); err != nil {
			return err
		}
	}
	before, err := c.hosts.settle(ctx)
	if err != nil {
		return err
	}
	wall, client, err := one.run(ctx)
	if err != nil {
		return err
	}
	after, err := c.hosts.settle(ctx)
	if err != nil {
		return err
	}
	one.walls, one.client, one.host = append(one.walls, wall), append(one.client, client), append(one.host, after-before)
	fmt.Fprintf(c.Out, "  %-20s %6.2f s, processors %.2f s and %.2f s at the hosts\n", one.Name, wall.Seconds(), client.Seconds(), (after - before).Seconds())
	return nil
}

// runOurs is one operation of the product.
func (c *comparison) runOurs(ctx context.Context) (wall, client time.Duration, err error) {
	p := c.product
	before, err := p.used()
	if err != nil {
		return 0, 0, err
	}
	statementsBefore, err := p.statements(ctx)
	if err != nil {
		return 0, 0, err
	}
	o, err := p.command(ctx)
	if err != nil {
		return 0, 0, err
	}
	if _, err := c.hosts.settle(ctx); err != nil { // so that what the parts do afterwards counts
		return 0, 0, err
	}
	statementsAfter, err := p.statements(ctx)
	if err != nil {
		return 0, 0, err
	}
	after, err := p.used()
	if err != nil {
		return 0, 0, err
	}
	if err := p.verify(ctx, o.id, c.lane.release, c.Hosts); err != nil {
		return 0, 0, err
	}
	t, err := p.timeline(ctx, o)
	if err != nil {
		return 0, 0, err
	}
	for part := range after {
		client += after[part] - before[part]
		c.parts[part] = append(c.parts[part], after[part]-before[part])
	}
	c.timelines = append(c.timelines, t)
	c.statements = append(c.statements, difference(statementsBefore, statementsAfter))
	return t.Client, client, nil
}

func difference(before, after map[string]statements) map[string]statements {
	d := map[string]statements{}
	for name, s := range after {
		d[name] = statements{s.Calls - before[name].Calls, s.Time - before[name].Time}
	}
	return d
}

// firstAnswer orders the command for one host, again and again, while nothing else
// happens and nobody is logged in, and gives the median of the times until its answer was
// on record.
func (c *comparison) firstAnswer(ctx context.Context) (time.Duration, int, error) {
	const orders = 7
	var took []time.Duration
	for i := range orders {
		if err := c.hosts.free(ctx); err != nil {
			return 0, 0, err
		}
		if _, err := c.hosts.settle(ctx); err != nil {
			return 0, 0, err
		}
		o, err := c.product.command(ctx, c.hosts.Hosts[i%c.Hosts].Address)
		if err != nil {
			return 0, 0, err
		}
		if err := c.product.verify(ctx, o.id, c.lane.release, 1); err != nil {
			return 0, 0, err
		}
		var ended time.Time
		if err := c.product.DB.QueryRow(ctx, `SELECT max(finished) FROM step WHERE operation_id = $1::uuid`, o.id).Scan(&ended); err != nil {
			return 0, 0, err
		}
		took = append(took, ended.Sub(o.sent))
	}
	return median(took), orders, nil
}

// sum fills in the medians.
func (c *comparison) sum(r *FanOut) {
	for _, one := range c.contenders {
		if one.Failure == "" && len(one.walls) > 0 {
			one.Wall, one.Least, one.Most = median(one.walls), slices.Min(one.walls), slices.Max(one.walls)
			one.Client, one.Host = median(one.client), median(one.host)
		}
		r.Figures = append(r.Figures, one.Figure)
	}
	if len(c.timelines) == 0 {
		return
	}
	r.Parts = map[string]time.Duration{}
	for part, all := range c.parts {
		r.Parts[part] = median(all)
	}
	r.Timeline = medianTimeline(c.timelines)
	r.Statements = map[string]statements{}
	for name := range c.statements[0] {
		var calls []int
		var times []time.Duration
		for _, s := range c.statements {
			calls, times = append(calls, s[name].Calls), append(times, s[name].Time)
		}
		r.Statements[name] = statements{median(calls), median(times)}
	}
}

// medianTimeline has the median of each value.
func medianTimeline(all []timeline) timeline {
	of := func(value func(timeline) time.Duration) time.Duration {
		var values []time.Duration
		for _, t := range all {
			values = append(values, value(t))
		}
		return median(values)
	}
	m := timeline{
		Phases: map[string]time.Duration{},
		Wall:   of(func(t timeline) time.Duration { return t.Wall }),
		Client: of(func(t timeline) time.Duration { return t.Client }),
		// These differ little between rounds.
		Events: all[len(all)-1].Events, HistoryBytes: all[len(all)-1].HistoryBytes,
	}
	for _, phase := range phases {
		m.Phases[phase] = of(func(t timeline) time.Duration { return t.Phases[phase] })
	}
	return m
}

// median of values, of which there is one at least.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// figure is that of a contender, nil when there is none.
func (r FanOut) figure(name string) *Figure {
	for i, f := range r.Figures {
		if f.Name == name && f.Failure == "" {
			return &r.Figures[i]
		}
	}
	return nil
}

// print gives the lines for machines.
func (r FanOut) print(out io.Writer) {
	for _, f := range r.Figures {
		if f.Failure == "" {
			fmt.Fprintf(out, "bench: fanout=%s hosts=%d rounds=%d wall_s=%.3f wall_min_s=%.3f wall_max_s=%.3f client_cpu_s=%.2f host_cpu_s=%.2f\n", f.Name, r.Hosts, r.Rounds,
				f.Wall.Seconds(), f.Least.Seconds(), f.Most.Seconds(), f.Client.Seconds(), f.Host.Seconds())
		}
	}
	ours, bare := r.figure(nameOurs), r.figure(nameGo)
	if ours == nil {
		fmt.Fprintf(out, "bench: fanout_ratios none: the product has no figures; others_cpu=%.2f\n", r.Busy)
		return
	}
	var b strings.Builder
	for _, part := range productParts {
		fmt.Fprintf(&b, " %s_cpu_ms=%d", part, r.Parts[part].Milliseconds())
	}
	fmt.Fprintf(out, "bench: fanout_cpu%s\n", b.String())
	b.Reset()
	for _, phase := range phases {
		fmt.Fprintf(&b, " %s_ms=%d", phase, r.Timeline.Phases[phase].Milliseconds())
	}
	fmt.Fprintf(out, "bench: fanout_phases client_ms=%d record_ms=%d%s events=%d history_bytes=%d\n", r.Timeline.Client.Milliseconds(), r.Timeline.Wall.Milliseconds(), b.String(),
		r.Timeline.Events, r.Timeline.HistoryBytes)
	b.Reset()
	for _, name := range sortedKeys(r.Statements) {
		if s := r.Statements[name]; s.Calls > 0 && name != "postgres" {
			fmt.Fprintf(&b, " %s_statements=%d %s_ms=%d", name, s.Calls, name, s.Time.Milliseconds())
		}
	}
	fmt.Fprintf(out, "bench: fanout_postgres%s\n", b.String())
	b.Reset()
	for _, name := range []string{"xargs-ssh-tuned", "xargs-ssh", "parallel-ssh", "clush", "ansible-raw", "ansible-raw-tuned", "ansible-ping-tuned", nameGo} {
		if f := r.figure(name); f != nil {
			key := strings.ReplaceAll(name, "-", "_")
			fmt.Fprintf(&b, " wall_to_%s=%.2f cpu_to_%s=%.2f", key, ours.Wall.Seconds()/f.Wall.Seconds(), key, ours.Client.Seconds()/f.Client.Seconds())
		}
	}
	if bare != nil {
		perHost := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(r.Hosts) }
		fmt.Fprintf(&b, " over_go_client_ms_per_host=%.1f over_go_host_ms_per_host=%.1f", perHost(ours.Client-bare.Client), perHost(ours.Host-bare.Host))
	}
	fmt.Fprintf(out, "bench: fanout_ratios%s first_answer_ms=%d others_cpu=%.2f\n", b.String(), r.FirstAnswer.Milliseconds(), r.Busy)
}
