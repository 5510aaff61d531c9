package scale

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale/simhost"
	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
)

// WatchOptions say what to watch.
type WatchOptions struct {
	Binary   string   // commissaire
	Temporal []string // the command that runs ServeTemporal
	Dir      string
	Hosts    int
	Interval time.Duration
	Rounds   int // intervals that are measured, after one that is not
	Out      io.Writer
}

// WatchResult is what it takes to watch hosts, in processors and MiB.
type WatchResult struct {
	Hosts                  int
	Interval               time.Duration
	WorkerCPU, TemporalCPU float64
	ServerCPU              float64 // of the API server, for comparison
	WorkerMB, TemporalMB   int
	Late                   int // hosts that were not checked within two intervals at the end of a round
	Unhealthy              int // hosts that were not found healthy at the end of a round
}

func (r WatchResult) String() string {
	return fmt.Sprintf("watch: hosts=%d interval_s=%.0f cpu=%.2f worker_cpu=%.2f temporal_cpu=%.2f server_cpu=%.2f worker_mb=%d temporal_mb=%d late=%d unhealthy=%d",
		r.Hosts, r.Interval.Seconds(), r.WorkerCPU+r.TemporalCPU, r.WorkerCPU, r.TemporalCPU, r.ServerCPU, r.WorkerMB, r.TemporalMB, r.Late, r.Unhealthy)
}

// OK says whether worker and Temporal together took less than a processor and 1 GB, and
// every host was watched.
func (r WatchResult) OK() bool {
	return r.WorkerCPU+r.TemporalCPU < 1 && r.WorkerMB+r.TemporalMB < 1024 && r.Late+r.Unhealthy == 0
}

// ServeTemporal runs Temporal until its input ends, and prints its address first: so it is
// a process of its own, whose processor time is its own.
func ServeTemporal(ctx context.Context, dsn string, in io.Reader, out io.Writer) error {
	server, err := temporal.Start(ctx, temporal.Options{PostgresDSN: dsn, NoUI: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, server.Addr()); err != nil {
		return errors.Join(err, server.Stop())
	}
	_, _ = io.Copy(io.Discard, in)
	return server.Stop()
}

// Watch measures what it takes to watch hosts that all are well.
func Watch(ctx context.Context, o WatchOptions) (r WatchResult, err error) {
	r = WatchResult{Hosts: o.Hosts, Interval: o.Interval}
	if err := os.MkdirAll(o.Dir, 0o711); err != nil { // Postgres runs as another user when we are root
		return r, err
	}
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), MaxConnections: 200})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, pg.Stop(privatepg.Fast)) }()
	server, address, stop, err := StartTemporal(ctx, append(o.Temporal, pg.DSN("postgres")))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	hosts, err := simhost.Open(simhost.Options{Hosts: o.Hosts})
	if err != nil {
		return r, err
	}
	defer hosts.Close()
	h, err := harness.New(ctx, harness.Options{
		Dir: o.Dir, Name: "watch", Binary: o.Binary, Postgres: pg, Temporal: address,
		Env: []string{"COMMISSAIRE_HEARTBEAT_TIMEOUT=10s", "COMMISSAIRE_WATCH_INTERVAL=" + o.Interval.String()},
	})
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
	fmt.Fprintf(o.Out, "watch: %d hosts are ready\n", o.Hosts)
	err = harness.Until(ctx, 5*o.Interval+5*time.Minute, "the first round", func() (bool, error) {
		_, unhealthy, err := l.watched(ctx, o.Interval)
		return unhealthy == 0, err
	})
	if err != nil {
		return r, err
	}
	pids := []int{worker.Process.Pid, server, h.Server.Process.Pid}
	begun, before, err := processorTimes(pids)
	if err != nil {
		return r, err
	}
	for round := range o.Rounds {
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(time.Until(begun.Add(time.Duration(round+1) * o.Interval))):
		}
		late, unhealthy, err := l.watched(ctx, 2*o.Interval)
		if err != nil {
			return r, err
		}
		r.Late, r.Unhealthy = max(r.Late, late), max(r.Unhealthy, unhealthy)
		fmt.Fprintf(o.Out, "  round %d: %d late, %d unhealthy\n", round+1, late, unhealthy)
	}
	ended, after, err := processorTimes(pids)
	if err != nil {
		return r, err
	}
	share := func(i int) float64 { return (after[i] - before[i]).Seconds() / ended.Sub(begun).Seconds() }
	r.WorkerCPU, r.TemporalCPU, r.ServerCPU = share(0), share(1), share(2)
	if r.WorkerMB, err = peakMemory(pids[0]); err != nil {
		return r, err
	}
	r.TemporalMB, err = peakMemory(pids[1])
	return r, err
}

// watched counts hosts whose last check is older than that, and those that it did not
// find healthy. Slow ones are: so is the machine that simulates them.
func (l *installation) watched(ctx context.Context, age time.Duration) (late, unhealthy int, err error) {
	err = l.DB.QueryRow(ctx, `SELECT count(*) FILTER (WHERE watched < now() - make_interval(secs => $1)), count(*) FILTER (WHERE watch_state NOT IN ('healthy', 'slow')) FROM host`, age.Seconds()).
		Scan(&late, &unhealthy)
	return late, unhealthy, err
}

// StartTemporal runs a command that runs [ServeTemporal]. stop ends it.
func StartTemporal(ctx context.Context, command []string) (pid int, address string, stop func() error, err error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, "", nil, err
	}
	stop = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	address, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, "", nil, errors.Join(fmt.Errorf("start Temporal: %w", err), stop())
	}
	return cmd.Process.Pid, strings.TrimSpace(address), stop, nil
}

// clockTick is the unit of the times in /proc on Linux (USER_HZ): 100 a second.
const clockTick = time.Second / 100

// processorTimes gives how long each process has had a processor: utime and stime of
// proc_pid_stat(5).
func processorTimes(pids []int) (at time.Time, times []time.Duration, err error) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return at, nil, err
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold anything but this
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return at, nil, fmt.Errorf("/proc/%d/stat: %w", pid, syscall.EINVAL)
		}
		user, err1 := strconv.Atoi(fields[11])
		system, err2 := strconv.Atoi(fields[12])
		if err := errors.Join(err1, err2); err != nil {
			return at, nil, err
		}
		times = append(times, time.Duration(user+system)*clockTick)
	}
	return time.Now(), times, nil
}
