package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale/simhost"
	"commissaire/devstack/temporal"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg"
)

// Options say what to measure.
type Options struct {
	Binary         string // commissaire
	Dir            string // for everything it leaves behind
	Hosts          int
	Seed           uint64        // of the times that reboots take
	MaxUnavailable string        // of the policy; "" orders the restart without one
	Together       string        // of Nodes: max_unavailable of the container manager
	Slots          int           // steps that the worker runs at a time; 0 for its default
	Shutdown       time.Duration // see simhost.Options
	Downtime       time.Duration
	Limit          time.Duration // for the operation
	Out            io.Writer
}

// Result is what was measured.
type Result struct {
	Hosts      int
	Wall       time.Duration // from the order to the end, by the record
	WorkerMB   int           // largest resident memory of the worker, MiB
	EventsMax  int64         // of the longest history
	OverBudget int           // reboots that began while the budget was used up
	Budget     int           // hosts that may be down at once
	DownMost   int           // hosts that were down at once
	Problems   []string      // what the record or the hosts say that should not be
}

func (r Result) String() string {
	return fmt.Sprintf("scale: hosts=%d wall_s=%.1f worker_mb=%d events_max=%d over_budget=%d",
		r.Hosts, r.Wall.Seconds(), r.WorkerMB, r.EventsMax, r.OverBudget)
}

// OK says whether every promise was held.
func (r Result) OK() bool { return r.OverBudget == 0 && len(r.Problems) == 0 }

// installation is the product with the simulated hosts and one worker.
type installation struct {
	*harness.Installation
	hosts     *simhost.Fleet
	worker    int // its process id
	operation string
	out       io.Writer
}

// Run measures one restart.
func Run(ctx context.Context, o Options) (_ Result, err error) {
	r := Result{Hosts: o.Hosts}
	if r.Budget, err = budget(o.MaxUnavailable, o.Hosts); err != nil {
		return r, err
	}
	base, stop, err := servers(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	hosts, err := simhost.Open(simhost.Options{Hosts: o.Hosts, Seed: o.Seed, Shutdown: o.Shutdown, Downtime: o.Downtime})
	if err != nil {
		return r, err
	}
	defer hosts.Close()

	base.Name = "scale"
	h, err := harness.New(ctx, base)
	if err != nil {
		return r, err
	}
	defer h.Close()
	worker, err := h.Start("worker")
	if err != nil {
		return r, err
	}
	defer harness.Kill(worker)
	l := &installation{Installation: h, hosts: hosts, worker: worker.Process.Pid, out: o.Out}
	if err := Register(ctx, h, hosts); err != nil {
		return r, err
	}
	fmt.Fprintf(o.Out, "scale: %d hosts are ready, %d of them may be down at once\n", o.Hosts, r.Budget)
	if err := l.restart(ctx, o); err != nil {
		return r, err
	}
	return r, l.measure(ctx, &r)
}

// servers starts what an installation needs, which then lacks only a name.
func servers(ctx context.Context, o Options) (_ harness.Options, stop func() error, err error) {
	if err := os.MkdirAll(o.Dir, 0o711); err != nil { // Postgres runs as another user when we are root
		return harness.Options{}, nil, err
	}
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), MaxConnections: 200})
	if err != nil {
		return harness.Options{}, nil, err
	}
	stopPostgres := func() error { return pg.Stop(privatepg.Fast) }
	log, err := os.Create(filepath.Join(o.Dir, "temporal.log"))
	if err != nil {
		return harness.Options{}, nil, errors.Join(err, stopPostgres())
	}
	server, err := temporal.Start(ctx, temporal.Options{
		PostgresDSN: pg.DSN("postgres"), NoUI: true,
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return harness.Options{}, nil, errors.Join(err, log.Close(), stopPostgres())
	}
	stop = func() error { return errors.Join(server.Stop(), log.Close(), stopPostgres()) }
	return harness.Options{Dir: o.Dir, Binary: o.Binary, Postgres: pg, Temporal: server.Addr(), Env: settings(o)}, stop, nil
}

// settings are those of the product where the harness has shorter limits, which
// suit a few hosts.
func settings(o Options) []string {
	env := []string{
		"COMMISSAIRE_HEARTBEAT_TIMEOUT=10s",
		"COMMISSAIRE_REBOOT_TIMEOUT=10m",
		"COMMISSAIRE_STEP_TIMEOUT=30m",
	}
	if o.Slots > 0 {
		env = append(env, "COMMISSAIRE_WORKER_SLOTS="+strconv.Itoa(o.Slots))
	}
	return env
}

// budget is how many hosts may be down at once.
func budget(maxUnavailable string, hosts int) (int, error) {
	if maxUnavailable == "" {
		return 1, nil // one host at a time
	}
	a, err := fleet.ParseAmount(maxUnavailable)
	if err != nil {
		return 0, fmt.Errorf("-max-unavailable %w", err)
	}
	return max(1, a.Floor(hosts)), nil
}

// restart orders the restart and waits for its end.
func (l *installation) restart(ctx context.Context, o Options) error {
	var body any
	if o.MaxUnavailable != "" {
		body = map[string]any{"policy": map[string]any{"max_unavailable": o.MaxUnavailable}}
	}
	if err := l.Call(ctx, http.MethodPut, "cluster/"+harness.Cluster+"/restart", body); err != nil {
		return err
	}
	if err := l.DB.QueryRow(ctx, `SELECT id::text FROM operation WHERE kind = 'restart'`).Scan(&l.operation); err != nil {
		return err
	}
	const every = 5 * time.Second
	begun, said := time.Now(), time.Now()
	return harness.Until(ctx, o.Limit, "the restart to end", func() (bool, error) {
		if time.Since(said) >= every {
			said = time.Now()
			if err := l.progress(ctx, said.Sub(begun)); err != nil {
				return false, err
			}
		}
		if err := l.hosts.Err(); err != nil {
			return false, err
		}
		return l.Ended(ctx, []string{l.operation})
	})
}

// progress says how far the operation is, and fails when the worker is gone.
func (l *installation) progress(ctx context.Context, after time.Duration) error {
	memory, err := peakMemory(l.worker)
	if err != nil {
		return fmt.Errorf("the worker ended; see worker.log in %s: %w", l.Dir, err)
	}
	var done, running int
	err = l.DB.QueryRow(ctx, `SELECT count(*) FILTER (WHERE finished IS NOT NULL), count(*) FILTER (WHERE state = 'running')
		FROM host_run WHERE operation_id = $1::uuid`, l.operation).Scan(&done, &running)
	fmt.Fprintf(l.out, "  %4.0f s  %d done, %d at work, %d down, worker %d MiB\n", after.Seconds(), done, running, l.hosts.Down(), memory)
	return err
}
