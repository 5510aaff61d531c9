package nodes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"commissaire/internal/containermgr"
	"commissaire/internal/kubetest"
)

// machine is a host of which only the boot matters.
type machine struct {
	name string
	boot atomic.Pointer[string]
}

func newMachine(name string) *machine {
	m := &machine{name: name}
	m.boots("first")
	return m
}

func (m *machine) boots(id string)  { m.boot.Store(&id) }
func (m *machine) Address() string  { return m.name }
func (m *machine) BootID() string   { return *m.boot.Load() }
func (m *machine) String() string   { return m.name }
func mark(operation string) *string { return new(`{"owner":"` + operation + `/x"}`) }

// scene is a control plane that is watched, with kubelets.
type scene struct {
	t     *testing.T
	kube  *kubetest.Cluster
	watch *Watch
}

func observe(t *testing.T, kube *kubetest.Cluster) *scene {
	t.Helper()
	w, err := Observe(t.Context(), kube)
	require.NoError(t, err)
	t.Cleanup(w.Close)
	return &scene{t, kube, w}
}

func (s *scene) play(o KubeletOptions, machines ...Machine) {
	k := Play(s.kube, s.watch, o, machines...)
	s.t.Cleanup(k.Close)
	for _, m := range machines {
		_, err := s.kube.Admin().CoreV1().Nodes().Create(s.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.Address()}}, metav1.CreateOptions{})
		require.NoError(s.t, err)
	}
	for _, m := range machines {
		s.until(m.Address()+" to report", func() bool { return s.node(m.Address()).BootID == m.BootID() })
	}
}

func (s *scene) until(what string, check func() bool) {
	s.t.Helper()
	require.Eventually(s.t, check, kubetest.TestTimeout, 10*time.Millisecond, what)
}

func (s *scene) node(name string) Node {
	n, _ := s.watch.Node(name)
	return n
}

// sets changes a node as the product would, or should not; mark nil takes it away.
func (s *scene) sets(name string, mark *string, closed bool) {
	s.t.Helper()
	value := "null"
	if mark != nil {
		value = fmt.Sprintf("%q", *mark)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}},"spec":{"unschedulable":%t}}`, containermgr.CordonAnnotation, value, closed)
	_, err := s.kube.Admin().CoreV1().Nodes().Patch(s.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(s.t, err)
	s.until("the change to be seen", func() bool { n := s.node(name); return n.Closed == closed && (n.Mark == "") == (mark == nil) })
}

// downAt is how many pods of a node had been well, and were not, when the node reported a
// boot.
func (s *scene) downAt(node, boot string) (down int) {
	s.watch.mu.Lock()
	events := slices.Clone(s.watch.events)
	s.watch.mu.Unlock()
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.revision, b.revision) })
	well, ready := map[string]bool{}, map[string]bool{}
	for _, e := range events {
		switch {
		case e.pod != nil && e.pod.Node == node:
			well[e.pod.Name] = well[e.pod.Name] || e.pod.Healthy()
			ready[e.pod.Name] = e.pod.Ready
		case e.node != nil && e.node.Name == node && e.node.BootID == boot:
			for name := range well {
				if well[name] && !ready[name] {
					down++
				}
			}
			return down
		}
	}
	return 0
}

func TestKubeletsFollowTheirHosts(t *testing.T) {
	t.Parallel()
	s := observe(t, kubetest.Shared(t))
	m := newMachine("kubelet-1")
	s.play(KubeletOptions{Start: 500 * time.Millisecond, Labels: map[string]string{"lane": "kubelet"}, Registers: true}, m)
	require.NoError(t, s.kube.AddNamespace(t.Context(), "kubelet"))
	app := App{Namespace: "kubelet", Name: "web", Replicas: 2, Nodes: map[string]string{"lane": "kubelet"}, MinAvailable: "1"}
	require.NoError(t, Run(t.Context(), s.kube, app))
	ready := func() int {
		return len(slices.DeleteFunc(s.watch.PodsOn(m.name), func(p Pod) bool { return !p.Healthy() }))
	}
	s.until("the pods to be seen", func() bool { return ready() == 2 })

	// The pods are down before the node says that its host has booted. That may be over
	// before anybody looks, but it is on record.
	m.boots("second")
	s.until("the pods to have been down, and to be up", func() bool { return s.downAt(m.name, "second") == 2 && ready() == 2 })

	// A kubelet registers its node again when it starts and there is none.
	require.NoError(t, s.kube.Admin().CoreV1().Nodes().Delete(t.Context(), m.name, metav1.DeleteOptions{}))
	s.until("the node to be gone", func() bool { return s.node(m.name).Name == "" })
	m.boots("third")
	s.until("the node to be back", func() bool { return s.node(m.name).BootID == "third" })
}

// What may be is not held against anybody, and what may not be is found, also when the
// apiserver was restarted in between.
func TestRecordsAreJudged(t *testing.T) {
	t.Parallel()
	s := observe(t, kubetest.New(t))
	a, b := newMachine("node-a"), newMachine("node-b")
	s.play(KubeletOptions{Labels: map[string]string{"lane": "x"}}, a, b)
	require.NoError(t, s.kube.AddNode(t.Context(), "stranger"))
	require.NoError(t, s.kube.AddNamespace(t.Context(), "shop"))
	require.NoError(t, Run(t.Context(), s.kube,
		App{Namespace: "shop", Name: "cart", Replicas: 4, Nodes: map[string]string{"lane": "x"}, MinAvailable: "3"}))
	ours := map[string]bool{a.name: true, b.name: true}
	rules := Rules{Ours: ours, Strangers: map[string]bool{"stranger": true}, Operations: map[string]int{"one": 1}, Managers: []Manager{{Name: "kube", Most: 1, Nodes: ours}}}
	judged := func() Verdict {
		require.NoError(t, s.watch.Err())
		return s.watch.Judge(rules)
	}

	// As it should be: somebody's cordon stays, and one pod after the other goes.
	require.NoError(t, s.watch.Cordon(t.Context(), b.name))
	s.sets(b.name, mark("one"), true)
	s.sets(b.name, nil, true)
	require.NoError(t, s.watch.Uncordon(t.Context(), b.name))
	s.sets(a.name, mark("one"), true)
	for pods := s.watch.PodsOn(a.name); len(pods) > 0; pods = s.watch.PodsOn(a.name) {
		p := pods[0]
		_ = s.kube.Admin().PolicyV1().Evictions(p.Namespace).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}})
	}
	a.boots("second")
	s.until("the node to report", func() bool { return s.node(a.name).BootID == "second" })
	v := judged()
	require.Equal(t, 1, v.Leaked, "it is still cordoned")
	s.sets(a.name, nil, false)
	v = judged()
	require.True(t, v.OK(), "%q", v.Notes)
	require.Positive(t, v.Evicted)
	require.Equal(t, 1, v.Most)

	// A host that goes down with its pods, though nobody has drained it.
	require.NoError(t, s.watch.Cordon(t.Context(), a.name))
	b.boots("second")
	s.until("the pods to have gone down, and to be well", func() bool {
		return s.downAt(b.name, "second") > 0 && s.watch.Judge(rules).OverBudget > 0 && !slices.ContainsFunc(s.watch.PodsOn(b.name), func(p Pod) bool { return !p.Healthy() })
	})
	v = judged()
	require.Positive(t, v.OverBudget, "%q", v.Notes)
	require.Contains(t, v.Notes[0], "went with its node, and budget shop/cart has")

	// Somebody's cordon is opened; too many are cordoned; one is left closed.
	s.sets(a.name, mark("one"), true)
	require.NoError(t, s.kube.StopAPIServer(syscall.SIGKILL))
	require.NoError(t, s.kube.StartAPIServer(t.Context()))
	s.sets(b.name, mark("two"), true)
	s.sets(a.name, nil, false)
	s.sets(b.name, nil, true)
	s.sets("stranger", nil, true)
	v = judged()
	// Pods that went down with b may be called so again by the node controller.
	cordons := slices.DeleteFunc(slices.Clone(v.Notes), func(note string) bool { return !strings.Contains(note, " are cordoned") })
	require.Len(t, cordons, 1, "two at once, where the manager lets one: %q", v.Notes)
	require.Contains(t, cordons[0], "2 nodes of container manager kube")
	require.Equal(t, 2, v.ForeignRemoved, "%q", v.Notes)
	require.Equal(t, 3, v.Leaked, "b at once and at the end, the stranger at the end: %q", v.Notes)
}
