package containermgr_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

const owner = "op"

// pod describes one on the node of the space.
func (s *space) pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := kubetest.Pod(s.namespace, name, s.node)
	for _, f := range change {
		f(p)
	}
	return p
}

func (s *space) addPod(name string, change ...func(*corev1.Pod)) {
	s.t.Helper()
	_, err := s.AddPod(s.ctx, s.pod(name, change...))
	require.NoError(s.t, err)
}

// budget covers the pods that AddPod makes under that name.
func (s *space) budget(name, app string, spec policyv1.PodDisruptionBudgetSpec, healthy int32) {
	s.t.Helper()
	spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	_, err := s.AddBudget(s.ctx, s.namespace, name, spec, healthy)
	require.NoError(s.t, err)
}

func atLeast(n int32) policyv1.PodDisruptionBudgetSpec {
	return policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(n))}
}

func (s *space) diagnose(p fleet.Drain) []fleet.Finding {
	s.t.Helper()
	findings, err := s.k.Diagnose(s.ctx, s.node, owner, p, false)
	require.NoError(s.t, err)
	return findings
}

func (s *space) evict(p fleet.Drain) containermgr.Pass {
	s.t.Helper()
	pass, err := s.k.Evict(s.ctx, s.node, owner, p, containermgr.Pass{}, standing)
	require.NoError(s.t, err)
	return pass
}

// drain repeats passes until one is done.
func (s *space) drain(p fleet.Drain) {
	s.t.Helper()
	for {
		pass := s.evict(p)
		if pass.Done {
			return
		}
		require.Empty(s.t, pass.Refused)
		require.NoError(s.t, s.ctx.Err(), pass)
		select {
		case <-s.ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func unmanaged(p *corev1.Pod) { p.OwnerReferences = nil }

func emptyDir(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
}

func ofDaemonSet(p *corev1.Pod) { p.OwnerReferences[0].Kind = "DaemonSet" }

func finalized(p *corev1.Pod) { p.Finalizers = []string{"example.com/hold"} }

func grace(seconds int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &seconds }
}

// TestFixtures: each is diagnosed beforehand by the object's name, then ends right.
func TestFixtures(t *testing.T) {
	t.Parallel()
	type found struct {
		cause  string
		object string // within the space: "node", "pod NAME", "budget NAME"
		blocks bool
		passes bool
	}
	node := func(cause string, blocks, passes bool) found { return found{cause, "node", blocks, passes} }
	blockedBy := func(cause string) func(*testing.T, *space, containermgr.Pass) {
		return func(t *testing.T, _ *space, pass containermgr.Pass) {
			require.False(t, pass.Done)
			require.Empty(t, pass.Evicted)
			require.NotEmpty(t, pass.Blocked)
			require.Equal(t, cause, pass.Blocked[0].Cause, pass.Blocked[0].Detail)
			require.Equal(t, cause != containermgr.BudgetsOverlap, pass.Blocked[0].Passes)
		}
	}
	refused := func(cause string) func(*testing.T, *space, containermgr.Pass) {
		return func(t *testing.T, _ *space, pass containermgr.Pass) {
			require.False(t, pass.Done)
			require.Empty(t, pass.Evicted, "nothing is evicted while something is refused")
			require.Len(t, pass.Refused, 1)
			require.Equal(t, cause, pass.Refused[0].Cause)
			require.False(t, pass.Refused[0].Passes)
		}
	}
	var none []found
	for name, f := range map[string]struct {
		setup    func(*space)
		policy   fleet.Drain
		findings []found
		// first looks at the first pass; nil: it may be anything.
		first func(*testing.T, *space, containermgr.Pass)
		// mend is what somebody does about it, and with which policy it goes on.
		mend   func(*space)
		mended fleet.Drain
	}{
		"an empty node": {findings: none, first: func(t *testing.T, _ *space, pass containermgr.Pass) {
			require.True(t, pass.Done)
		}},
		"plain pods": {
			setup:    func(s *space) { s.addPod("a"); s.addPod("b") },
			findings: none,
			first: func(t *testing.T, s *space, pass containermgr.Pass) {
				require.Equal(t, []string{s.namespace + "/a", s.namespace + "/b"}, pass.Evicted)
			},
		},
		"a node that somebody else has cordoned": {
			setup:    func(s *space) { s.others(true); s.addPod("a") },
			findings: []found{node(containermgr.CordonedByOther, false, false)},
		},
		"a budget that can never allow one": {
			setup:    func(s *space) { s.addPod("a"); s.addPod("other"); s.budget("web", "a", atLeast(1), 1) },
			findings: []found{{containermgr.BudgetExhausted, "budget web", true, false}},
			first: func(t *testing.T, s *space, pass containermgr.Pass) {
				require.Equal(t, []string{s.namespace + "/other"}, pass.Evicted, "others go")
				require.Len(t, pass.Blocked, 1)
				require.Equal(t, containermgr.BudgetExhausted, pass.Blocked[0].Cause)
				require.Contains(t, pass.Blocked[0].Detail, "web", "the budget is named")
				require.Zero(t, pass.RetryAfter, "a budget is no throttle")
			},
			mend: func(s *space) {
				require.NoError(s.t, s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Delete(s.ctx, "web", metav1.DeleteOptions{}))
			},
		},
		"a budget whose pods are not ready": {
			setup: func(s *space) {
				for _, name := range []string{"a", "b", "c"} {
					s.addPod(name, func(p *corev1.Pod) { p.Labels["app"] = "web" })
				}
				require.NoError(s.t, s.SetPodReady(s.ctx, s.namespace, "a", corev1.ConditionFalse))
				require.NoError(s.t, s.SetPodReady(s.ctx, s.namespace, "b", corev1.ConditionFalse))
				s.budget("web", "web", atLeast(2), 1)
			},
			findings: []found{{containermgr.BudgetExhausted, "budget web", true, true}},
			first:    blockedBy(containermgr.BudgetExhausted),
			mend: func(s *space) {
				require.NoError(s.t, s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Delete(s.ctx, "web", metav1.DeleteOptions{}))
			},
		},
		"pods that are not ready, and a budget that lets those go": {
			setup: func(s *space) {
				s.addPod("a")
				require.NoError(s.t, s.SetPodReady(s.ctx, s.namespace, "a", corev1.ConditionFalse))
				spec := atLeast(1)
				spec.UnhealthyPodEvictionPolicy = new(policyv1.AlwaysAllow)
				s.budget("web", "a", spec, 0)
			},
			findings: none,
		},
		"a budget that cannot be computed": {
			// The pods' controller is not there, so nobody knows how many there should be.
			setup: func(s *space) {
				s.addPod("a")
				_, err := s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Create(s.ctx, &policyv1.PodDisruptionBudget{
					ObjectMeta: metav1.ObjectMeta{Name: "web"},
					Spec: policyv1.PodDisruptionBudgetSpec{
						MaxUnavailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
					},
				}, metav1.CreateOptions{})
				require.NoError(s.t, err)
				s.untilBudgetFailed("web")
			},
			findings: []found{{containermgr.BudgetNotComputed, "budget web", true, true}},
			first:    blockedBy(containermgr.BudgetExhausted),
			mend: func(s *space) {
				require.NoError(s.t, s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Delete(s.ctx, "web", metav1.DeleteOptions{}))
			},
		},
		"a budget that allows fewer than there are": {
			setup: func(s *space) {
				for _, name := range []string{"a", "b"} {
					s.addPod(name, func(p *corev1.Pod) { p.Labels["app"] = "web" })
				}
				s.budget("web", "web", atLeast(1), 2)
			},
			findings: []found{{containermgr.BudgetExhausted, "budget web", false, false}},
			first: func(t *testing.T, _ *space, pass containermgr.Pass) {
				require.Len(t, pass.Evicted, 1)
				require.Len(t, pass.Blocked, 1)
			},
			mend: func(s *space) {
				require.NoError(s.t, s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Delete(s.ctx, "web", metav1.DeleteOptions{}))
			},
		},
		"two budgets over one pod": {
			setup: func(s *space) {
				s.addPod("a")
				s.budget("one", "a", atLeast(0), 1)
				s.budget("two", "a", atLeast(0), 1)
			},
			findings: []found{{containermgr.BudgetsOverlap, "pod a", true, false}},
			first:    blockedBy(containermgr.BudgetsOverlap),
			mend: func(s *space) {
				require.NoError(s.t, s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Delete(s.ctx, "two", metav1.DeleteOptions{}))
			},
		},
		"a pending pod, whose budget does not count": {
			setup: func(s *space) {
				_, err := s.Admin().CoreV1().Pods(s.namespace).Create(s.ctx, s.pod("a", kubetest.Unplayed), metav1.CreateOptions{})
				require.NoError(s.t, err)
				s.budget("web", "a", atLeast(1), 0)
			},
			findings: none,
			first: func(t *testing.T, _ *space, pass containermgr.Pass) {
				require.Len(t, pass.Evicted, 1)
			},
			mend: func(s *space) {
				require.NoError(s.t, s.Admin().CoreV1().Pods(s.namespace).Delete(s.ctx, "a", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
			},
		},
		"a finalizer": {
			setup:    func(s *space) { s.addPod("a", finalized) },
			findings: []found{{containermgr.Finalizer, "pod a", true, false}},
			first: func(t *testing.T, _ *space, pass containermgr.Pass) {
				require.Len(t, pass.Evicted, 1)
			},
			mend: func(s *space) {
				require.Len(s.t, s.evict(fleet.Drain{}).Waiting, 1)
				_, err := s.Admin().CoreV1().Pods(s.namespace).Patch(s.ctx, "a", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
				require.NoError(s.t, err)
			},
		},
		"a finalizer that goes by itself": {
			setup: func(s *space) {
				s.addPod("a", func(p *corev1.Pod) { p.Finalizers = []string{"batch.kubernetes.io/job-tracking"} })
			},
			findings: none,
			mend: func(s *space) {
				_, err := s.Admin().CoreV1().Pods(s.namespace).Patch(s.ctx, "a", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
				require.NoError(s.t, err)
			},
		},
		"an unmanaged pod": {
			setup:    func(s *space) { s.addPod("a", unmanaged); s.addPod("b") },
			findings: []found{{containermgr.Unmanaged, "pod a", true, false}},
			first:    refused(containermgr.Unmanaged),
			mended:   fleet.Drain{Force: true},
		},
		"emptyDir": {
			setup:    func(s *space) { s.addPod("a", emptyDir) },
			findings: []found{{containermgr.EmptyDir, "pod a", true, false}},
			first:    refused(containermgr.EmptyDir),
			mended:   fleet.Drain{DeleteEmptyDirData: true},
		},
		"a volume of this node": {
			setup: func(s *space) {
				s.localVolume("data")
				s.addPod("a", func(p *corev1.Pod) {
					p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
						PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
					}}}
				})
			},
			findings: []found{{containermgr.LocalVolume, "pod a", false, false}},
		},
		"a daemon set": {
			setup:    func(s *space) { s.addPod("a", ofDaemonSet, emptyDir) },
			policy:   fleet.Drain{IgnoreDaemonSets: new(false)},
			findings: []found{{containermgr.DaemonSetPod, "pod a", true, false}},
			first:    refused(containermgr.DaemonSetPod),
		},
		"a pod of the kubelet's own": {
			setup: func(s *space) {
				s.addPod("a", unmanaged, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} })
			},
			findings: none,
			first:    func(t *testing.T, _ *space, pass containermgr.Pass) { require.True(t, pass.Done) },
		},
		"a finished pod": {
			setup: func(s *space) {
				s.addPod("a", unmanaged, emptyDir)
				_, err := s.Admin().CoreV1().Pods(s.namespace).Patch(s.ctx, "a", types.MergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`), metav1.PatchOptions{}, "status")
				require.NoError(s.t, err)
			},
			findings: none,
		},
		"pods to be skipped": {
			setup:    func(s *space) { s.addPod("a", unmanaged, func(p *corev1.Pod) { p.Labels["drain"] = "no" }) },
			policy:   fleet.Drain{Skip: "drain=no"},
			mended:   fleet.Drain{Skip: "drain=no"},
			findings: none,
			first:    func(t *testing.T, _ *space, pass containermgr.Pass) { require.True(t, pass.Done) },
		},
		"a pod that takes its time": {
			setup:    func(s *space) { s.addPod("a", grace(3600)) },
			policy:   fleet.Drain{Timeout: fleet.Duration(time.Minute)},
			findings: []found{{containermgr.GracePeriod, "pod a", true, false}},
			mended:   fleet.Drain{Timeout: fleet.Duration(time.Minute), GracePeriod: fleet.Lasting(time.Second)},
		},
		"a dead node": {
			setup:    func(s *space) { s.addPod("a"); require.NoError(s.t, s.KillNode(s.ctx, s.node)) },
			findings: []found{node(containermgr.NodeNotReady, true, true)},
			first: func(t *testing.T, _ *space, pass containermgr.Pass) {
				require.Len(t, pass.Evicted, 1)
			},
			mend: func(s *space) {
				require.Len(s.t, s.evict(fleet.Drain{}).Waiting, 1)
			},
			mended: fleet.Drain{SkipWaitForDelete: fleet.Duration(1)},
		},
		"a dead node with a budget": {
			setup: func(s *space) {
				s.addPod("a")
				require.NoError(s.t, s.KillNode(s.ctx, s.node))
				// What the node controller does to the pods of a dead node.
				require.NoError(s.t, s.SetPodReady(s.ctx, s.namespace, "a", corev1.ConditionFalse))
				s.budget("web", "a", atLeast(1), 0)
			},
			findings: []found{{containermgr.BudgetExhausted, "budget web", true, false}, node(containermgr.NodeNotReady, true, true)},
			first:    blockedBy(containermgr.BudgetExhausted),
			mend: func(s *space) {
				require.NoError(s.t, s.ReviveNode(s.ctx, s.node))
				require.NoError(s.t, s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Delete(s.ctx, "web", metav1.DeleteOptions{}))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t, kubetest.Shared(t))
			if f.setup != nil {
				f.setup(s)
			}
			before := s.get().Spec.Unschedulable
			findings := s.diagnose(f.policy)
			var got []found
			for _, finding := range findings {
				object := finding.Object
				switch {
				case object == "node "+s.node:
					object = "node"
				default:
					kind, rest, _ := cut(object)
					object = kind + " " + rest[len(s.namespace)+1:]
				}
				got = append(got, found{finding.Cause, object, finding.Blocks, finding.Passes})
				require.NotEmpty(t, finding.Detail)
			}
			require.Equal(t, f.findings, got, findings)
			require.Equal(t, before, s.get().Spec.Unschedulable, "the doctor touches nothing")

			s.cordon(owner)
			pass := s.evict(f.policy)
			if f.first != nil {
				f.first(t, s, pass)
			}
			if f.mend != nil {
				f.mend(s)
			}
			s.drain(f.mended)
			want := containermgr.Uncordoned
			if before {
				want = containermgr.KeptCordoned
			}
			s.restore(owner, want)
			s.requireState(before)
		})
	}
}

func cut(object string) (kind, rest string, ok bool) {
	for i := range object {
		if object[i] == ' ' {
			return object[:i], object[i+1:], true
		}
	}
	return object, "", false
}

// localVolume makes a claim that is bound to a disk of the node.
func (s *space) localVolume(claim string) {
	s.t.Helper()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	mode := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err := s.Admin().CoreV1().PersistentVolumes().Create(s.ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: mode,
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/srv"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{s.node}}},
			}}}},
		},
	}, metav1.CreateOptions{})
	require.NoError(s.t, err)
	_, err = s.Admin().CoreV1().PersistentVolumeClaims(s.namespace).Create(s.ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: claim},
		Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: mode, VolumeName: s.namespace, Resources: corev1.VolumeResourceRequirements{Requests: size}},
	}, metav1.CreateOptions{})
	require.NoError(s.t, err)
}

// untilBudgetFailed waits until the disruption controller has given up on it.
func (s *space) untilBudgetFailed(name string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		b, err := s.Admin().PolicyV1().PodDisruptionBudgets(s.namespace).Get(s.ctx, name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, c := range b.Status.Conditions {
			if c.Reason == policyv1.SyncFailedReason {
				return true
			}
		}
		return false
	}, kubetest.TestTimeout, 20*time.Millisecond)
}

// TestManyPods are more than fit on one page.
func TestManyPods(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	const pods = 120
	for i := range pods {
		_, err := s.Admin().CoreV1().Pods(s.namespace).Create(s.ctx, s.pod(fmt.Sprintf("pod-%03d", i)), metav1.CreateOptions{})
		require.NoError(t, err)
	}
	s.cordon(owner)
	require.Len(t, s.evict(fleet.Drain{}).Evicted, pods)
	s.drain(fleet.Drain{})
}

func TestEvictNeedsOurCordon(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	s.addPod("a")
	evict := func() error {
		pass, err := s.k.Evict(s.ctx, s.node, owner, fleet.Drain{}, containermgr.Pass{}, standing)
		require.Empty(t, pass.Evicted)
		return err
	}
	require.Equal(t, fleet.Conflict, fleet.KindOf(evict()), "never cordoned")
	s.others(true)
	require.Equal(t, fleet.Conflict, fleet.KindOf(evict()), "cordoned by somebody else")
	s.others(false)
	s.cordon("another")
	err := evict()
	require.Equal(t, fleet.Conflict, fleet.KindOf(err), "cordoned by another owner")
	require.ErrorContains(t, err, "another")
	findings := s.diagnose(fleet.Drain{})
	require.Equal(t, containermgr.CordonHeld, findings[0].Cause)
	s.restore("another", containermgr.Uncordoned)
	s.cordon(owner)
	s.others(false)
	require.Equal(t, fleet.Conflict, fleet.KindOf(evict()), "uncordoned under us")
	s.cordon(owner)
	s.drain(fleet.Drain{})
}

func TestNodeDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	s.addPod("a")
	s.cordon(owner)
	s.remove()
	_, err := s.k.Evict(s.ctx, s.node, owner, fleet.Drain{}, containermgr.Pass{}, standing)
	require.Equal(t, fleet.NotFound, fleet.KindOf(err))
	findings := s.diagnose(fleet.Drain{})
	require.Len(t, findings, 1)
	require.Equal(t, containermgr.NodeMissing, findings[0].Cause)
	s.restore(owner, containermgr.NothingToRestore)
}

func TestBadSkip(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	_, err := s.k.Diagnose(s.ctx, s.node, owner, fleet.Drain{Skip: "a in ("}, false)
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))
	_, err = s.k.Evict(s.ctx, s.node, owner, fleet.Drain{Skip: "a in ("}, containermgr.Pass{}, standing)
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))
}

func TestReadyKnowsTheBoot(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	notYet := func(left, says string) {
		t.Helper()
		var err error
		for patience := 100 * time.Millisecond; patience < time.Minute; patience *= 2 { // a busy server may not have answered
			short, cancel := context.WithTimeout(s.ctx, patience)
			err = s.k.Ready(short, s.node, containermgr.Wait{Left: left})
			cancel()
			require.Equal(t, fleet.NotReady, fleet.KindOf(err), err)
			if !strings.Contains(err.Error(), "has not answered") {
				break
			}
		}
		require.ErrorContains(t, err, says)
	}
	require.NoError(t, s.SetBootID(s.ctx, s.node, ""))
	notYet("one", "since its host booted")
	require.NoError(t, s.k.Ready(s.ctx, s.node, containermgr.Wait{}))
	require.NoError(t, s.SetBootID(s.ctx, s.node, "one"))
	require.NoError(t, s.k.Ready(s.ctx, s.node, containermgr.Wait{Left: "zero"}))
	notYet("one", "since its host booted")
	done := make(chan error, 1)
	go func() { done <- s.k.Ready(s.ctx, s.node, containermgr.Wait{Left: "one"}) }()
	require.NoError(t, s.SetBootID(s.ctx, s.node, "two"))
	require.NoError(t, <-done)
	require.NoError(t, s.KillNode(s.ctx, s.node))
	notYet("", "Kubelet stopped posting node status")
	notYet("one", "Kubelet stopped posting node status")
	require.NoError(t, s.ReviveNode(s.ctx, s.node))
	require.NoError(t, s.k.Ready(s.ctx, s.node, containermgr.Wait{Left: "one"}))
}

// TestBudgetIsHeld drains a node whose pods a controller makes anew elsewhere, and
// counts from the server's side.
func TestBudgetIsHeld(t *testing.T) {
	t.Parallel()
	c := kubetest.Shared(t)
	s := newSpace(t, c)
	const replicas, least = 8, 6
	label := map[string]string{"app": "web"}
	template := kubetest.Pod(s.namespace, "web", "").Spec
	nodes := []string{s.node, nodeName(), nodeName()}
	for _, n := range nodes {
		require.NoError(t, c.AddNode(s.ctx, n))
		_, err := c.Admin().CoreV1().Nodes().Patch(s.ctx, n, types.MergePatchType, []byte(`{"metadata":{"labels":{"space":"`+s.namespace+`"}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	template.NodeSelector = map[string]string{"space": s.namespace}
	_, err := c.Admin().AppsV1().ReplicaSets(s.namespace).Create(s.ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: label},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: label}, Spec: template},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	s.budget("web", "web", atLeast(least), replicas)

	list, err := c.Admin().CoreV1().Pods(s.namespace).List(s.ctx, metav1.ListOptions{})
	require.NoError(t, err)
	ready := map[types.UID]bool{}
	for _, p := range list.Items {
		ready[p.UID] = true
	}
	watch, err := c.Admin().CoreV1().Pods(s.namespace).Watch(s.ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(t, err)
	lowest := make(chan int)
	go func() {
		low := len(ready)
		for event := range watch.ResultChan() {
			p, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			delete(ready, p.UID)
			if event.Type != "DELETED" && p.DeletionTimestamp == nil && kubetest.PodReady(p) {
				ready[p.UID] = true
			}
			low = min(low, len(ready))
		}
		lowest <- low
	}()
	for _, n := range nodes {
		s.node = n
		s.cordon(owner)
		s.drain(fleet.Drain{})
		s.restore(owner, containermgr.Uncordoned)
	}
	watch.Stop()
	low := <-lowest
	require.GreaterOrEqual(t, low, least)
	require.Less(t, low, replicas, "something was evicted")
}

// TestExpiredToken: what was begun with a token is ended with the next.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	c := kubetest.Shared(t)
	s := newSpace(t, c)
	account, err := c.AddAccount(s.ctx, "expires-"+s.namespace, containermgr.Rules()...)
	require.NoError(t, err)
	options := byToken(t, c, account)
	s.k = newManager(t, options)
	s.cordon(owner)
	require.NoError(t, account.Expire(s.ctx, options["token"].(string)))
	var refusal error
	require.Eventually(t, func() bool { // the server remembers a good token for 10 s
		_, refusal = s.k.Restore(s.ctx, s.node, owner)
		return fleet.KindOf(refusal) == fleet.Invalid || s.get().Annotations[containermgr.CordonAnnotation] == ""
	}, kubetest.TestTimeout, 20*time.Millisecond)
	require.Equal(t, fleet.Invalid, fleet.KindOf(refusal), refusal)
	require.ErrorContains(t, refusal, "options.token")
	require.ErrorContains(t, refusal, "expired")
	s.k = newManager(t, byToken(t, c, account))
	s.restore(owner, containermgr.Uncordoned)
	s.requireState(false)
}

// TestRights: without one of Rules, Check names it.
func TestRights(t *testing.T) {
	t.Parallel()
	c, ctx := kubetest.Shared(t), testContext(t)
	rules := containermgr.Rules()
	rules[0].Verbs = []string{"get", "create"}
	account, err := c.AddAccount(ctx, "weak-"+nodeName(), rules[:2]...)
	require.NoError(t, err)
	err = newManager(t, byToken(t, c, account)).Check(ctx)
	require.Equal(t, fleet.Invalid, fleet.KindOf(err), err)
	require.ErrorContains(t, err, "list nodes, patch nodes, delete nodes, create pods/eviction, list persistentvolumeclaims, get persistentvolumes, list persistentvolumes, list poddisruptionbudgets")
}
