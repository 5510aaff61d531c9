package containermgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"commissaire/internal/fleet"
)

// Pass is what one pass of a drain did and found. Pods are "namespace/name".
type Pass struct {
	// Done: no pod is left that has to go.
	Done bool
	// Evicted were told to go by this pass.
	Evicted []string
	// Waiting were told so before, and are not gone yet.
	Waiting []string
	// Blocked stay for now; it may pass: a budget, a namespace on its way out.
	Blocked []fleet.Finding
	// Refused may not be evicted by the policy; while there are any, nothing is
	// evicted. Somebody must change the pods or the policy.
	Refused []fleet.Finding
	// Left have to go and were not judged, for now: the server has too much to do, or
	// they changed meanwhile.
	Left []string
	// RetryAfter is when the server wants to be asked again, 0 when it did not say.
	RetryAfter time.Duration

	held map[types.UID]hold // those of Blocked
}

// hold is a pod that was blocked, and is not asked about again for a while.
type hold struct {
	finding fleet.Finding
	wait    time.Duration
	until   time.Time
}

const (
	// A pod that was blocked is asked about again after holdFirst, then ever later.
	holdFirst = time.Second
	holdMost  = 5 * time.Second
	// standsFor is how long an answer of stands is good for.
	standsFor = time.Second
)

// verdict says what a drain does with a pod.
type verdict int

const (
	leave  verdict = iota // it stays, and the drain is done without it
	evict                 // it is told to go
	wait                  // it has been told
	refuse                // it should go, and the policy forbids it
)

// Evict makes one pass: it tells every pod to go that may, once, and does not wait
// for any. The caller repeats it, after a second or so, until Done, its deadline,
// or something Refused; it may do so in another process. A pod that bears the name
// of one evicted before is another pod, and told anew. before is the pass before this
// one, none for the first: what blocked a pod then is believed for some seconds.
//
// stands is asked in every pass, and again when its answer is older than a second; its
// error ends the pass. So a pass that slept until the node had been restored evicts one
// pod at most, and one that did not sleep those of a second. They are pods
// that were there when the pass began (another of the same name has
// another UID), that the policy lets go and that their budgets let go now, and moving
// them is needless, no more. This much remains, since the API has no eviction on
// condition that the node is cordoned. One on condition that the pod has not changed
// would not do: refused for that, it still counts against the budget, for two minutes.
//
// Conflict: the node is not cordoned by this owner (any more), so that pods would
// come back. NotFound: the node is gone, and its pods with it soon.
func (k *Kubernetes) Evict(ctx context.Context, node, owner string, p fleet.Drain, before Pass, stands func(context.Context) error) (Pass, error) {
	pass := Pass{held: before.held}
	skip, err := skipped(p)
	if err != nil {
		return pass, err
	}
	n, err := k.node(ctx, node)
	if err != nil {
		return pass, err
	}
	if err := mustBeCordoned(n, owner); err != nil {
		return pass, err
	}
	pods, err := k.podsOn(ctx, node)
	if err != nil {
		return pass, err
	}
	if err := stands(ctx); err != nil {
		return pass, err
	}
	stood := wallClock()
	var candidates []*corev1.Pod
	pass.held = map[types.UID]hold{}
	for i := range pods {
		pod := &pods[i]
		switch v, finding := judge(pod, p, skip, time.Now()); v {
		case evict:
			candidates = append(candidates, pod)
			if h, ok := before.held[pod.UID]; ok {
				pass.held[pod.UID] = h
			}
		case wait:
			pass.Waiting = append(pass.Waiting, podName(pod))
		case refuse:
			pass.Refused = append(pass.Refused, finding)
		}
	}
	if len(pass.Refused) > 0 {
		return pass, nil
	}
	pass.Done = len(candidates) == 0 && len(pass.Waiting) == 0
	for i, pod := range candidates {
		if h, ok := pass.held[pod.UID]; ok && time.Now().Before(h.until) {
			pass.Blocked = append(pass.Blocked, h.finding)
			continue
		}
		if now := wallClock(); now.Sub(stood) > standsFor || now.Before(stood) {
			if err := stands(ctx); err != nil {
				return pass, err
			}
			stood = wallClock()
		}
		if err := k.evict(ctx, pod, p, &pass); err != nil {
			return pass, err
		}
		if pass.RetryAfter > 0 {
			for _, pod := range candidates[i:] {
				pass.Left = append(pass.Left, podName(pod))
			}
			break
		}
	}
	return pass, nil
}

// wallClock goes on while the machine or the process sleeps.
func wallClock() time.Time { return time.Now().Round(0) }

// evict asks for one pod and notes the answer in pass.
func (k *Kubernetes) evict(ctx context.Context, pod *corev1.Pod, p fleet.Drain, pass *Pass) error {
	name := podName(pod)
	// Not another pod that has the name by now.
	o := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	if p.GracePeriod != nil {
		o.GracePeriodSeconds = new(int64(time.Duration(*p.GracePeriod).Seconds()))
	}
	err := k.do(ctx, "evict pod "+name, func(ctx context.Context) error {
		return k.client.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, DeleteOptions: o,
		})
	})
	blocked := func(cause string, passes bool, format string, args ...any) error {
		f := fleet.Finding{Cause: cause, Object: podObject(pod), Pods: []string{name}, Detail: fmt.Sprintf(format, args...), Blocks: true, Passes: passes}
		pass.Blocked = append(pass.Blocked, f)
		wait := min(max(2*pass.held[pod.UID].wait, holdFirst), holdMost)
		pass.held[pod.UID] = hold{finding: f, wait: wait, until: time.Now().Add(wait)}
		return nil
	}
	switch {
	case err == nil:
		pass.Evicted = append(pass.Evicted, name)
		return nil
	case missing(err):
		return nil // gone by itself
	case apierrors.IsConflict(err):
		pass.Left = append(pass.Left, name)
		return nil // gone, and another has its name; or it changed: the next pass sees
	case apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause):
		return blocked(BudgetExhausted, true, "%s", budgetWords(err))
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return blocked(NamespaceTerminating, true, "its namespace is being deleted, and the pod with it")
	}
	if after, ok := RetryAfter(err); ok {
		pass.RetryAfter = after
		return nil
	}
	var api apierrors.APIStatus
	switch {
	case !errors.As(err, &api), apierrors.IsUnauthorized(err):
		return err
	case strings.Contains(api.Status().Message, overlapWords):
		return blocked(BudgetsOverlap, false, "more than one budget matches the pod, which the Eviction API refuses; remove all but one")
	}
	// Often an admission webhook that looks after this pod, and wants to be asked
	// again.
	return blocked(EvictionRefused, true, "the server refuses it (%d): %s", api.Status().Code, quote(api.Status().Message))
}

// overlapWords are all that tells this refusal from others (pkg/registry/core/pod/
// storage/eviction.go of Kubernetes).
const overlapWords = "more than one PodDisruptionBudget"

// budgetWords are the server's, which name the budget.
func budgetWords(err error) string {
	cause, _ := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause)
	return quote(cause.Message)
}

// judge applies the policy to a pod. The finding says why for refuse, and is
// otherwise empty.
func judge(pod *corev1.Pod, p fleet.Drain, skip fleet.Selector, now time.Time) (verdict, fleet.Finding) {
	no := func(cause, format string, args ...any) (verdict, fleet.Finding) {
		return refuse, fleet.Finding{Cause: cause, Object: podObject(pod), Pods: []string{podName(pod)}, Detail: fmt.Sprintf(format, args...), Blocks: true}
	}
	controller := metav1.GetControllerOf(pod)
	ofDaemonSet := controller != nil && controller.Kind == "DaemonSet"
	switch {
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return leave, fleet.Finding{} // of the kubelet's own files; no API can evict it
	case len(skip) > 0 && skip.Matches(pod.Labels):
		return leave, fleet.Finding{}
	case ofDaemonSet && ignoresDaemonSets(p):
		return leave, fleet.Finding{}
	case pod.DeletionTimestamp != nil:
		if limit := time.Duration(p.SkipWaitForDelete); limit > 0 && now.Sub(pod.DeletionTimestamp.Time) > limit {
			return leave, fleet.Finding{}
		}
		return wait, fleet.Finding{}
	case finished(pod):
		return evict, fleet.Finding{} // nothing runs or is kept for it
	case ofDaemonSet:
		return no(DaemonSetPod, "belongs to the daemon set %s and would come back at once; ignore daemon sets", controller.Name)
	case controller == nil && !p.Force:
		return no(Unmanaged, "has no controller, so nobody would make it anew; delete it, or force the drain")
	case hasEmptyDir(pod) && !p.DeleteEmptyDirData:
		return no(EmptyDir, "keeps data in the emptyDir volume %s, which would be lost; allow that, or move the data", emptyDirOf(pod))
	}
	return evict, fleet.Finding{}
}

// skipped chooses the pods to be left where they are; without a requirement, none.
func skipped(p fleet.Drain) (fleet.Selector, error) {
	s, err := fleet.ParseSelector(p.Skip)
	if err != nil {
		return nil, fleet.InvalidField("drain.skip", "%s", err)
	}
	return s, nil
}

// ignoresDaemonSets: their pods would come back at once, cordon or not.
func ignoresDaemonSets(p fleet.Drain) bool { return p.IgnoreDaemonSets == nil || *p.IgnoreDaemonSets }

func timeout(p fleet.Drain) time.Duration {
	return cmp.Or(time.Duration(p.Timeout), fleet.DefaultDrainTimeout)
}

// mustBeCordoned keeps a drain from running on a node that takes pods.
func mustBeCordoned(n *corev1.Node, owner string) error {
	held, err := markOf(n)
	switch {
	case err != nil:
		return err
	case held == nil:
		return fleet.Errorf(fleet.Conflict, "node %s is not cordoned by us any more: the annotation %s is gone", n.Name, CordonAnnotation)
	case held.Owner != owner:
		return heldByOther(n.Name, held)
	case !n.Spec.Unschedulable:
		return fleet.Errorf(fleet.Conflict, "node %s has been uncordoned by somebody while it was being drained", n.Name)
	}
	return nil
}

// podsOn gives the pods of a node, in the order of their names.
func (k *Kubernetes) podsOn(ctx context.Context, node string) (pods []corev1.Pod, err error) {
	here := metav1.ListOptions{FieldSelector: "spec.nodeName=" + node}
	err = pages(ctx, k, "list the pods of node "+node, here, k.client.CoreV1().Pods(metav1.NamespaceAll).List, func(page *corev1.PodList) {
		pods = append(pods, page.Items...)
	})
	sortPods(pods)
	return pods, err
}

func podName(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

func podObject(p *corev1.Pod) string { return "pod " + podName(p) }

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func hasEmptyDir(p *corev1.Pod) bool { return emptyDirOf(p) != "" }

// emptyDirOf is the name of the pod's first emptyDir volume, "" when it has none.
func emptyDirOf(p *corev1.Pod) string {
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir != nil {
			return v.Name
		}
	}
	return ""
}
