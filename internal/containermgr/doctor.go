package containermgr

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"commissaire/internal/fleet"
)

// Causes of findings: what can stand in the way.
const (
	NodeMissing          = "node_missing"          // no such node
	NodeNotReady         = "node_not_ready"        // its kubelet does not answer, so pods cannot end
	CordonedByOther      = "cordoned"              // does not block; the cordon stays afterwards
	CordonHeld           = "cordon_held"           // by another owner of ours
	BudgetExhausted      = "budget"                // a PodDisruptionBudget allows too little
	BudgetsOverlap       = "budgets_overlap"       // two of them match one pod
	BudgetNotComputed    = "budget_not_computed"   // nobody has counted its pods
	Finalizer            = "finalizer"             // somebody must let go of a pod first
	Terminating          = "terminating"           // a pod should have been gone by now
	EmptyDir             = "empty_dir"             // data would be lost
	LocalVolume          = "local_volume"          // does not block; the pod cannot run anywhere else
	Unmanaged            = "unmanaged"             // nobody would make the pod anew
	DaemonSetPod         = "daemon_set"            // it would come back at once
	GracePeriod          = "grace_period"          // a pod may take longer to end than there is time
	NamespaceTerminating = "namespace_terminating" // the pod goes with its namespace
	EvictionRefused      = "eviction_refused"      // by the server, in its own words
)

// Snapshot is what a diagnosis is made from.
type Snapshot struct {
	Node    *corev1.Node // nil when there is none
	Pods    []corev1.Pod // those on the node
	Budgets []policyv1.PodDisruptionBudget
	// Local has the names of persistent volumes that only the node has, by
	// "namespace/claim".
	Local map[string]string
	At    time.Time
}

// graceSlack is how long after its grace period a kubelet may take to have a pod
// gone.
const graceSlack = 30 * time.Second

// jobTracking is a finalizer that the job controller takes away by itself.
const jobTracking = "batch.kubernetes.io/job-tracking"

// Diagnose reads what Snapshot holds, and nothing else. A node is looked at again every
// other second while it waits, but its volumes are not.
func (k *Kubernetes) Diagnose(ctx context.Context, node, owner string, p fleet.Drain, again bool) ([]fleet.Finding, error) {
	s := Snapshot{At: time.Now()}
	var err error
	if s.Node, err = k.node(ctx, node); fleet.KindOf(err) == fleet.NotFound {
		return Diagnose(s, node, owner, p)
	} else if err != nil {
		return nil, err
	}
	if s.Pods, err = k.podsOn(ctx, node); err != nil {
		return nil, err
	}
	for _, namespace := range namespacesOf(s.Pods) {
		budgets, err := k.budgetsIn(ctx, namespace)
		if err != nil {
			return nil, err
		}
		s.Budgets = append(s.Budgets, budgets...)
	}
	if !again {
		if s.Local, err = k.localVolumes(ctx, s.Pods); err != nil {
			return nil, err
		}
	}
	return Diagnose(s, node, owner, p)
}

func (k *Kubernetes) budgetsIn(ctx context.Context, namespace string) (budgets []policyv1.PodDisruptionBudget, err error) {
	list := k.client.PolicyV1().PodDisruptionBudgets(namespace).List
	err = pages(ctx, k, "list the disruption budgets of namespace "+namespace, metav1.ListOptions{}, list, func(page *policyv1.PodDisruptionBudgetList) {
		budgets = append(budgets, page.Items...)
	})
	return budgets, err
}

// Diagnose names what would stand in the way of a drain of node for owner, what
// blocks first. It computes only. The error is a policy that is not right.
func Diagnose(s Snapshot, node, owner string, p fleet.Drain) ([]fleet.Finding, error) {
	skip, err := skipped(p)
	if err != nil {
		return nil, err
	}
	if s.Node == nil {
		return []fleet.Finding{{Cause: NodeMissing, Object: "node " + node, Detail: "is not registered; bootstrap its host", Blocks: true}}, nil
	}
	findings := diagnoseNode(s.Node, owner, p)
	var going []*corev1.Pod
	for i := range s.Pods {
		pod := &s.Pods[i]
		v, refused := judge(pod, p, skip, s.At)
		switch v {
		case leave:
			continue
		case refuse:
			findings = append(findings, refused)
		case evict:
			going = append(going, pod)
			findings = append(findings, diagnoseVolumes(pod, s.Local)...)
		}
		findings = append(findings, diagnosePod(pod, p, s.At)...)
	}
	findings = append(findings, diagnoseBudgets(s.Budgets, going)...)
	slices.SortStableFunc(findings, func(a, b fleet.Finding) int {
		if a.Blocks != b.Blocks {
			if a.Blocks {
				return -1
			}
			return 1
		}
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Cause, b.Cause))
	})
	return findings, nil
}

func diagnoseNode(n *corev1.Node, owner string, p fleet.Drain) (findings []fleet.Finding) {
	add := func(cause string, blocks, passes bool, format string, args ...any) {
		findings = append(findings, fleet.Finding{Cause: cause, Object: "node " + n.Name, Detail: fmt.Sprintf(format, args...), Blocks: blocks, Passes: passes})
	}
	switch held, err := markOf(n); {
	case err != nil:
		add(CordonHeld, true, false, "bears a mark of a cordon, %s, that cannot be read; remove it if nothing works on the node", CordonAnnotation)
	case held != nil && held.Owner != owner:
		add(CordonHeld, true, true, "has been cordoned for %s since %s; wait for its end", held.Owner, held.Since.Format(time.RFC3339))
		findings[len(findings)-1].Owner = held.Owner
	case held == nil && n.Spec.Unschedulable, held != nil && held.Prior:
		add(CordonedByOther, false, false, "has been cordoned by somebody else, and stays so afterwards")
	}
	if why, waits := lacking(n, Wait{}), p.SkipWaitForDelete == 0; why != "" {
		add(NodeNotReady, waits, waits, "%s: pods on it cannot end; bring it back, or do not wait for pods that are terminating", why)
	}
	return findings
}

// diagnosePod looks at what would keep a pod after it has been told to go.
func diagnosePod(pod *corev1.Pod, p fleet.Drain, now time.Time) (findings []fleet.Finding) {
	add := func(cause string, passes bool, format string, args ...any) {
		findings = append(findings, fleet.Finding{Cause: cause, Object: podObject(pod), Pods: []string{podName(pod)}, Detail: fmt.Sprintf(format, args...), Blocks: true, Passes: passes})
	}
	for _, finalizer := range pod.Finalizers {
		if finalizer != jobTracking {
			add(Finalizer, false, "has the finalizer %s: it stays until what set that takes it away", finalizer)
		}
	}
	if end := pod.DeletionTimestamp; end != nil {
		if now.Sub(end.Time) > graceSlack {
			add(Terminating, true, "should have been gone since %s; its node or a finalizer holds it", end.UTC().Format(time.RFC3339))
		}
		return findings
	}
	if grace, limit := graceOf(pod, p), timeout(p); grace > limit && !finished(pod) {
		add(GracePeriod, false, "may take %s to end, longer than the %s of the whole drain; shorten its grace period, or give more time", grace, limit)
	}
	return findings
}

func graceOf(pod *corev1.Pod, p fleet.Drain) time.Duration {
	switch {
	case p.GracePeriod != nil:
		return time.Duration(*p.GracePeriod)
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second // the API's own default
}

// diagnoseBudgets decides as the Eviction API would, one pod after another (pkg/
// registry/core/pod/storage/eviction.go of Kubernetes).
func diagnoseBudgets(budgets []policyv1.PodDisruptionBudget, pods []*corev1.Pod) (findings []fleet.Finding) {
	held := make([][]*corev1.Pod, len(budgets)) // the pods that each budget has to allow
	for _, pod := range pods {
		if finished(pod) || pod.Status.Phase == corev1.PodPending {
			continue // budgets do not count
		}
		var matching []int
		for i := range budgets {
			if covers(&budgets[i], pod) {
				matching = append(matching, i)
			}
		}
		switch {
		case len(matching) > 1:
			var names []string
			for _, i := range matching {
				names = append(names, budgets[i].Name)
			}
			findings = append(findings, fleet.Finding{
				Cause: BudgetsOverlap, Object: podObject(pod), Pods: []string{podName(pod)}, Blocks: true,
				Detail: fmt.Sprintf("is matched by the budgets %s, and the Eviction API refuses pods with more than one; remove all but one", strings.Join(names, " and ")),
			})
		case len(matching) == 1 && !freeOf(&budgets[matching[0]], pod):
			held[matching[0]] = append(held[matching[0]], pod)
		}
	}
	for i := range budgets {
		if len(held[i]) > 0 {
			findings = append(findings, diagnoseBudget(&budgets[i], held[i])...)
		}
	}
	return findings
}

func diagnoseBudget(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod) []fleet.Finding {
	f := fleet.Finding{Cause: BudgetExhausted, Object: "budget " + b.Namespace + "/" + b.Name, Blocks: true, Passes: true}
	costly := 0 // one that is not ready gives back what it takes, since it did not count
	for _, pod := range pods {
		f.Pods = append(f.Pods, podName(pod))
		if ready(pod) {
			costly++
		}
	}
	s := b.Status
	condition := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	switch {
	case condition != nil && condition.Reason == policyv1.SyncFailedReason:
		f.Cause = BudgetNotComputed
		f.Detail = "cannot be computed: " + quote(condition.Message)
	case s.ObservedGeneration < b.Generation:
		f.Cause = BudgetNotComputed
		f.Detail = "has not been looked at since it was changed; does kube-controller-manager run?"
	case s.DisruptionsAllowed <= 0 && s.DesiredHealthy >= s.ExpectedPods:
		f.Passes = false
		f.Detail = fmt.Sprintf("can never allow an eviction: it wants %d healthy pods and there are to be %d; change it or scale up", s.DesiredHealthy, s.ExpectedPods)
	case s.DisruptionsAllowed <= 0 && s.CurrentHealthy > s.DesiredHealthy: // it still counts pods that were just evicted
		f.Detail = fmt.Sprintf("allows no eviction now: it needs %d healthy pods, and more have just been told to go; wait until they are up elsewhere", s.DesiredHealthy)
	case s.DisruptionsAllowed <= 0:
		f.Detail = fmt.Sprintf("allows no eviction now: it needs %d healthy pods, and %d of %d are; look why the others are not", s.DesiredHealthy, s.CurrentHealthy, s.ExpectedPods)
	case int(s.DisruptionsAllowed) < costly:
		f.Blocks, f.Passes = false, false
		f.Detail = fmt.Sprintf("allows %d of these pods to go at once, and %d are ready; the others wait until those are up elsewhere", s.DisruptionsAllowed, costly)
	default:
		return nil
	}
	return []fleet.Finding{f}
}

func covers(b *policyv1.PodDisruptionBudget, pod *corev1.Pod) bool {
	if b.Namespace != pod.Namespace {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	return err == nil && selector.Matches(labels.Set(pod.Labels))
}

// freeOf says whether a pod may go since it is not ready anyway.
func freeOf(b *policyv1.PodDisruptionBudget, pod *corev1.Pod) bool {
	if ready(pod) {
		return false
	}
	always := b.Spec.UnhealthyPodEvictionPolicy != nil && *b.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
	return always || (b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0)
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
