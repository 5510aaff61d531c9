package kubetest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// played is the label of nodes that KWOK plays, with the value "yes". It is not
	// the annotation that KWOK's documents name: with that, a node that gets it
	// later stays unseen.
	played = "kubetest/played"
	// dead is the annotation of nodes and pods that it leaves alone nevertheless,
	// with the value "yes".
	dead = "kubetest/dead"
	yes  = "yes"
)

// AddNode makes a node that KWOK plays and returns when it is Ready and takes
// pods. One that is there already (registered by the code under test) comes
// alive.
func (c *Cluster) AddNode(ctx context.Context, name string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{played: yes}}}
	_, err := c.admin.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = c.PlayNode(ctx, name, nil)
	}
	if err != nil {
		return err
	}
	return c.nodeReady(ctx, name)
}

// PlayNode has KWOK play a node that is there, and gives it more labels.
func (c *Cluster) PlayNode(ctx context.Context, name string, labels map[string]string) error {
	all := map[string]string{played: yes}
	maps.Copy(all, labels)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": all}})
	if err != nil {
		return err
	}
	_, err = c.admin.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// KillNode stops the node's kubelet, as a power cut would: it becomes NotReady,
// and the pods that are on it stay as they are; deleted, they are terminating for
// ever. The status is what the node controller would set after its grace period
// of 50 s.
func (c *Cluster) KillNode(ctx context.Context, name string) error {
	if err := c.markDead(ctx, name, yes); err != nil {
		return err
	}
	return c.SetNodeReady(ctx, name, corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status.")
}

// ReviveNode starts it again and returns when it is Ready.
func (c *Cluster) ReviveNode(ctx context.Context, name string) error {
	if err := c.markDead(ctx, name, nil); err != nil {
		return err
	}
	return c.nodeReady(ctx, name)
}

// markDead has KWOK disregard the node and its pods (yes) or play them (nil).
func (c *Cluster) markDead(ctx context.Context, name string, value any) error {
	annotations := map[string]any{"annotations": map[string]any{dead: value}}
	patch, err := json.Marshal(map[string]any{"metadata": annotations})
	if err != nil {
		return err
	}
	if _, err = c.admin.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	pods, err := c.admin.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		_, err := c.admin.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// SetNodeReady sets the condition Ready. On a node that KWOK plays it stays only
// while it is True.
func (c *Cluster) SetNodeReady(ctx context.Context, name string, status corev1.ConditionStatus, reason, message string) error {
	now := metav1.Now()
	return c.PatchNodeStatus(ctx, name, map[string]any{"conditions": []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: status, Reason: reason, Message: message,
		LastHeartbeatTime: now, LastTransitionTime: now,
	}}})
}

// PatchNodeStatus merges status into that of the node, by the strategic rules.
func (c *Cluster) PatchNodeStatus(ctx context.Context, name string, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = c.admin.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// SetBootID has the node's kubelet report from that boot of its host, "" from none that
// it knows.
func (c *Cluster) SetBootID(ctx context.Context, name, id string) error {
	return c.PatchNodeStatus(ctx, name, map[string]any{"nodeInfo": corev1.NodeSystemInfo{
		BootID: id, OperatingSystem: "linux", Architecture: "amd64",
	}})
}

func (c *Cluster) nodeReady(ctx context.Context, name string) error {
	return until(ctx, c.alive, func(ctx context.Context) error {
		node, err := c.admin.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		// The node controller takes the taint of a node that is not ready away.
		tainted := slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeNotReady })
		if !ready || tainted {
			return fmt.Errorf("node %s is not ready: %v, taints %v", name, node.Status.Conditions, node.Spec.Taints)
		}
		return nil
	})
}

// AddNamespace makes a namespace.
func (c *Cluster) AddNamespace(ctx context.Context, name string) error {
	_, err := c.admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

// Pod describes a pod of one container on a node, controlled by a ReplicaSet that
// need not be there, with labels app: NAME. Change it as the test needs.
func Pod(namespace, name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{"app": name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: types.UID("of-" + name), Controller: new(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers:                    []corev1.Container{{Name: "main", Image: "none.invalid/none"}},
		},
	}
}

// Unplayed has KWOK leave a pod as it is: it stays Pending.
func Unplayed(pod *corev1.Pod) { pod.Annotations = map[string]string{dead: yes} }

// HoldPod has KWOK leave a running pod as it is: told to go, it stays until
// ReleasePod, like one whose processes do not end.
func (c *Cluster) HoldPod(ctx context.Context, namespace, name string) error {
	return c.hold(ctx, namespace, name, yes)
}

// ReleasePod undoes HoldPod.
func (c *Cluster) ReleasePod(ctx context.Context, namespace, name string) error {
	return c.hold(ctx, namespace, name, nil)
}

func (c *Cluster) hold(ctx context.Context, namespace, name string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{dead: value}}})
	if err != nil {
		return err
	}
	_, err = c.admin.CoreV1().Pods(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// Held says whether KWOK leaves a pod as it is.
func Held(pod *corev1.Pod) bool { return pod.Annotations[dead] == yes }

// AddPod makes a pod and returns it as it is once it runs and is ready.
func (c *Cluster) AddPod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	made, err := c.admin.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	err = until(ctx, c.alive, func(ctx context.Context) error {
		made, err = c.admin.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if made.Status.Phase != corev1.PodRunning || !PodReady(made) {
			return fmt.Errorf("pod %s is %s", pod.Name, made.Status.Phase)
		}
		return nil
	})
	return made, err
}

// PodReady says whether a pod has the condition Ready.
func PodReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// SetPodReady sets the conditions Ready of a running pod, as a kubelet does by its
// readiness probe.
func (c *Cluster) SetPodReady(ctx context.Context, namespace, name string, status corev1.ConditionStatus) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.PodCondition{
		{Type: corev1.PodReady, Status: status}, {Type: corev1.ContainersReady, Status: status},
	}}})
	if err != nil {
		return err
	}
	_, err = c.admin.CoreV1().Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// AddBudget makes a PodDisruptionBudget and returns it as it is once the
// disruption controller has looked at it: healthy pods are counted by then.
func (c *Cluster) AddBudget(ctx context.Context, namespace, name string, spec policyv1.PodDisruptionBudgetSpec, healthy int32) (*policyv1.PodDisruptionBudget, error) {
	made, err := c.admin.PolicyV1().PodDisruptionBudgets(namespace).Create(ctx,
		&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	err = until(ctx, c.alive, func(ctx context.Context) error {
		made, err = c.admin.PolicyV1().PodDisruptionBudgets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if made.Status.ObservedGeneration < made.Generation || made.Status.CurrentHealthy != healthy {
			return fmt.Errorf("budget %s has the status %v", name, made.Status)
		}
		return nil
	})
	return made, err
}
