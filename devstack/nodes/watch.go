package nodes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"commissaire/internal/containermgr"
	"commissaire/internal/kubetest"
)

// Node is what is kept of a node.
type Node struct {
	Name   string
	UID    types.UID
	Closed bool   // spec.unschedulable
	Mark   string // the annotation of our cordon, "" for none
	BootID string // of the boot from which its kubelet has reported
	Lost   bool   // the node controller has not heard of it for long, and says so
}

// Owner is who has cordoned the node, "" when nobody of ours has.
func (n Node) Owner() string {
	var c containermgr.Cordon
	if n.Mark == "" {
		return ""
	}
	if err := json.Unmarshal([]byte(n.Mark), &c); err != nil {
		return "?"
	}
	return c.Owner
}

// Pod is what is kept of a pod.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Node            string
	Labels          map[string]string
	Running         bool
	Ready           bool // the condition
	Ending          bool // it was told to go
	Evicted         bool // by the Eviction API
	held            bool // nobody plays its kubelet's part
}

// Healthy is what disruption budgets count.
func (p Pod) Healthy() bool { return p.Running && p.Ready && !p.Ending }

// Budget is what is kept of a disruption budget.
type Budget struct {
	Namespace, Name string
	Wants           int32 // healthy pods, as the disruption controller has computed
	Allowed         int32
	selector        labels.Selector
}

func (b Budget) covers(p Pod) bool {
	return b.Namespace == p.Namespace && b.selector.Matches(labels.Set(p.Labels))
}

// event is one change. What has changed is set; gone says that it was deleted.
type event struct {
	revision uint64
	at       time.Time // when it was seen
	gone     bool
	node     *Node
	pod      *Pod
	budget   *Budget
}

// Watch records every change of the nodes, pods and budgets of a cluster. etcd counts
// changes of all kinds by one number, the resource version, so that three watches make
// one order. Its methods are safe for concurrent use.
type Watch struct {
	kube *kubetest.Cluster
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	nodes   map[string]Node
	pods    map[string]Pod
	budgets map[string]Budget
	seen    map[string]uint64 // the last revision of each object
	events  []event
	others  map[uint64]bool // changes of nodes by Cordon and Uncordon
	broken  error
}

// Observe begins to watch. It returns when it has seen everything once; the caller
// closes it.
func Observe(ctx context.Context, kube *kubetest.Cluster) (*Watch, error) {
	w := &Watch{kube: kube, nodes: map[string]Node{}, pods: map[string]Pod{}, budgets: map[string]Budget{}, seen: map[string]uint64{}, others: map[uint64]bool{}}
	work, stop := context.WithCancel(context.Background())
	w.stop = stop
	for _, f := range w.feeds(kube.Admin()) {
		from, err := f.list(ctx)
		if err != nil {
			w.Close()
			return nil, err
		}
		w.wg.Go(func() { w.follow(work, f, from) })
	}
	return w, nil
}

// Close ends the watch; what it has recorded stays.
func (w *Watch) Close() {
	w.stop()
	w.wg.Wait()
}

// feed is one kind of object.
type feed struct {
	name  string
	list  func(context.Context) (revision string, err error) // puts all there are on record
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func (w *Watch) feeds(api kubernetes.Interface) []feed {
	all := metav1.ListOptions{}
	return []feed{
		{"nodes", func(ctx context.Context) (string, error) {
			list, err := api.CoreV1().Nodes().List(ctx, all)
			return relist(w, w.nodes, list, err, list.Items)
		}, api.CoreV1().Nodes().Watch},
		{"pods", func(ctx context.Context) (string, error) {
			list, err := api.CoreV1().Pods("").List(ctx, all)
			return relist(w, w.pods, list, err, list.Items)
		}, api.CoreV1().Pods("").Watch},
		{"budgets", func(ctx context.Context) (string, error) {
			list, err := api.PolicyV1().PodDisruptionBudgets("").List(ctx, all)
			return relist(w, w.budgets, list, err, list.Items)
		}, api.PolicyV1().PodDisruptionBudgets("").Watch},
	}
}

// relist sees every object of a list, and that those that it lacks are gone.
func relist[Kept, Object any](w *Watch, kept map[string]Kept, list metav1.ListInterface, err error, items []Object) (string, error) {
	if err != nil {
		return "", err
	}
	there := map[string]bool{}
	for i := range items {
		object := any(&items[i]).(metav1.Object)
		there[key(object.GetNamespace(), object.GetName())] = true
		w.see(object, false)
	}
	w.mu.Lock()
	missing := slices.DeleteFunc(slices.Collect(maps.Keys(kept)), func(k string) bool { return there[k] })
	w.mu.Unlock()
	revision, err := strconv.ParseUint(list.GetResourceVersion(), 10, 64)
	for _, k := range missing {
		w.miss(any(kept), k, revision)
	}
	return list.GetResourceVersion(), err
}

// miss notes that an object went while nobody watched.
func (w *Watch) miss(kept any, k string, revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := event{revision: revision, at: time.Now(), gone: true}
	switch kept := kept.(type) {
	case map[string]Node:
		n := kept[k]
		e.node = &n
	case map[string]Pod:
		p := kept[k]
		e.pod = &p
	case map[string]Budget:
		b := kept[k]
		e.budget = &b
	}
	w.keep(e)
}

// follow watches one kind until ctx ends. An apiserver that was restarted does not
// know what its predecessor's last answers would have been. Then what there is now is
// compared with what was there, and only states in between are lost: nothing changes
// while there is no apiserver.
func (w *Watch) follow(ctx context.Context, f feed, from string) {
	const again = 50 * time.Millisecond
	for ctx.Err() == nil {
		stream, err := f.watch(ctx, metav1.ListOptions{ResourceVersion: from, AllowWatchBookmarks: true})
		if err == nil {
			from, err = w.drain(ctx, stream, from)
		}
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			if revision, err := f.list(ctx); err == nil {
				from = revision
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// drain sees what a stream brings and gives the revision to go on from.
func (w *Watch) drain(ctx context.Context, stream watch.Interface, from string) (string, error) {
	defer stream.Stop()
	for {
		select {
		case <-ctx.Done():
			return from, ctx.Err()
		case e, ok := <-stream.ResultChan():
			if !ok {
				return from, nil
			}
			if e.Type == watch.Error {
				return from, apierrors.FromObject(e.Object)
			}
			object, ok := e.Object.(metav1.Object)
			if !ok {
				return from, fmt.Errorf("a watch brought %T", e.Object)
			}
			from = object.GetResourceVersion()
			if e.Type != watch.Bookmark {
				w.see(object, e.Type == watch.Deleted)
			}
		}
	}
}

// see puts an object on record.
func (w *Watch) see(object metav1.Object, gone bool) {
	revision, err := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	e := event{revision: revision, at: time.Now(), gone: gone}
	switch o := object.(type) {
	case *corev1.Node:
		e.node = nodeOf(o)
	case *corev1.Pod:
		e.pod = podOf(o)
	case *policyv1.PodDisruptionBudget:
		var wrong error
		e.budget, wrong = budgetOf(o)
		err = errors.Join(err, wrong)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.broken = cmp.Or(w.broken, err)
		return
	}
	w.keep(e)
}

// keep adds an event unless it tells nothing new. The caller holds mu.
func (w *Watch) keep(e event) {
	news := false
	switch {
	case e.node != nil:
		news = put(w, w.nodes, "node", e.node.Name, *e.node, e)
	case e.pod != nil:
		news = put(w, w.pods, "pod", key(e.pod.Namespace, e.pod.Name), *e.pod, e)
	case e.budget != nil:
		news = put(w, w.budgets, "budget", key(e.budget.Namespace, e.budget.Name), *e.budget, e)
	}
	if news {
		w.events = append(w.events, e)
	}
}

// put makes v what is known, and says whether that is news. Old news come when a
// list follows a watch.
func put[T any](w *Watch, kept map[string]T, kind, k string, v T, e event) bool {
	old, known := kept[k]
	if id := kind + " " + k; e.revision < w.seen[id] {
		return false
	} else {
		w.seen[id] = e.revision
	}
	if e.gone {
		delete(kept, k)
		return known
	}
	kept[k] = v
	return !known || !reflect.DeepEqual(old, v)
}

func nodeOf(n *corev1.Node) *Node {
	return &Node{
		Name: n.Name, UID: n.UID, Closed: n.Spec.Unschedulable, Mark: n.Annotations[containermgr.CordonAnnotation],
		BootID: n.Status.NodeInfo.BootID,
		Lost: slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown
		}),
	}
}

func podOf(p *corev1.Pod) *Pod {
	out := &Pod{
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: p.Spec.NodeName, Labels: p.Labels,
		Running: p.Status.Phase == corev1.PodRunning, Ready: kubetest.PodReady(p), Ending: p.DeletionTimestamp != nil,
		held: kubetest.Held(p),
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "EvictionByEvictionAPI" {
			out.Evicted = true
		}
	}
	return out
}

func budgetOf(b *policyv1.PodDisruptionBudget) (*Budget, error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	return &Budget{Namespace: b.Namespace, Name: b.Name, Wants: b.Status.DesiredHealthy, Allowed: b.Status.DisruptionsAllowed, selector: selector}, err
}

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// Err is why the record is not whole, if it is not.
func (w *Watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// Node gives a node as it is now.
func (w *Watch) Node(name string) (Node, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.nodes[name]
	return n, ok
}

// PodsOn gives the pods of a node, by their names.
func (w *Watch) PodsOn(node string) []Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var pods []Pod
	for _, p := range w.pods {
		if p.Node == node {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(key(a.Namespace, a.Name), key(b.Namespace, b.Name)) })
	return pods
}

// Cordon closes a node as somebody else would.
func (w *Watch) Cordon(ctx context.Context, node string) error {
	return w.Patch(ctx, node, `{"spec":{"unschedulable":true}}`)
}

// Uncordon opens a node as somebody else would.
func (w *Watch) Uncordon(ctx context.Context, node string) error {
	return w.Patch(ctx, node, `{"spec":{"unschedulable":false}}`)
}

// Patch merges a change into a node, which is not taken for ours. It returns when the
// change was seen.
func (w *Watch) Patch(ctx context.Context, node, patch string) error {
	n, err := w.kube.Admin().CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		return err
	}
	revision, err := strconv.ParseUint(n.ResourceVersion, 10, 64)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.others[revision] = true
	w.mu.Unlock()
	for {
		w.mu.Lock()
		seen := w.seen["node "+node] >= revision
		w.mu.Unlock()
		if seen {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
