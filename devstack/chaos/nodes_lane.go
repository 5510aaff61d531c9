package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/nodes"
	"commissaire/internal/remote/remotetest"
)

// The clusters of a lane whose hosts are nodes. They share a container manager, and its
// budget.
const (
	webCluster, webHosts = "web", 3
	dbCluster, dbHosts   = "db", 2
	sharedBudget         = 2
)

// restoreLimit is how long after the end of an operation its nodes may be cordoned, on a
// machine that does nothing else.
const restoreLimit = 10 * time.Second

// mendLimit is how long a lane may take between runs until all is as it should be.
const mendLimit = 2 * time.Minute

// nodeLane is one installation whose hosts are nodes of the shared control plane.
type nodeLane struct {
	*lane
	*plane
	name     string
	kubelets *nodes.Kubelets
	worker   *exec.Cmd // the one that lives between runs
	counts   occurrences
}

func (l *nodeLane) close() {
	harness.Kill(l.worker)
	if l.kubelets != nil {
		l.kubelets.Close()
	}
	l.Close()
}

// prepare makes the hosts of a lane nodes that run applications, and carries out one
// rollout that nobody disturbs, to count what happens in it.
func (l *nodeLane) prepare(ctx context.Context) error {
	var machines []nodes.Machine
	labels := map[string]string{"lane": l.name}
	ours := map[string]bool{}
	for _, h := range l.Fleet.Hosts() {
		h.SetReboot(remotetest.Reboot{Shutdown: 100 * time.Millisecond, Downtime: 200 * time.Millisecond})
		machines = append(machines, h)
		ours[h.Address()] = true
	}
	stranger := "stranger-" + l.name
	l.mu.Lock()
	for name := range ours {
		l.rules.Ours[name] = true
	}
	l.rules.Strangers[stranger] = true
	l.rules.Managers = append(l.rules.Managers, nodes.Manager{Name: l.name, Most: sharedBudget, Nodes: ours})
	l.mu.Unlock()
	if err := l.kube.AddNode(ctx, stranger); err != nil {
		return err
	}
	if err := l.watch.Cordon(ctx, stranger); err != nil {
		return err
	}
	l.kubelets = nodes.Play(l.kube, l.watch, nodes.KubeletOptions{Start: 200 * time.Millisecond, Labels: labels}, machines...)
	var err error
	if l.worker, err = l.Start("worker"); err != nil {
		return err
	}
	manager := map[string]any{"type": "kubernetes", "options": map[string]any{
		"server_url": l.kube.URL(), "certificate_ca_path": l.kube.CAFile(), "certificate_path": l.cert, "certificate_key_path": l.key,
		"max_unavailable": sharedBudget,
	}}
	if err := l.Call(ctx, http.MethodPut, "containermanager/kube", manager); err != nil {
		return err
	}
	if err := l.mend(ctx); err != nil {
		return err
	}
	if err := l.kube.AddNamespace(ctx, l.name); err != nil {
		return err
	}
	err = nodes.Run(ctx, l.kube,
		nodes.App{Namespace: l.name, Name: "cart", Replicas: 4, Nodes: labels, MinAvailable: "3"},
		nodes.App{Namespace: l.name, Name: "pay", Replicas: 3, Nodes: labels, MaxUnavailable: "1"})
	if err != nil {
		return err
	}
	t := &nodeTrial{lane: l, policy: map[string]any{"max_unavailable": sharedBudget}}
	if err := t.order(ctx); err != nil {
		return err
	}
	if err := t.finish(ctx); err != nil {
		return err
	}
	if len(t.notes) > 0 || t.leaked > 0 || !slices.Equal(t.states, []string{"succeeded"}) {
		return fmt.Errorf("a rollout that nobody disturbed went wrong: %s %q %q", t.states, t.reasons, t.notes)
	}
	l.counts, err = l.occurrences(ctx, kind{"restart", webCluster}, nil)
	return err
}

// clusterOf is the cluster in which a host is to be.
func (l *nodeLane) clusterOf(h *remotetest.Host) string {
	if slices.Index(l.Fleet.Hosts(), h) < webHosts {
		return webCluster
	}
	return dbCluster
}

// mend makes the inventory and the nodes of a lane what they were before the first
// run: hosts and clusters may have been deleted, and hosts may have failed.
func (l *nodeLane) mend(ctx context.Context) error {
	for _, cluster := range []string{webCluster, dbCluster} {
		if err := l.Call(ctx, http.MethodPut, "cluster/"+cluster, map[string]any{"container_manager": "kube"}); err != nil {
			return err
		}
	}
	for _, h := range l.Fleet.Hosts() {
		said := ""
		err := harness.Until(ctx, mendLimit, h.Address()+" to be an active host", func() (ok bool, err error) {
			ok, said, err = l.mendHost(ctx, h)
			return ok, err
		})
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
	}
	for _, h := range l.Fleet.Hosts() {
		err := harness.Until(ctx, mendLimit, "the kubelet of "+h.Address(), func() (bool, error) {
			n, there := l.watch.Node(h.Address())
			return there && n.BootID == h.BootID(), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mendHost takes the next step for a host to be active in its cluster, and says what
// was answered.
func (l *nodeLane) mendHost(ctx context.Context, h *remotetest.Host) (ok bool, said string, err error) {
	r, err := l.Request(ctx, http.MethodGet, hostPath(h), nil)
	if err != nil {
		return false, "", err
	}
	var now struct{ Status, Cluster string }
	do := func(method, path string, body any) (bool, string, error) {
		r, err := l.Request(ctx, method, path, body)
		if err == nil && r.Code >= http.StatusInternalServerError && r.Code != http.StatusServiceUnavailable {
			err = fmt.Errorf("%s %s: %d: %s", method, path, r.Code, r.Body)
		}
		if err != nil {
			return false, "", err
		}
		return false, string(r.Body), nil
	}
	switch {
	case r.Code == http.StatusNotFound:
		body := l.HostBody(h)
		body["cluster"] = l.clusterOf(h)
		return do(http.MethodPut, hostPath(h), body)
	case r.Code != http.StatusOK || json.Unmarshal(r.Body, &now) != nil:
		return false, string(r.Body), nil
	case now.Cluster != l.clusterOf(h) && (now.Status == "active" || now.Status == "disassociated"):
		return do(http.MethodPut, "cluster/"+l.clusterOf(h)+"/hosts/"+h.Address(), nil)
	case now.Status == "active":
		return true, "", nil
	case now.Status == "failed" || now.Status == "disassociated":
		return do(http.MethodPut, hostPath(h)+"/bootstrap", nil)
	}
	return false, string(r.Body), nil
}

// clean takes away what a run may have left behind, so that the next one has a chance.
// It was counted before.
func (l *nodeLane) clean(ctx context.Context) error {
	for _, h := range l.Fleet.Hosts() {
		n, there := l.watch.Node(h.Address())
		if !there || n.Mark == "" && !n.Closed {
			continue
		}
		if err := l.patch(ctx, h.Address(), `{"metadata":{"annotations":{"commissaire/cordon":null}},"spec":{"unschedulable":null}}`); err != nil {
			return err
		}
	}
	return nil
}

// patch changes a node as somebody else would. Another lane may just restart the
// apiserver.
func (l *nodeLane) patch(ctx context.Context, node, patch string) error {
	return harness.Until(ctx, mendLimit, "a change of node "+node, func() (bool, error) { return l.watch.Patch(ctx, node, patch) == nil, nil })
}
