package proof

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// RebootResult is what became of Reboot.
type RebootResult struct {
	Hosts         int
	FalseRebooted int // hosts that the record has as rebooted, and that did not leave their boot
	SecondReboots int // reboots that were asked for beyond the first of a host
	AfterKey      int // logins after a host came back with another key
	Wrong         int // hosts that did not end as they should have
}

func (r RebootResult) String() string {
	return fmt.Sprintf("reboot: hosts=%d false_rebooted=%d second_reboots=%d commands_after_changed_key=%d", r.Hosts, r.FalseRebooted, r.SecondReboots, r.AfterKey)
}

// OK says whether every promise was held.
func (r RebootResult) OK() bool {
	return r.Hosts > 0 && r.FalseRebooted+r.SecondReboots+r.AfterKey+r.Wrong == 0
}

// ordeal is a bad way to reboot.
type ordeal struct {
	name   string // and cluster
	reboot remotetest.Reboot
	loops  bool          // goes down again and again before it stays up
	limit  time.Duration // of a reboot
	ends   []string      // how a host's part may end
}

var ordeals = []ordeal{
	{name: "slow", reboot: remotetest.Reboot{Shutdown: 5 * time.Minute}, limit: 8 * time.Minute, ends: []string{"succeeded"}},
	{name: "same", reboot: remotetest.Reboot{SameBootID: true}, limit: time.Minute, ends: []string{"failed"}},
	{name: "key", reboot: remotetest.Reboot{NewHostKey: true}, limit: time.Minute, ends: []string{"failed"}},
	// Whether it is up when it is looked at is chance.
	{name: "loop", loops: true, limit: time.Minute, ends: []string{"succeeded", "failed"}},
}

// Reboot restarts hosts that reboot badly, all side by side.
func Reboot(ctx context.Context, o Options) (Result, error) {
	var r RebootResult
	err := with(ctx, o, func(h harness.Options) error {
		results, errs := make([]RebootResult, len(ordeals)), make([]error, len(ordeals))
		var all sync.WaitGroup
		for i, d := range ordeals {
			all.Go(func() { results[i], errs[i] = d.try(ctx, h, o) })
		}
		all.Wait()
		for _, one := range results {
			r.Hosts += one.Hosts
			r.FalseRebooted += one.FalseRebooted
			r.SecondReboots += one.SecondReboots
			r.AfterKey += one.AfterKey
			r.Wrong += one.Wrong
		}
		return errors.Join(errs...)
	})
	return r, err
}

func (d ordeal) try(ctx context.Context, h harness.Options, o Options) (r RebootResult, err error) {
	h.Name, h.Hosts = d.name, or(o.Count, 8)
	h.Env = []string{"COMMISSAIRE_REBOOT_TIMEOUT=" + d.limit.String()}
	l, err := harness.New(ctx, h)
	if err != nil {
		return r, err
	}
	defer l.Close()
	w, err := l.Start("worker")
	if err != nil {
		return r, err
	}
	defer harness.Kill(w)
	hosts := l.Fleet.Hosts()
	for _, h := range hosts {
		h.SetReboot(d.reboot)
		if err := tellLogins(ctx, h); err != nil {
			return r, err
		}
	}
	if err := register(ctx, l, hosts); err != nil {
		return r, err
	}
	var looping sync.WaitGroup
	defer looping.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if d.loops {
		for _, h := range hosts {
			looping.Go(func() { loop(ctx, h) })
		}
	}
	policy := map[string]any{"policy": map[string]any{"max_unavailable": len(hosts), "max_failures": len(hosts)}}
	if err := l.Call(ctx, http.MethodPut, "cluster/"+harness.Cluster+"/restart", policy); err != nil {
		return r, err
	}
	if err := ended(ctx, l, d.limit+2*time.Minute); err != nil {
		return r, err
	}
	for _, h := range hosts {
		if err := d.judge(ctx, l, h, &r, o); err != nil {
			return r, err
		}
	}
	fmt.Fprintf(o.Out, "reboot: %s: %s\n", d.name, r)
	return r, nil
}

// judge compares what the record says of a host with what it says itself.
func (d ordeal) judge(ctx context.Context, l *harness.Installation, h *remotetest.Host, r *RebootResult, o Options) error {
	var state, reason string
	var believed bool
	err := l.DB.QueryRow(ctx, `SELECT r.state, r.reason, EXISTS (SELECT FROM step s WHERE s.operation_id = r.operation_id AND s.address = r.address
			AND s.name = 'wait' AND s.state = 'succeeded')
		FROM host_run r JOIN operation o ON o.id = r.operation_id WHERE o.kind = 'restart' AND r.address = $1`, h.Address()).Scan(&state, &reason, &believed)
	if err != nil {
		return err
	}
	r.Hosts++
	if (believed || state == "succeeded") && h.Reboots() == 0 {
		r.FalseRebooted++
	}
	r.SecondReboots += max(0, h.Count("systemctl", "reboot")-1)
	if d.reboot.NewHostKey {
		n, err := loginsSinceBoot(h)
		if err != nil {
			return err
		}
		r.AfterKey += n
	}
	if orders := h.Count("systemctl", "reboot"); orders != 1 || !slices.Contains(d.ends, state) {
		r.Wrong++
		fmt.Fprintf(o.Out, "reboot: %s: host %s is %s after %d orders to reboot: %s\n", d.name, h.Name(), state, orders, reason)
	}
	return nil
}

// loop lets a host that has rebooted go down again and again, without being asked.
func loop(ctx context.Context, h *remotetest.Host) {
	const times, up = 15, time.Second
	for h.Reboots() == 0 {
		if !sleep(ctx, 20*time.Millisecond) {
			return
		}
	}
	for range times {
		if !sleep(ctx, up) || h.Stop() != nil || !sleep(ctx, up/2) || h.Start(ctx) != nil {
			return
		}
	}
}

// tellLogins makes sshd say who logs in.
func tellLogins(ctx context.Context, h *remotetest.Host) error {
	path := filepath.Join(h.Dir(), "sshd_config")
	config, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// The first of two settings counts.
	if err := os.WriteFile(path, append([]byte("LogLevel VERBOSE\n"), config...), 0o644); err != nil {
		return err
	}
	return h.RestartSSHD(ctx)
}

// loginsSinceBoot counts them in sshd's log since it began to listen.
func loginsSinceBoot(h *remotetest.Host) (int, error) {
	log, err := os.ReadFile(filepath.Join(h.Dir(), "sshd.log"))
	if err != nil {
		return 0, err
	}
	text := string(log)
	at := strings.LastIndex(text, "Server listening on")
	if at < 0 || !strings.Contains(text[:at], "Accepted publickey") {
		return 0, fmt.Errorf("the log of %s does not tell about logins", h.Name())
	}
	return strings.Count(text[at:], "Accepted publickey"), nil
}

// register adds hosts to the cluster and waits until they are bootstrapped.
func register(ctx context.Context, l *harness.Installation, hosts []*remotetest.Host) error {
	if err := l.Call(ctx, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{}); err != nil {
		return err
	}
	for _, h := range hosts {
		if err := l.Call(ctx, http.MethodPut, "host/"+url.PathEscape(h.Address()), l.HostBody(h)); err != nil {
			return err
		}
	}
	return ended(ctx, l, readyMost)
}

// ended waits until no operation is under way.
func ended(ctx context.Context, l *harness.Installation, limit time.Duration) error {
	return harness.Until(ctx, limit, "the operations to end", func() (bool, error) {
		var open int
		err := l.DB.QueryRow(ctx, `SELECT count(*) FROM operation WHERE finished IS NULL`).Scan(&open)
		return open == 0, err
	})
}

// sleep is false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
