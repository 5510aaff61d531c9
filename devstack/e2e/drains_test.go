package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"commissaire/devstack/nodes"
	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
	"commissaire/internal/remote/remotetest"
)

// drains is a site whose nodes have kubelets, and whose Kubernetes is watched.
type drains struct {
	*nodeSite
	watch *nodes.Watch

	mu    sync.Mutex
	rules nodes.Rules
	free  []*remotetest.Host // hosts that no fixture has yet
}

func newDrains(t *testing.T, kube *kubetest.Cluster, hosts int) *drains {
	t.Helper()
	watch, err := nodes.Observe(t.Context(), kube)
	require.NoError(t, err)
	t.Cleanup(watch.Close)
	d := &drains{nodeSite: newNodes(t, kube, hosts, nil), watch: watch}
	d.free = d.Fleet.Hosts()
	d.rules = nodes.Rules{Ours: map[string]bool{}, Strangers: map[string]bool{}, Operations: map[string]int{}}
	var machines []nodes.Machine
	for _, h := range d.free {
		machines = append(machines, h)
		d.rules.Ours[h.Address()] = true
	}
	// As long as it takes to tell what the node said before from what it says now.
	kubelets := nodes.Play(kube, watch, nodes.KubeletOptions{Start: 300 * time.Millisecond, Registers: true}, machines...)
	t.Cleanup(kubelets.Close)
	stranger := "stranger-" + d.free[0].Address()
	require.NoError(t, kube.AddNode(t.Context(), stranger))
	require.NoError(t, watch.Cordon(t.Context(), stranger))
	d.rules.Strangers[stranger] = true
	return d
}

// judged wants that the whole record is as it should be.
func (d *drains) judged() {
	d.t.Helper()
	for node := range d.rules.Ours { // the record may be a moment behind the end of an operation
		d.until(limit, node+" to bear no mark", func() bool { n, _ := d.watch.Node(node); return n.Mark == "" })
	}
	require.NoError(d.t, d.watch.Err())
	v := d.watch.Judge(d.rules)
	require.True(d.t, v.OK(), "%s", strings.Join(v.Notes, "\n"))
	require.Positive(d.t, v.Evicted)
}

// field is where one fixture takes place: clusters of one host each, with their nodes,
// and a namespace for what runs there.
type field struct {
	*drains
	name  string // of the first cluster, and of the namespace
	hosts []*remotetest.Host
	token string
	owner *kubetest.Account // of the container manager, if it has one for itself
	op    operationView
}

// enter makes a field of some hosts. A container manager of its own has these options.
func (d *drains) enter(t *testing.T, name string, hosts int, manager map[string]any) *field {
	t.Helper()
	f := &field{name: name}
	d.mu.Lock()
	require.GreaterOrEqual(t, len(d.free), hosts, "the site has too few hosts")
	f.hosts, d.free = d.free[:hosts], d.free[hosts:]
	if most, shared := manager["max_unavailable"].(int); shared {
		budget := nodes.Manager{Name: name, Most: most, Nodes: map[string]bool{}}
		for _, h := range f.hosts {
			budget.Nodes[h.Address()] = true
		}
		d.rules.Managers = append(d.rules.Managers, budget)
	}
	d.mu.Unlock()
	f.drains = &drains{nodeSite: &nodeSite{site: d.in(t), kube: d.kube, token: d.token}, watch: d.watch}
	require.NoError(t, d.kube.AddNamespace(t.Context(), name))
	kept := "kube"
	if manager != nil {
		var err error
		f.owner, err = d.kube.AddAccount(t.Context(), name, containermgr.Rules()...)
		require.NoError(t, err)
		f.nodeSite.token, err = f.owner.Token(t.Context())
		require.NoError(t, err)
		kept = name
		f.putManager(kept, manager)
	}
	for i, h := range f.hosts {
		f.ask(http.StatusCreated, http.MethodPut, "cluster/"+f.cluster(i), map[string]any{"container_manager": kept})
		f.addHost(h, f.cluster(i))
	}
	for _, h := range f.hosts {
		f.becomes(h, "active")
	}
	return f
}

// cluster is the name of the cluster that the i-th host is in.
func (f *field) cluster(i int) string {
	if i == 0 {
		return f.name
	}
	return fmt.Sprintf("%s-%d", f.name, i)
}

func (f *field) node() string { return f.hosts[0].Address() }

// fill puts names of this field into a text.
func (f *field) fill(text string) string {
	return strings.NewReplacer("$node", f.node(), "$ns", f.name).Replace(text)
}

// planView is a dry run, as far as the tests look at it.
type planView struct {
	Hosts []struct {
		Address, Blocks string
		Findings        []fleet.Finding
		Steps           []struct{ Name string }
	}
	Blocks []string
}

// dryRun asks what a restart of the first cluster would do.
func (f *field) dryRun(members map[string]any) (plan planView) {
	f.t.Helper()
	f.until(limit, "a worker to say what is in the way", func() bool {
		r := f.ask(http.StatusOK, http.MethodPut, "cluster/"+f.name+"/restart?dry_run=true", policy(members))
		plan = planView{}
		require.NoError(f.t, jsonInto(r.Body, &plan))
		require.Len(f.t, plan.Hosts, 1)
		return !strings.Contains(strings.Join(plan.Blocks, " "), "no worker answered") // in time
	})
	return plan
}

// restart orders a restart of a cluster.
func (f *field) restart(i int, members map[string]any) operationView {
	f.t.Helper()
	f.ask(http.StatusCreated, http.MethodPut, "cluster/"+f.cluster(i)+"/restart", policy(members))
	return f.latest("kind=restart&cluster=" + f.cluster(i))
}

// limited tells the judge how many nodes an operation may have.
func (d *drains) limited(op operationView, most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules.Operations[op.ID] = most
}

// ends waits for the end of an operation.
func (f *field) ends(op operationView) operationView {
	f.t.Helper()
	f.until(limit, "the end of restart "+op.ID, func() bool {
		f.get("operations/"+op.ID, &op)
		return op.State != "pending" && op.State != "running"
	})
	return op
}

// restored wants the node to become as it was.
func (f *field) restored(closed bool) {
	f.t.Helper()
	f.until(limit, f.node()+" to be as it was", func() bool {
		n, there := f.watch.Node(f.node())
		return !there || n.Mark == "" && n.Closed == closed
	})
}

// waits until the step under way says why it does not go on.
func (f *field) waits(text string) {
	f.t.Helper()
	f.until(limit, "the host to wait for "+text, func() bool {
		for _, s := range f.steps(f.op.ID) {
			if s.State == "running" && strings.Contains(s.Reason, f.fill(text)) {
				return true
			}
		}
		return false
	})
}

// pod makes a pod on the node, changed before.
func (f *field) pod(name string, change ...func(*corev1.Pod)) {
	f.t.Helper()
	p := kubetest.Pod(f.name, name, f.node())
	for _, c := range change {
		c(p)
	}
	_, err := f.kube.AddPod(f.t.Context(), p)
	require.NoError(f.t, err)
}

// held makes a pod, changed before, that stays when it is told to go.
func (f *field) held(name string, change ...func(*corev1.Pod)) {
	f.t.Helper()
	f.pod(name, change...)
	require.NoError(f.t, f.kube.HoldPod(f.t.Context(), f.name, name))
}

func (f *field) release(name string) {
	f.t.Helper()
	require.NoError(f.t, f.kube.ReleasePod(f.t.Context(), f.name, name))
}

// has says whether the node has a pod.
func (f *field) has(name string) bool {
	for _, p := range f.watch.PodsOn(f.node()) {
		if p.Namespace == f.name && p.Name == name {
			return true
		}
	}
	return false
}

// draining waits until a pod was told to go.
func (f *field) draining(name string) {
	f.t.Helper()
	f.until(limit, "the eviction of "+name, func() bool {
		for _, p := range f.watch.PodsOn(f.node()) {
			if p.Namespace == f.name && p.Name == name && p.Evicted && p.Ending {
				return true
			}
		}
		return false
	})
}

// budget makes one over the pods with app: NAME.
func (f *field) budget(name, app string, minAvailable, healthy int) {
	f.t.Helper()
	_, err := f.kube.AddBudget(f.t.Context(), f.name, name, policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt(minAvailable)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
	}, int32(healthy))
	require.NoError(f.t, err)
}

// app runs an application on the node, with another node to go to.
func (f *field) app(replicas int, minAvailable string) (pods []string) {
	f.t.Helper()
	ctx := f.t.Context()
	spare := "spare-" + f.name
	require.NoError(f.t, f.kube.AddNode(ctx, spare))
	require.NoError(f.t, f.watch.Cordon(ctx, spare))
	for _, node := range []string{f.node(), spare} {
		require.NoError(f.t, f.watch.Patch(ctx, node, fmt.Sprintf(`{"metadata":{"labels":{"fixture":%q}}}`, f.name)))
	}
	require.NoError(f.t, nodes.Run(ctx, f.kube, nodes.App{
		Namespace: f.name, Name: "web", Replicas: int32(replicas), MinAvailable: minAvailable, Nodes: map[string]string{"fixture": f.name},
	}))
	require.NoError(f.t, f.watch.Uncordon(ctx, spare))
	f.until(limit, "the pods to be seen", func() bool { return len(f.watch.PodsOn(f.node())) == replicas })
	for _, p := range f.watch.PodsOn(f.node()) {
		pods = append(pods, p.Name)
	}
	return pods
}

// daemon runs a daemon set on the node.
func (f *field) daemon() {
	f.t.Helper()
	labels := map[string]string{"app": "log"}
	_, err := f.kube.Admin().AppsV1().DaemonSets(f.name).Create(f.t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "log"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					NodeSelector: map[string]string{corev1.LabelHostname: f.node()},
					Containers:   []corev1.Container{{Name: "main", Image: "none.invalid/none"}},
				},
			},
		},
	}, metav1.CreateOptions{})
	require.NoError(f.t, err)
	f.until(limit, "the daemon to run", func() bool {
		pods := f.watch.PodsOn(f.node())
		return len(pods) == 1 && pods[0].Healthy()
	})
}

// localVolume makes a claim that is bound to a disk of the node.
func (f *field) localVolume(claim string) {
	f.t.Helper()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	mode := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err := f.kube.Admin().CoreV1().PersistentVolumes().Create(f.t.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: f.name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: mode,
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/srv"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{f.node()}}},
			}}}},
		},
	}, metav1.CreateOptions{})
	require.NoError(f.t, err)
	_, err = f.kube.Admin().CoreV1().PersistentVolumeClaims(f.name).Create(f.t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: claim},
		Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: mode, VolumeName: f.name, Resources: corev1.VolumeResourceRequirements{Requests: size}},
	}, metav1.CreateOptions{})
	require.NoError(f.t, err)
}

func withEmptyDir(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
}

func withClaim(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}}}
}

func withoutController(p *corev1.Pod) { p.OwnerReferences = nil }

func withGrace(seconds int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(seconds) }
}

func withLabel(name, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[name] = value }
}
