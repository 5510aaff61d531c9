package nodes

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"commissaire/internal/kubetest"
)

// Machine is a host on which a kubelet runs.
type Machine interface {
	Address() string
	BootID() string
}

// KubeletOptions say how kubelets behave.
type KubeletOptions struct {
	// Start is how long a kubelet takes after its host has booted: until then the node
	// says what it said before the host went down.
	Start time.Duration
	// Labels that a kubelet puts on its node, beside that of its name.
	Labels map[string]string
	// Registers has a kubelet make its node when there is none, once it has run on the
	// host before.
	Registers bool
}

// Kubelets play the part of the kubelets of machines as far as KWOK does not: a node
// comes alive when it is registered, and reports the boot from which its kubelet
// does. When a machine has booted, pods that were still on it have lost their
// processes: they are not ready until the kubelet has started.
type Kubelets struct {
	kube  *kubetest.Cluster
	watch *Watch
	o     KubeletOptions
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

// How often a kubelet looks at its host and its node, and at its pods.
const (
	kubeletLook = 50 * time.Millisecond
	kubeletMend = time.Second
)

// Play starts the kubelets. The caller closes them, before the watch.
func Play(kube *kubetest.Cluster, w *Watch, o KubeletOptions, machines ...Machine) *Kubelets {
	ctx, stop := context.WithCancel(context.Background())
	k := &Kubelets{kube: kube, watch: w, o: o, stop: stop}
	for _, m := range machines {
		k.wg.Go(func() { k.run(ctx, m) })
	}
	return k
}

// Close ends the kubelets; their nodes stay as they are.
func (k *Kubelets) Close() {
	k.stop()
	k.wg.Wait()
}

// kubelet is one of them, as it remembers its node.
type kubelet struct {
	*Kubelets
	name string
	uid  types.UID // of the node that it has come alive on, "" before the first
	boot string    // that it has reported there

	mended time.Time
}

func (k *Kubelets) run(ctx context.Context, m Machine) {
	one := &kubelet{Kubelets: k, name: m.Address()}
	for {
		// What fails is tried again: the apiserver may be away, as for a real one.
		_ = one.look(ctx, m.BootID())
		select {
		case <-ctx.Done():
			return
		case <-time.After(kubeletLook):
		}
	}
}

// look does what is to be done now.
func (k *kubelet) look(ctx context.Context, boot string) error {
	n, there := k.watch.Node(k.name)
	switch {
	case !there && k.o.Registers && k.boot != "" && k.boot != boot:
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.name}}
		_, err := k.kube.Admin().CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		return err
	case !there || boot == "":
		return nil
	case n.UID != k.uid:
		return k.join(ctx, n.UID, boot)
	case boot != k.boot:
		return k.restart(ctx, boot)
	}
	if time.Since(k.mended) < kubeletMend {
		return nil
	}
	return k.mend(ctx)
}

// join takes over a node that was registered. It may be removed again at any moment, so
// nothing here waits for it.
func (k *kubelet) join(ctx context.Context, uid types.UID, boot string) error {
	// First, since KWOK fills in what a status lacks, and would write over it.
	if err := k.kube.PatchNodeStatus(ctx, k.name, map[string]any{"nodeInfo": map[string]any{"bootID": boot}}); err != nil {
		return err
	}
	labels := map[string]string{corev1.LabelHostname: k.name}
	maps.Copy(labels, k.o.Labels)
	if err := k.kube.PlayNode(ctx, k.name, labels); err != nil {
		return err
	}
	k.uid, k.boot = uid, boot
	return nil
}

// restart is a boot of the host. The node is not Ready for a moment when the kubelet
// comes, as a real one is not until it has looked around; KWOK makes it Ready.
func (k *kubelet) restart(ctx context.Context, boot string) error {
	if err := k.setPods(ctx, corev1.ConditionFalse); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(k.o.Start):
	}
	now := metav1.Now()
	err := k.kube.PatchNodeStatus(ctx, k.name, map[string]any{
		"nodeInfo": map[string]any{"bootID": boot},
		"conditions": []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: "the kubelet is starting",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}},
	})
	if err != nil {
		return fmt.Errorf("report the boot of %s: %w", k.name, err)
	}
	k.boot = boot
	return k.mend(ctx)
}

// mend makes the pods on the node ready. Also when the node controller has called them
// not ready, since it saw the node in that moment.
func (k *kubelet) mend(ctx context.Context) error {
	k.mended = time.Now()
	return k.setPods(ctx, corev1.ConditionTrue)
}

// setPods sets the readiness of the pods that run on the node.
func (k *kubelet) setPods(ctx context.Context, ready corev1.ConditionStatus) error {
	for _, p := range k.watch.PodsOn(k.name) {
		if p.held || p.Ending || !p.Running || p.Ready == (ready == corev1.ConditionTrue) {
			continue
		}
		if err := k.kube.SetPodReady(ctx, p.Namespace, p.Name, ready); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
