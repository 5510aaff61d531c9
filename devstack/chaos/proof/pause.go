package proof

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale/simhost"
)

// Of the clusters the first is so large that its slots are kept by one workflow,
// host after host, and handed on without the rollout's own workflow.
const (
	clusters   = 10
	largeHosts = 205
	smallHosts = 20
	pauseSlots = 3 // of each

	runFor    = 1500 * time.Millisecond // a rollout goes on for up to so long before it is paused
	readyMost = 5 * time.Minute         // until the hosts are bootstrapped
	drainMost = time.Minute             // until the hosts at work are done
)

// PauseResult is what became of Pause.
type PauseResult struct{ Trials, Started int }

func (r PauseResult) String() string {
	return fmt.Sprintf("pause: trials=%d started_after_ack=%d", r.Trials, r.Started)
}

// OK says whether no host began after a pause was acknowledged.
func (r PauseResult) OK() bool { return r.Trials > 0 && r.Started == 0 }

// Pause restarts simulated hosts, and pauses each rollout at random moments. While
// it is paused its worker is killed, and another process resumes it.
func Pause(ctx context.Context, o Options) (Result, error) {
	var r PauseResult
	hosts, err := simhost.Open(simhost.Options{Hosts: largeHosts + (clusters-1)*smallHosts, Shutdown: 50 * time.Millisecond, Downtime: 100 * time.Millisecond})
	if err != nil {
		return r, err
	}
	defer hosts.Close()
	err = with(ctx, o, func(h harness.Options) error {
		l, err := harness.New(ctx, h)
		if err != nil {
			return err
		}
		defer l.Close()
		p := &pausing{Installation: l}
		if err := p.bootstrap(ctx, hosts); err != nil {
			return err
		}
		for round := 1; len(p.trials) < or(o.Count, 1000); round++ {
			if err := p.round(ctx); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if round%10 == 0 {
				fmt.Fprintf(o.Out, "pause: %d trials\n", len(p.trials))
			}
		}
		r.Trials = len(p.trials)
		r.Started, err = p.startedAfterAck(ctx, hosts, o)
		return err
	})
	return r, err
}

type pausing struct {
	*harness.Installation

	mu     sync.Mutex
	trials []pause
	// By cluster: the restart under way, "" for none, and its last pause.
	operations [clusters]string
	paused     [clusters]*pause
}

// pause is the time for which an operation was paused: from the acknowledgement
// until the order to go on was sent.
type pause struct {
	operation string
	from, to  time.Time
}

func (p pause) holds(t time.Time) bool { return t.After(p.from) && t.Before(p.to) }

func clusterName(i int) string { return fmt.Sprintf("c%d", i) }

// bootstrap registers the hosts and waits until they are ready.
func (p *pausing) bootstrap(ctx context.Context, hosts *simhost.Fleet) error {
	for i := range clusters {
		if err := p.Call(ctx, http.MethodPut, "cluster/"+clusterName(i), map[string]any{}); err != nil {
			return err
		}
	}
	w, err := p.Start("worker")
	if err != nil {
		return err
	}
	defer harness.Kill(w)
	for i, h := range hosts.Hosts() {
		cluster := 0
		if i >= largeHosts {
			cluster = 1 + (i-largeHosts)/smallHosts
		}
		body := map[string]any{
			"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(hosts.ClientKey())),
			"remote_user":  "root", "port": simhost.Port, "cluster": clusterName(cluster),
		}
		if err := p.Call(ctx, http.MethodPut, "host/"+h.Address(), body); err != nil {
			return err
		}
	}
	return harness.Until(ctx, readyMost, "the hosts to be bootstrapped", func() (bool, error) {
		var failed, open int
		err := p.DB.QueryRow(ctx, `SELECT count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE finished IS NULL) FROM operation`).Scan(&failed, &open)
		if failed > 0 {
			return false, fmt.Errorf("%d bootstraps failed", failed)
		}
		return open == 0, err
	})
}

// round lets every rollout go on for a while with a new worker and pauses it.
func (p *pausing) round(ctx context.Context) error {
	w, err := p.Start("worker")
	if err != nil {
		return err
	}
	defer harness.Kill(w)
	errs := make([]error, clusters)
	var all sync.WaitGroup
	for i := range clusters {
		all.Go(func() { errs[i] = p.trial(ctx, i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// trial resumes or begins the restart of a cluster and pauses it at a random moment.
func (p *pausing) trial(ctx context.Context, i int) error {
	if err := p.goOn(ctx, i); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rand.N(runFor)):
	}
	id := p.operations[i]
	response, err := p.Request(ctx, http.MethodPost, "operations/"+id+"/pause", nil)
	acknowledged := time.Now()
	switch {
	case err != nil:
		return err
	case response.Code == http.StatusConflict: // it has ended
		p.operations[i] = ""
		return nil
	case response.Code != http.StatusOK:
		return fmt.Errorf("pause: %d: %s", response.Code, response.Body)
	}
	p.paused[i] = &pause{operation: id, from: acknowledged}
	// What begins now would be at work for longer than this takes.
	return harness.Until(ctx, drainMost, "the hosts at work to be done", func() (bool, error) {
		var running int
		err := p.DB.QueryRow(ctx, `SELECT count(*) FROM host_run WHERE operation_id = $1::uuid AND state = 'running'`, id).Scan(&running)
		return running == 0, err
	})
}

// goOn resumes the restart of a cluster, or orders one when none is under way.
func (p *pausing) goOn(ctx context.Context, i int) error {
	if paused := p.paused[i]; paused != nil {
		p.paused[i] = nil
		paused.to = time.Now()
		p.mu.Lock()
		p.trials = append(p.trials, *paused)
		p.mu.Unlock()
		response, err := p.Request(ctx, http.MethodPost, "operations/"+paused.operation+"/resume", nil)
		switch {
		case err != nil:
			return err
		case response.Code == http.StatusConflict: // its last host was at work when it was paused
			p.operations[i] = ""
		case response.Code != http.StatusOK:
			return fmt.Errorf("resume: %d: %s", response.Code, response.Body)
		}
	}
	if p.operations[i] != "" {
		return nil
	}
	policy := map[string]any{"policy": map[string]any{"max_unavailable": pauseSlots}}
	if err := p.Call(ctx, http.MethodPut, "cluster/"+clusterName(i)+"/restart", policy); err != nil {
		return err
	}
	return p.DB.QueryRow(ctx, `SELECT id::text FROM operation WHERE cluster = $1 ORDER BY id DESC LIMIT 1`, clusterName(i)).Scan(&p.operations[i])
}

// startedAfterAck counts hosts that began while their operation was paused: by the
// record, which hands them out, and by the hosts, of which one that goes down then
// must have been at work before.
func (p *pausing) startedAfterAck(ctx context.Context, hosts *simhost.Fleet, o Options) (n int, err error) {
	downs := map[string][]simhost.Down{}
	for _, h := range hosts.Hosts() {
		downs[h.Address()] = h.Downs()
	}
	for _, t := range p.trials {
		// Not started: that is when the transaction began, perhaps before the pause.
		rows, err := p.DB.Query(ctx, `SELECT r.address, coalesce((SELECT max(e.at) FROM event e WHERE e.operation_id = r.operation_id
				AND e.kind = 'host' AND e.state = 'running' AND e.address = r.address), '9999-01-01'), coalesce(r.started, '9999-01-01')
			FROM host_run r WHERE r.operation_id = $1::uuid`, t.operation)
		if err != nil {
			return n, err
		}
		var address string
		var running, started time.Time
		_, err = pgx.ForEachRow(rows, []any{&address, &running, &started}, func() error {
			bad := t.holds(running) || t.holds(started)
			for _, d := range downs[address] {
				bad = bad || t.holds(d.Start) && !running.Before(t.from)
			}
			if bad {
				n++
				fmt.Fprintf(o.Out, "pause: %s began at %s, paused from %s to %s\n", address, running, t.from, t.to)
			}
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
