package scale

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/nodes"
	"commissaire/devstack/scale/simhost"
	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// NodesResult is what was measured of rollouts over the nodes of a Kubernetes.
type NodesResult struct {
	Hosts       int
	Budgets     int           // disruption budgets of the applications on them
	Wall        time.Duration // from the first order to the last end, by the record
	DryRun      time.Duration // the longest until a dry run was answered
	Evictions   int
	Most        int // nodes that were cordoned at once
	Limit       int // that may be
	WorkerMB    int // largest resident memory of the worker, MiB
	OverBudget  int // pods taken below what a budget wants, and cordons too many
	NotRestored int // nodes that are not as they were, or that somebody else had closed and were opened
	Problems    []string
}

func (r NodesResult) String() string {
	return fmt.Sprintf("nodes: hosts=%d budgets=%d evictions=%d wall_s=%.1f dry_run_ms=%d worker_mb=%d cordoned_most=%d of=%d over_budget=%d not_restored=%d",
		r.Hosts, r.Budgets, r.Evictions, r.Wall.Seconds(), r.DryRun.Milliseconds(), r.WorkerMB, r.Most, r.Limit, r.OverBudget, r.NotRestored)
}

// OK says whether every promise was held.
func (r NodesResult) OK() bool { return r.OverBudget+r.NotRestored == 0 && len(r.Problems) == 0 }

// What the nodes run: applications of ten pods, of which the budgets of one half let one
// be away, and those of the other half a fifth.
const (
	nodeClusters  = 2
	podsPerNode   = 2
	podsPerApp    = 10
	appsNamespace = "shop"
	stranger      = "stranger" // a node that is not ours
)

// nodesRun is the product with simulated hosts that are nodes.
type nodesRun struct {
	*installation
	kube  *kubetest.Cluster
	watch *nodes.Watch
	rules nodes.Rules
}

// Nodes restarts hosts that are nodes in two clusters at once, and judges what the
// apiserver saw of it. Of the options, MaxUnavailable is that of each rollout. Together
// should be less than both, so that they get in each other's way.
func Nodes(ctx context.Context, o Options) (r NodesResult, err error) {
	r.Hosts = o.Hosts
	if o.Hosts < 2*nodeClusters {
		return r, fmt.Errorf("%d hosts are too few for %d clusters", o.Hosts, nodeClusters)
	}
	base, stop, err := servers(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop()) }()
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
	hosts, err := simhost.Open(simhost.Options{Hosts: o.Hosts, Seed: o.Seed, Shutdown: o.Shutdown, Downtime: o.Downtime})
	if err != nil {
		return r, err
	}
	defer hosts.Close()
	base.Name = "nodes"
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
	n := &nodesRun{
		installation: &installation{Installation: h, hosts: hosts, worker: worker.Process.Pid, out: o.Out}, kube: kube, watch: watch,
		rules: nodes.Rules{Ours: map[string]bool{}, Strangers: map[string]bool{}, Operations: map[string]int{}},
	}
	var machines []nodes.Machine
	for _, h := range hosts.Hosts() {
		machines = append(machines, h)
		n.rules.Ours[h.Address()] = true
	}
	kubelets := nodes.Play(kube, watch, nodes.KubeletOptions{Start: time.Second, Labels: map[string]string{appsNamespace: "yes"}}, machines...)
	defer kubelets.Close()
	if err := n.join(ctx, o.Together, &r); err != nil {
		return r, err
	}
	if err := n.populate(ctx, &r); err != nil {
		return r, err
	}
	if err := n.rollOut(ctx, o, &r); err != nil {
		return r, err
	}
	// The watch may still lack what was done last. It sees this after that.
	if err := watch.Patch(ctx, stranger, `{"metadata":{"annotations":{"the":"end"}}}`); err != nil {
		return r, err
	}
	n.judge(&r)
	return r, watch.Err()
}

func nodeCluster(i int) string { return fmt.Sprintf("c%d", i) }

// join makes the hosts nodes, by their bootstraps, with the rights that the product asks
// for.
func (n *nodesRun) join(ctx context.Context, together string, r *NodesResult) error {
	account, err := n.kube.AddAccount(ctx, "commissaire", containermgr.Rules()...)
	if err != nil {
		return err
	}
	token, err := account.Token(ctx)
	if err != nil {
		return err
	}
	amount, err := fleet.ParseAmount(together)
	if err != nil {
		return err
	}
	r.Limit = max(1, amount.Floor(r.Hosts))
	n.rules.Managers = []nodes.Manager{{Name: "kube", Most: r.Limit, Nodes: n.rules.Ours}}
	if err := n.Call(ctx, http.MethodPut, "containermanager/kube", map[string]any{"type": "kubernetes", "options": map[string]any{
		"server_url": n.kube.URL(), "token": token, "certificate_ca_path": n.kube.CAFile(), "max_unavailable": together,
	}}); err != nil {
		return err
	}
	for i := range nodeClusters {
		if err := n.Call(ctx, http.MethodPut, "cluster/"+nodeCluster(i), map[string]any{"container_manager": "kube"}); err != nil {
			return err
		}
	}
	begun := time.Now()
	for i, h := range n.hosts.Hosts() {
		body := map[string]any{
			"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(n.hosts.ClientKey())),
			"remote_user":  "root", "port": simhost.Port, "cluster": nodeCluster(i % nodeClusters),
		}
		if err := n.Call(ctx, http.MethodPut, "host/"+h.Address(), body); err != nil {
			return err
		}
	}
	const limit = 10 * time.Minute
	err = harness.Until(ctx, limit, "the hosts to be active", func() (bool, error) {
		var failed, active int
		err := n.DB.QueryRow(ctx, `SELECT count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'active') FROM host`).Scan(&failed, &active)
		if failed > 0 {
			return false, fmt.Errorf("%d hosts failed", failed)
		}
		return active == len(n.hosts.Hosts()), err
	})
	fmt.Fprintf(n.out, "nodes: %d hosts are active after %.1f s\n", r.Hosts, time.Since(begun).Seconds())
	return err
}

// populate runs applications on the nodes, and has somebody cordon two of them, and a
// node that is not ours.
func (n *nodesRun) populate(ctx context.Context, r *NodesResult) error {
	if err := n.kube.AddNamespace(ctx, appsNamespace); err != nil {
		return err
	}
	r.Budgets = r.Hosts * podsPerNode / podsPerApp
	var apps []nodes.App
	for i := range r.Budgets {
		a := nodes.App{
			Namespace: appsNamespace, Name: fmt.Sprintf("app%d", i), Replicas: podsPerApp,
			Nodes: map[string]string{appsNamespace: "yes"}, MaxUnavailable: "1",
		}
		if i%2 == 0 {
			a.MinAvailable, a.MaxUnavailable = "80%", ""
		}
		apps = append(apps, a)
	}
	if err := nodes.Run(ctx, n.kube, apps...); err != nil {
		return err
	}
	n.rules.Strangers[stranger] = true
	if err := n.kube.AddNode(ctx, stranger); err != nil {
		return err
	}
	for _, name := range []string{stranger, n.hosts.Hosts()[0].Address(), n.hosts.Hosts()[1].Address()} {
		if err := n.watch.Cordon(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// rollOut orders a restart of each cluster and waits for their ends.
func (n *nodesRun) rollOut(ctx context.Context, o Options, r *NodesResult) error {
	body := map[string]any{"policy": map[string]any{"max_unavailable": o.MaxUnavailable}}
	var ids []string
	for i := range nodeClusters {
		path := "cluster/" + nodeCluster(i) + "/restart"
		asked := time.Now()
		if err := n.Call(ctx, http.MethodPut, path+"?dry_run=true", body); err != nil {
			return err
		}
		r.DryRun = max(r.DryRun, time.Since(asked))
	}
	most, err := budget(o.MaxUnavailable, o.Hosts/nodeClusters)
	if err != nil {
		return err
	}
	for i := range nodeClusters {
		if err := n.Call(ctx, http.MethodPut, "cluster/"+nodeCluster(i)+"/restart", body); err != nil {
			return err
		}
		var id string
		if err := n.DB.QueryRow(ctx, `SELECT id::text FROM operation WHERE kind = 'restart' ORDER BY id DESC LIMIT 1`).Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
		n.rules.Operations[id] = most
	}
	fmt.Fprintf(n.out, "nodes: %d rollouts of up to %d nodes each, %d together\n", nodeClusters, most, r.Limit)
	const every = 5 * time.Second
	begun, said := time.Now(), time.Now()
	err = harness.Until(ctx, o.Limit, "the restarts to end", func() (bool, error) {
		if time.Since(said) >= every {
			said = time.Now()
			for _, n.operation = range ids {
				if err := n.progress(ctx, said.Sub(begun)); err != nil {
					return false, err
				}
			}
		}
		return n.Ended(ctx, ids)
	})
	if err != nil {
		return err
	}
	for _, n.operation = range ids {
		part := Result{Hosts: o.Hosts / nodeClusters}
		if err := n.verifyHostRuns(ctx, &part); err != nil {
			return err
		}
		r.Problems = append(r.Problems, part.Problems...)
	}
	all := Result{Budget: r.Limit}
	n.verifyReboots(&all)
	r.Problems = append(r.Problems, all.Problems...)
	r.OverBudget += all.OverBudget
	if r.WorkerMB, err = peakMemory(n.worker); err != nil {
		return err
	}
	return n.DB.QueryRow(ctx, `SELECT max(finished) - min(created) FROM operation WHERE kind = 'restart'`).Scan(&r.Wall)
}

// judge takes what the apiserver saw.
func (n *nodesRun) judge(r *NodesResult) {
	v := n.watch.Judge(n.rules)
	r.OverBudget += v.OverBudget
	r.NotRestored = v.Leaked + v.ForeignRemoved
	r.Evictions, r.Most = v.Evicted, v.Most
	r.Problems = append(r.Problems, v.Notes...)
}
