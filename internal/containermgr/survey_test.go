package containermgr_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// TestManyAreAsOne makes clusters at random: many nodes at once are diagnosed as each
// of them is.
func TestManyAreAsOne(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	seen := make(chan fleet.Finding, 10_000)
	t.Run("worlds", func(t *testing.T) {
		for i := range 8 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, rand.New(rand.NewPCG(seed, uint64(i))), i)
				for turn := range 5 {
					p := w.policy()
					if turn == 0 {
						p = fleet.Drain{} // which lets nothing pass
					}
					for {
						before := w.many(p)
						alone := map[string][]fleet.Finding{}
						for _, node := range w.nodes {
							findings, err := w.k.Diagnose(w.ctx, node, "", p, false)
							require.NoError(t, err)
							alone[node] = findings
						}
						if !reflect.DeepEqual(before, w.many(p)) {
							continue // the controllers are not done with it
						}
						require.Equal(t, alone, before, "%+v", p)
						break
					}
					for _, findings := range w.many(p) {
						for _, f := range findings {
							seen <- f
						}
					}
				}
			})
		}
	})
	close(seen)
	causes := map[string]int{}
	for f := range seen {
		causes[f.Cause]++
	}
	t.Logf("%v", causes)
	require.Greater(t, len(causes), 10, "the worlds are too dull to tell: %v", causes)
}

// world is some nodes with what may be in the way of draining them.
type world struct {
	*space
	r     *rand.Rand
	nodes []string // also one that is not there
}

// newWorld is the nth world. That there is something of everything is no matter of
// chance.
func newWorld(t *testing.T, r *rand.Rand, n int) *world {
	t.Helper()
	w := &world{space: newSpace(t, kubetest.Shared(t)), r: r}
	w.nodes = []string{w.node}
	for range 1 + r.IntN(3) {
		node := nodeName()
		require.NoError(t, w.AddNode(w.ctx, node))
		w.nodes = append(w.nodes, node)
	}
	namespaces := []string{w.namespace, w.namespace + "-b"}
	require.NoError(t, w.AddNamespace(w.ctx, namespaces[1]))
	w.localVolume("data")
	changes := []func(*corev1.Pod){
		ofDaemonSet, unmanaged, emptyDir, finalized, grace(3600), // in an order in which they go together
		func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			unmanaged(p)
		},
		func(p *corev1.Pod) { p.Labels["drain"] = "no" },
		func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
			}})
		},
	}
	for i := range 8 + r.IntN(8) {
		namespace, app := namespaces[r.IntN(2)], []string{"x", "y"}[r.IntN(2)]
		pod := kubetest.Pod(namespace, fmt.Sprint("pod-", i), w.nodes[r.IntN(len(w.nodes))])
		pod.Labels["app"] = app
		some := r.Perm(len(changes))[:r.IntN(3)]
		if i < len(changes) {
			some = append(some, i)
		}
		slices.Sort(some)
		for _, c := range slices.Compact(some) {
			changes[c](pod)
		}
		_, err := w.AddPod(w.ctx, pod)
		require.NoError(t, err)
		switch r.IntN(4) {
		case 0:
			require.NoError(t, w.SetPodReady(w.ctx, namespace, pod.Name, corev1.ConditionFalse))
		case 1:
			require.NoError(t, w.Admin().CoreV1().Pods(namespace).Delete(w.ctx, pod.Name, metav1.DeleteOptions{}))
		}
	}
	for i := range 2 + r.IntN(3) {
		namespace, app := namespaces[r.IntN(2)], []string{"x", "y"}[r.IntN(2)]
		spec := atLeast(r.Int32N(4))
		spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		_, err := w.Admin().PolicyV1().PodDisruptionBudgets(namespace).Create(w.ctx, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("budget-", i)}, Spec: spec,
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	switch n % 3 {
	case 0:
		w.others(true)
	case 1:
		w.cordon(owner)
	}
	if n%2 == 0 {
		require.NoError(t, w.KillNode(w.ctx, w.nodes[len(w.nodes)-1]))
	}
	w.nodes = append(w.nodes, nodeName())
	return w
}

func (w *world) policy() fleet.Drain {
	yes := func() bool { return w.r.IntN(2) == 0 }
	p := fleet.Drain{DeleteEmptyDirData: yes(), Force: yes()}
	if yes() {
		p.Timeout = fleet.Duration(time.Minute)
	}
	if yes() {
		p.IgnoreDaemonSets = new(yes())
	}
	if yes() {
		p.Skip = "drain=no"
	}
	if yes() {
		p.SkipWaitForDelete = fleet.Duration(time.Nanosecond)
	}
	if yes() {
		p.GracePeriod = fleet.Lasting(time.Second)
	}
	return p
}

// many diagnoses so many at once that the whole cluster is read. Most are not there.
func (w *world) many(p fleet.Drain) map[string][]fleet.Finding {
	w.t.Helper()
	nodes := slices.Clone(w.nodes)
	for i := range 60 {
		nodes = append(nodes, fmt.Sprint("none-", i))
	}
	found, err := w.k.DiagnoseMany(w.ctx, nodes, p)
	require.NoError(w.t, err)
	require.Len(w.t, found, len(nodes))
	for _, node := range nodes[len(w.nodes):] {
		require.Equal(w.t, containermgr.NodeMissing, found[node][0].Cause)
		delete(found, node)
	}
	return found
}

// TestPages: a few nodes are no reason to read the pods of the whole cluster, and pages
// that are too large are read as smaller ones.
func TestPages(t *testing.T) {
	t.Parallel()
	const pods = 300
	large := strings.Repeat("x", 17<<10) // a whole page is just too large: each must be read within 10 s, on a busy machine, too
	var whole, ofNodes, pages atomic.Int64
	s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		node := func(name string) corev1.Node {
			return corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
		}
		q := r.URL.Query()
		switch {
		case strings.Contains(r.URL.Path, "/nodes/"):
			_ = json.NewEncoder(w).Encode(node(path.Base(r.URL.Path)))
		case strings.HasSuffix(r.URL.Path, "/nodes"):
			list := corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}}
			list.Items = []corev1.Node{node("n-0"), node("n-1")}
			_ = json.NewEncoder(w).Encode(list)
		case strings.HasSuffix(r.URL.Path, "/pods") && q.Get("fieldSelector") != "":
			ofNodes.Add(1)
			_ = json.NewEncoder(w).Encode(corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}})
		case strings.HasSuffix(r.URL.Path, "/pods"):
			pages.Add(1)
			limit, _ := strconv.Atoi(q.Get("limit"))
			from, _ := strconv.Atoi(q.Get("continue"))
			list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
			for i := from; i < min(from+limit, pods); i++ {
				pod := kubetest.Pod("default", fmt.Sprint("p-", i), "n-0")
				pod.Annotations = map[string]string{"large": large}
				pod.OwnerReferences = nil
				list.Items = append(list.Items, *pod)
			}
			if from+limit < pods {
				list.Continue = strconv.Itoa(from + limit)
			} else {
				whole.Add(1)
			}
			_ = json.NewEncoder(w).Encode(list)
		default:
			fmt.Fprint(w, `{"kind":"PodDisruptionBudgetList","apiVersion":"policy/v1"}`)
		}
	})
	k := newManager(t, s.options(t))
	names := make([]string, 60)
	for i := range names {
		names[i] = fmt.Sprint("n-", i)
	}
	_, err := k.DiagnoseMany(t.Context(), names[:20], fleet.Drain{})
	require.NoError(t, err)
	require.EqualValues(t, 20, ofNodes.Load())
	require.Zero(t, pages.Load())

	found, err := k.DiagnoseMany(t.Context(), names, fleet.Drain{})
	require.NoError(t, err)
	require.EqualValues(t, 20, ofNodes.Load(), "many are read as a whole")
	require.EqualValues(t, 1, whole.Load())
	unmanaged := slices.DeleteFunc(found["n-0"], func(f fleet.Finding) bool { return f.Cause != containermgr.Unmanaged })
	require.Len(t, unmanaged, pods, "each once")
	require.EqualValues(t, 1+(pods+61)/62, pages.Load(), "one that was too large, then those of a quarter")
}

// TestManyNodes: names that are none, and none at all.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	found, err := s.k.DiagnoseMany(s.ctx, []string{s.node, "fd00::1", "", s.node}, fleet.Drain{})
	require.NoError(t, err)
	require.Len(t, found, 3)
	require.Empty(t, found[s.node])
	for _, name := range []string{"fd00::1", ""} {
		alone, err := s.k.Diagnose(s.ctx, name, "", fleet.Drain{}, false)
		require.NoError(t, err)
		require.Equal(t, alone, found[name])
		require.Equal(t, containermgr.NodeMissing, alone[0].Cause)
		did, err := s.k.Restore(s.ctx, name, owner)
		require.NoError(t, err)
		require.Equal(t, containermgr.NothingToRestore, did)
		_, err = s.k.Cordon(s.ctx, name, owner, standing)
		require.Equal(t, fleet.NotFound, fleet.KindOf(err))
	}
	found, err = s.k.DiagnoseMany(s.ctx, nil, fleet.Drain{})
	require.NoError(t, err)
	require.Empty(t, found)
	_, err = s.k.DiagnoseMany(s.ctx, nil, fleet.Drain{Skip: "a in ("})
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))
}
