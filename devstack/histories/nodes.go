package histories

import (
	"net/http"
	"net/url"
	"os"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// nodeStories need a Kubernetes. The last one ends it.
var nodeStories = []story{
	{"drained", []remotetest.OS{debian, ostree}, drained},
	{"nodes", []remotetest.OS{debian, debian, debian}, nodes},
}

func ofNode(kind string, h *remotetest.Host) string {
	return "kind=" + kind + "&host=" + url.QueryEscape(h.Address())
}

// putManager puts a container manager of the Kubernetes.
func (r *recorder) putManager(name string, more map[string]any, accept ...int) {
	text, err := os.ReadFile(r.kube.Kubeconfig())
	r.try(func() error { return err })
	options := map[string]any{"kubeconfig": string(text)}
	for option, value := range more {
		if options[option] = value; option == "server_url" {
			delete(options, "kubeconfig")
		}
	}
	r.try(func() error {
		return r.Call(r.ctx, http.MethodPut, "containermanager/"+name, map[string]any{"type": "kubernetes", "options": options}, accept...)
	})
}

// comesAlive starts the kubelet of a node once it is registered.
func (r *recorder) comesAlive(h *remotetest.Host) {
	r.until("the node to be registered", func() (bool, error) {
		_, err := r.kube.Admin().CoreV1().Nodes().Get(r.ctx, h.Address(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	r.try(func() error { return r.kube.AddNode(r.ctx, h.Address()) })
}

func (r *recorder) member(method, cluster string, h *remotetest.Host) {
	r.call(method, "cluster/"+cluster+"/hosts/"+h.Address(), nil)
}

func (r *recorder) status(h *remotetest.Host, name string) {
	r.call(http.MethodGet, "host/"+h.Address()+"/status", nil)
	r.write(workflows.NodeWorkflowID(workflows.NodeRef{Tenant: fleet.DefaultTenant, Address: h.Address()}), name)
}

// nodes are registered and removed, by a Kubernetes that answers and by one that does not.
func nodes(r *recorder) {
	a, b, c := r.hosts[0], r.hosts[1], r.hosts[2]
	r.putManager("finished", map[string]any{"ready_timeout": "3s"})
	r.putManager("refused", map[string]any{"server_url": r.kube.URL(), "token": "nonsense", "insecure_skip_tls_verify": true}, http.StatusBadRequest)
	r.putManager("away", map[string]any{"server_url": "https://127.0.0.1:1"}, http.StatusServiceUnavailable)
	r.putManager("slow", map[string]any{"ready_timeout": "1h"})
	for _, name := range []string{"finished", "refused", "away", "slow"} {
		r.write("containermanager/"+fleet.DefaultTenant+"/"+name+"/*", "CheckManager-"+name)
	}
	r.call(http.MethodPut, "cluster/"+r.cluster, map[string]any{"container_manager": "slow"})
	r.call(http.MethodPut, "cluster/quick", map[string]any{"container_manager": "finished"})
	r.call(http.MethodPut, "cluster/none", map[string]any{})

	r.add(a)
	r.comesAlive(a)
	r.ends(ofHost(a), "succeeded")
	r.write(hostID(a), "Bootstrap-registered")
	r.status(a, "ReadNode-finished")
	r.member(http.MethodDelete, r.cluster, a)
	r.ends(ofNode("unregister", a), "succeeded")
	r.write(hostID(a), "Unregister-finished")
	r.member(http.MethodPut, r.cluster, a)
	r.comesAlive(a)
	r.ends(ofNode("register", a), "succeeded")
	r.write(hostID(a), "Register-finished")

	body := r.HostBody(b)
	body["cluster"] = "quick"
	r.call(http.MethodPut, "host/"+b.Address(), body)
	r.ends(ofHost(b), "succeeded")
	r.write(hostID(b), "Bootstrap-not-ready")
	r.member(http.MethodDelete, "quick", b)
	r.ends(ofNode("unregister", b), "succeeded")
	r.member(http.MethodPut, "quick", b)
	r.ends(ofNode("register", b), "succeeded")
	r.write(hostID(b), "Register-not-ready")

	body = r.HostBody(c)
	body["cluster"] = "none"
	r.call(http.MethodPut, "host/"+c.Address(), body)
	r.ends(ofHost(c), "succeeded")
	r.member(http.MethodDelete, "none", c)
	r.member(http.MethodPut, r.cluster, c)
	r.until("the node to be registered", func() (bool, error) {
		_, err := r.kube.Admin().CoreV1().Nodes().Get(r.ctx, c.Address(), metav1.GetOptions{})
		return err == nil, nil
	})
	r.call(http.MethodDelete, "host/"+c.Address(), nil)
	r.ends(ofNode("unregister", c), "succeeded")
	r.write(hostID(c), "Register-cancelled", "Unregister-deleted")

	a.SetReboot(slowReboot)
	r.order("restart", map[string]any{"drain": map[string]any{"disabled": true}}) // nobody plays its kubelet
	r.rebooting(a)
	r.member(http.MethodDelete, r.cluster, a)
	r.ends(ofNode("unregister", a), "succeeded")
	r.write(hostID(a), "Unregister-held")

	r.try(func() error { return r.kube.StopAPIServer(syscall.SIGKILL) })
	r.status(b, "ReadNode-away")
	r.member(http.MethodPut, "quick", a)
	r.ends(ofNode("register", a), "failed")
	r.write(hostID(a), "Register-failed")
	r.member(http.MethodDelete, "quick", b)
	r.until("the removal to wait", func() (bool, error) {
		op, err := r.operation(ofNode("unregister", b))
		return op.Waiting != "", err
	})
	r.call(http.MethodDelete, "containermanager/finished", nil)
	r.ends(ofNode("unregister", b), "failed")
	r.write(hostID(b), "Unregister-cancelled")
}
