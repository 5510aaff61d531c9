package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// OnceResult is what became of Once.
type OnceResult struct {
	Commands int
	NotOnce  int           // commands that did not run exactly once
	Differ   int           // outputs that are not what the command printed
	Reattach time.Duration // the 99th percentile
	Samples  int           // of it
}

func (r OnceResult) String() string {
	return fmt.Sprintf("once: commands=%d counters_not_1=%d outputs_differ=%d reattach_p99_ms=%d", r.Commands, r.NotOnce, r.Differ, r.Reattach.Milliseconds())
}

// OK says whether every promise was held.
func (r OnceResult) OK() bool {
	return r.Commands > 0 && r.NotOnce+r.Differ == 0 && r.Samples > 0 && r.Reattach < 5*time.Second
}

const (
	onceHosts   = 25
	onceWorkers = 2
	heartbeat   = 2 * time.Second // of the harness
	onceMost    = 2 * time.Minute // for one command and what is around it
)

// The command of a bootstrap becomes one that counts itself and prints for about
// 3 s, each line with its number and time. What it printed is kept beside.
const onceCommand = `
key=${COMMISSAIRE_RUN##*/}
mkdir -p "$H/counters" "$H/said"
echo x >>"$H/counters/$key"
say() { printf '%s\n' "$*"; printf '%s\n' "$*" >>"$H/said/$key"; }
say "run $key"
i=0
while [ $i -lt 20 ]; do
  i=$((i + 1))
  say "$i $(date +%s%N) ........................................"
  sleep 0.15
done
exit 0`

// Once bootstraps hosts again and again, which runs one command each time, while
// workers are killed, connections are cut and sshd is away.
func Once(ctx context.Context, o Options) (Result, error) {
	var r OnceResult
	err := with(ctx, o, func(h harness.Options) error {
		h.Hosts = onceHosts
		l, err := harness.New(ctx, h)
		if err != nil {
			return err
		}
		defer l.Close()
		b := &battered{Installation: l, commands: or(o.Count, 1000)}
		defer b.close()
		if err := b.register(ctx); err != nil {
			return err
		}
		if err := b.run(ctx, o); err != nil {
			return err
		}
		return b.measure(ctx, &r, o)
	})
	return r, err
}

// battered is an installation to which harm is done all the time.
type battered struct {
	*harness.Installation
	commands int
	proxies  []*remotetest.Proxy // in front of the hosts

	mu    sync.Mutex
	taken int    // commands that were ordered
	blows []blow // in order
	// Operations that were ordered, and that are measured.
	operations []string
}

// blow is harm done, and when what it took was there again.
type blow struct {
	host int // -1: a worker was killed
	over time.Time
}

func (b *battered) close() {
	for _, p := range b.proxies {
		_ = p.Close()
	}
}

// register adds the hosts, by way of proxies, with the ordinary command.
func (b *battered) register(ctx context.Context) error {
	w, err := b.Start("worker")
	if err != nil {
		return err
	}
	defer harness.Kill(w)
	for _, h := range b.Fleet.Hosts() {
		p, err := remotetest.NewProxy(h)
		if err != nil {
			return err
		}
		b.proxies = append(b.proxies, p)
		body := b.HostBody(h)
		delete(body, "cluster")
		body["port"] = p.Port()
		if err := b.Call(ctx, http.MethodPut, b.path(len(b.proxies)-1), body); err != nil {
			return err
		}
	}
	if err := ended(ctx, b.Installation, readyMost); err != nil {
		return err
	}
	for _, h := range b.Fleet.Hosts() {
		if err := h.OnCommand("uname", onceCommand); err != nil {
			return err
		}
	}
	return nil
}

func (b *battered) path(host int) string { return "host/" + url.PathEscape(b.proxies[host].Address()) }

// run has the commands run, on all hosts side by side, under blows.
func (b *battered) run(ctx context.Context, o Options) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	hitting, stop := context.WithCancel(ctx)
	var blows, work sync.WaitGroup
	for _, hit := range []func(context.Context) error{b.killWorkers, b.cutConnections, b.stopSSHD} {
		blows.Go(func() {
			if err := hit(hitting); err != nil && hitting.Err() == nil {
				fail(err)
			}
		})
	}
	for host := range b.proxies {
		work.Go(func() {
			for b.take(o) {
				if err := b.command(ctx, host); err != nil {
					fail(err)
					return
				}
			}
		})
	}
	work.Wait()
	stop()
	blows.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// take says whether there is another command to be ordered.
func (b *battered) take(o Options) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken == b.commands {
		return false
	}
	if b.taken++; b.taken%100 == 0 {
		fmt.Fprintf(o.Out, "once: %d commands, %d blows\n", b.taken, len(b.blows))
	}
	return true
}

// command orders one command on a host and waits for its end.
func (b *battered) command(ctx context.Context, host int) error {
	if err := b.Call(ctx, http.MethodPut, b.path(host)+"/bootstrap", nil); err != nil {
		return err
	}
	var id, state, reason string
	address := b.proxies[host].Address()
	if err := b.DB.QueryRow(ctx, `SELECT id::text FROM operation WHERE host = $1 ORDER BY id DESC LIMIT 1`, address).Scan(&id); err != nil {
		return err
	}
	for deadline := time.Now().Add(onceMost); ; {
		if !sleep(ctx, 200*time.Millisecond) {
			return ctx.Err()
		}
		if err := b.DB.QueryRow(ctx, `SELECT state, reason FROM operation WHERE id = $1::uuid`, id).Scan(&state, &reason); err != nil {
			return err
		}
		switch {
		case state == "succeeded":
			b.mu.Lock()
			b.operations = append(b.operations, id)
			b.mu.Unlock()
			return nil
		case state != "pending" && state != "running":
			return fmt.Errorf("operation %s on %s %s: %s", id, address, state, reason)
		case time.Now().After(deadline):
			return fmt.Errorf("operation %s on %s has not ended within %s", id, address, onceMost)
		}
	}
}

func (b *battered) note(host int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blows = append(b.blows, blow{host: host, over: time.Now()})
}

// killWorkers kills one worker after the other. Others are there, but get its steps
// only when it has been silent for too long.
func (b *battered) killWorkers(ctx context.Context) (err error) {
	workers := make([]*exec.Cmd, onceWorkers)
	defer func() {
		for _, w := range workers {
			harness.Kill(w)
		}
	}()
	for i := range workers {
		if workers[i], err = b.Start("worker"); err != nil {
			return err
		}
	}
	for sleep(ctx, 3*time.Second+rand.N(3*time.Second)) {
		i := rand.IntN(len(workers))
		harness.Kill(workers[i])
		b.note(-1)
		if workers[i], err = b.Start("worker"); err != nil {
			return err
		}
	}
	return nil
}

func (b *battered) cutConnections(ctx context.Context) error {
	for sleep(ctx, 100*time.Millisecond+rand.N(300*time.Millisecond)) {
		host := rand.IntN(len(b.proxies))
		b.proxies[host].Cut()
		b.note(host)
	}
	return nil
}

// stopSSHD takes sshd away for a moment, and with it the connections.
func (b *battered) stopSSHD(ctx context.Context) error {
	for sleep(ctx, time.Second+rand.N(time.Second)) {
		host := rand.IntN(len(b.proxies))
		h := b.Fleet.Hosts()[host]
		if err := h.Refuse(); err != nil {
			return err
		}
		b.proxies[host].Cut()
		sleep(ctx, 300*time.Millisecond)
		if err := h.Accept(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		b.note(host)
	}
	return nil
}

// counters counts how often each command ran, and reads what it printed.
func (b *battered) counters(r *OnceResult) (said map[string][]byte, err error) {
	said = map[string][]byte{}
	for _, h := range b.Fleet.Hosts() {
		files, err := filepath.Glob(filepath.Join(h.Dir(), "counters", "*"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			count, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if string(count) != "x\n" {
				r.NotOnce++
			}
			key := filepath.Base(file)
			if said[key], err = os.ReadFile(filepath.Join(h.Dir(), "said", key)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	return said, nil
}
