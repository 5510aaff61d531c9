package histories

import (
	"net/http"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kubelets "commissaire/devstack/nodes"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
	"commissaire/internal/remote/remotetest"
)

// The ids of workflows of all clusters and operations.
const (
	anyCordon    = "cordon/" + fleet.DefaultTenant + "/*"
	anyDiagnosis = "diagnosis/" + fleet.DefaultTenant + "/*"
)

// kubelets plays those of the hosts, until stop.
func (r *recorder) kubelets() (watch *kubelets.Watch, stop func()) {
	stop = func() {}
	r.try(func() (err error) {
		if watch, err = kubelets.Observe(r.ctx, r.kube); err != nil {
			return err
		}
		var machines []kubelets.Machine
		for _, h := range r.hosts {
			machines = append(machines, h)
		}
		play := kubelets.Play(r.kube, watch, kubelets.KubeletOptions{}, machines...)
		stop = func() {
			play.Close()
			watch.Close()
		}
		return nil
	})
	return watch, stop
}

// pod runs one on the node of a host.
func (r *recorder) pod(h *remotetest.Host, name string, change ...func(*corev1.Pod)) {
	r.try(func() error {
		p := kubetest.Pod(r.cluster, name, h.Address())
		for _, f := range change {
			f(p)
		}
		_, err := r.kube.AddPod(r.ctx, p)
		return err
	})
}

func (r *recorder) deletePod(name string) {
	r.try(func() error {
		return r.kube.Admin().CoreV1().Pods(r.cluster).Delete(r.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	})
}

func (r *recorder) dryRun() {
	r.call(http.MethodPut, "cluster/"+r.cluster+"/restart?dry_run=true", nil)
}

// drained are rollouts over nodes: whole ones, and ones that end in the middle, by which
// the nodes are let go all the same.
func drained(r *recorder) {
	a := r.hosts[0]
	watch, stop := r.kubelets()
	defer stop()
	cordoned := func() {
		r.until("the node to be cordoned", func() (bool, error) {
			n, _ := watch.Node(a.Address())
			return n.Owner() != "", nil
		})
	}
	r.putManager("drains", nil)
	r.call(http.MethodPut, "cluster/"+r.cluster, map[string]any{"container_manager": "drains"})
	r.try(func() error { return r.kube.AddNamespace(r.ctx, r.cluster) })
	for _, h := range r.hosts {
		r.add(h)
	}
	for _, h := range r.hosts {
		r.ends(ofHost(h), "succeeded")
	}

	r.pod(a, "web")
	r.dryRun()
	r.write(anyDiagnosis, "DiagnoseCluster-finished")
	r.order("restart", map[string]any{"min_ready": "1s"})
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.rollout(), "Rollout-drained")
	r.write(r.slot(0), "Slot-drained")

	r.try(func() error { return a.Publish("bash", "2.0") })
	r.try(func() error { return r.hosts[1].PublishOSTree("2.0") })
	r.order("upgrade", nil)
	r.ends(r.ofCluster(), "succeeded")
	r.write(r.slot(0), "Slot-drained-and-upgraded")
	r.write(r.slot(1), "Slot-drained-and-booted")

	r.pod(a, "lone", func(p *corev1.Pod) { p.OwnerReferences = nil })
	r.order("restart", nil)
	r.ends(r.ofCluster(), "failed")
	r.write(r.slot(0), "Slot-undrainable")
	r.deletePod("lone")

	r.pod(a, "held")
	r.try(func() error { return r.kube.HoldPod(r.ctx, r.cluster, "held") })
	r.order("restart", map[string]any{"drain": map[string]any{"timeout": "2s", "grace_period": "1s"}})
	r.ends(r.ofCluster(), "failed")
	r.write(r.slot(0), "Slot-not-drained")

	again := func() {
		r.deletePod("held")
		r.pod(a, "held")
		r.try(func() error { return r.kube.HoldPod(r.ctx, r.cluster, "held") })
		r.order("restart", nil)
		cordoned()
	}
	again()
	r.steer("cancel", map[string]any{"force": true})
	r.ends(r.ofCluster(), "cancelled")
	r.write(r.slot(0), "Slot-drain-cancelled")

	again()
	r.try(func() error { return r.Temporal.TerminateWorkflow(r.ctx, r.slot(0), "", "recorded") })
	r.ends(r.ofCluster(), "failed")
	r.write(anyCordon, "Uncordon-finished")

	again()
	r.try(func() error { return r.kube.StopAPIServer(syscall.SIGKILL) })
	r.dryRun()
	r.write(anyDiagnosis, "DiagnoseCluster-away")
	r.steer("cancel", map[string]any{"force": true})
	r.ends(r.ofCluster(), "cancelled")
	r.write(r.slot(0), "Slot-not-uncordoned")
	r.try(func() error { return r.kube.StartAPIServer(r.ctx) })
	r.write(anyCordon, "Uncordon-away")
}
