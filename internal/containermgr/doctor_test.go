package containermgr_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
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

// TestDiagnose has what a real server shows only now and then; TestFixtures has
// the rest.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	node := func(change ...func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{}}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		for _, f := range change {
			f(n)
		}
		return n
	}
	marked := func(mark string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Annotations[containermgr.CordonAnnotation], n.Spec.Unschedulable = mark, true }
	}
	pod := func(change ...func(*corev1.Pod)) corev1.Pod {
		p := kubetest.Pod("default", "a", "n")
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		for _, f := range change {
			f(p)
		}
		return *p
	}
	terminating := func(since time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now.Add(-since)} }
	}
	type summary struct {
		cause  string
		blocks bool
		passes bool
	}
	for name, c := range map[string]struct {
		s      containermgr.Snapshot
		policy fleet.Drain
		want   []summary
	}{
		"no node":                        {s: containermgr.Snapshot{}, want: []summary{{containermgr.NodeMissing, true, false}}},
		"our own cordon":                 {s: containermgr.Snapshot{Node: node(marked(`{"owner":"op"}`))}},
		"our own over that of others":    {s: containermgr.Snapshot{Node: node(marked(`{"owner":"op","prior":true}`))}, want: []summary{{containermgr.CordonedByOther, false, false}}},
		"cordon of another owner":        {s: containermgr.Snapshot{Node: node(marked(`{"owner":"op-2"}`))}, want: []summary{{containermgr.CordonHeld, true, true}}},
		"a mark that cannot be read":     {s: containermgr.Snapshot{Node: node(marked("?"))}, want: []summary{{containermgr.CordonHeld, true, false}}},
		"a node that has never reported": {s: containermgr.Snapshot{Node: node(func(n *corev1.Node) { n.Status.Conditions = nil })}, want: []summary{{containermgr.NodeNotReady, true, true}}},
		"a dead node, and it is known": {
			s:      containermgr.Snapshot{Node: node(func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })},
			policy: fleet.Drain{SkipWaitForDelete: fleet.Duration(time.Minute)}, want: []summary{{containermgr.NodeNotReady, false, false}},
		},
		"a pod on its way":              {s: containermgr.Snapshot{Node: node(), Pods: []corev1.Pod{pod(terminating(time.Second))}}},
		"a pod that should be gone":     {s: containermgr.Snapshot{Node: node(), Pods: []corev1.Pod{pod(terminating(time.Hour))}}, want: []summary{{containermgr.Terminating, true, true}}},
		"such a one is not waited for":  {s: containermgr.Snapshot{Node: node(), Pods: []corev1.Pod{pod(terminating(time.Hour))}}, policy: fleet.Drain{SkipWaitForDelete: fleet.Duration(time.Minute)}},
		"unmanaged and on its way":      {s: containermgr.Snapshot{Node: node(), Pods: []corev1.Pod{pod(unmanaged, terminating(time.Second))}}},
		"the default grace is too long": {s: containermgr.Snapshot{Node: node(), Pods: []corev1.Pod{pod(func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = nil })}}, policy: fleet.Drain{Timeout: fleet.Duration(10 * time.Second)}, want: []summary{{containermgr.GracePeriod, true, false}}},
		"a budget nobody has looked at": {
			s: containermgr.Snapshot{Node: node(), Pods: []corev1.Pod{pod()}, Budgets: []policyv1.PodDisruptionBudget{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Generation: 2},
				Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}},
				Status:     policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 5},
			}}},
			want: []summary{{containermgr.BudgetNotComputed, true, true}},
		},
		"budgets of other namespaces and without a selector": {
			s: containermgr.Snapshot{Node: node(), Pods: []corev1.Pod{pod()}, Budgets: []policyv1.PodDisruptionBudget{
				{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "a"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}},
			}},
		},
		"what blocks comes first": {
			s:    containermgr.Snapshot{Node: node(func(n *corev1.Node) { n.Spec.Unschedulable = true }), Pods: []corev1.Pod{pod(unmanaged)}},
			want: []summary{{containermgr.Unmanaged, true, false}, {containermgr.CordonedByOther, false, false}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.s.At = now
			findings, err := containermgr.Diagnose(c.s, "n", "op", c.policy)
			require.NoError(t, err)
			var got []summary
			for _, f := range findings {
				got = append(got, summary{f.Cause, f.Blocks, f.Passes})
				require.NotEmpty(t, f.Object)
				require.NotEmpty(t, f.Detail)
			}
			require.Equal(t, c.want, got, findings)
		})
	}
}

// TestWordsOfABudget: they lead to what can be mended.
func TestWordsOfABudget(t *testing.T) {
	t.Parallel()
	pod := kubetest.Pod("default", "a", "n")
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for says, s := range map[string]policyv1.PodDisruptionBudgetStatus{
		"allows no eviction now: it needs 2 healthy pods, and 1 of 3 are; look why the others are not":                          {DesiredHealthy: 2, CurrentHealthy: 1, ExpectedPods: 3},
		"allows no eviction now: it needs 2 healthy pods, and 2 of 3 are; look why the others are not":                          {DesiredHealthy: 2, CurrentHealthy: 2, ExpectedPods: 3},
		"allows no eviction now: it needs 3 healthy pods, and more have just been told to go; wait until they are up elsewhere": {DesiredHealthy: 3, CurrentHealthy: 4, ExpectedPods: 4},
		"can never allow an eviction: it wants 3 healthy pods and there are to be 3; change it or scale up":                     {DesiredHealthy: 3, CurrentHealthy: 3, ExpectedPods: 3},
	} {
		b := policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}}, Status: s}
		findings, err := containermgr.Diagnose(containermgr.Snapshot{Node: node, Pods: []corev1.Pod{*pod}, Budgets: []policyv1.PodDisruptionBudget{b}}, "n", "op", fleet.Drain{})
		require.NoError(t, err)
		require.Len(t, findings, 1)
		require.Equal(t, says, findings[0].Detail)
	}
}

// TestTheDoctorIsRight makes pods and budgets at random, and compares what the
// doctor says with what the Eviction API then does.
func TestTheDoctorIsRight(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range 12 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			s := newSpace(t, kubetest.Shared(t))
			apps := []string{"x", "y"}
			healthy := map[string]int32{}
			for p := range 1 + r.IntN(7) {
				name, app := fmt.Sprint("pod-", p), apps[r.IntN(len(apps))]
				s.addPod(name, func(p *corev1.Pod) { p.Labels = map[string]string{"app": app} })
				if r.IntN(3) == 0 {
					require.NoError(t, s.SetPodReady(s.ctx, s.namespace, name, corev1.ConditionFalse))
				} else {
					healthy[app]++
				}
			}
			for b := range r.IntN(4) {
				app := apps[r.IntN(len(apps))]
				// Not 0: a pod that is not ready then takes from the budget what the
				// controller gives back in its own time.
				spec := atLeast(1 + r.Int32N(4))
				if r.IntN(3) == 0 {
					spec.UnhealthyPodEvictionPolicy = new(policyv1.AlwaysAllow)
				}
				s.budget(fmt.Sprint("budget-", b), app, spec, healthy[app])
			}
			findings := s.diagnose(fleet.Drain{})
			s.cordon(owner)
			pass := s.evict(fleet.Drain{})
			overlapping, blocked := map[string]bool{}, map[string]bool{}
			for _, f := range pass.Blocked {
				blocked[f.Pods[0]] = true
				if f.Cause == containermgr.BudgetsOverlap {
					overlapping[f.Pods[0]] = true
				}
			}
			for _, f := range findings {
				switch {
				case f.Cause == containermgr.BudgetsOverlap:
					require.True(t, overlapping[f.Pods[0]], "%v but %v", f, pass)
					delete(overlapping, f.Pods[0])
					delete(blocked, f.Pods[0])
				case f.Blocks:
					for _, p := range f.Pods {
						require.True(t, blocked[p], "%v but %v", f, pass)
						delete(blocked, p)
					}
				default: // some of them go, and some do not
					require.True(t, slices.ContainsFunc(f.Pods, func(p string) bool { return blocked[p] }), "%v but %v", f, pass)
					require.True(t, slices.ContainsFunc(f.Pods, func(p string) bool { return !blocked[p] }), "%v but %v", f, pass)
					for _, p := range f.Pods {
						delete(blocked, p)
					}
				}
			}
			require.Empty(t, blocked, "blocked, and the doctor had not said so: %v", findings)
			require.Empty(t, overlapping)
		})
	}
}
