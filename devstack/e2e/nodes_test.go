package e2e

import (
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/devstack/harness"
	"commissaire/internal/containermgr"
	"commissaire/internal/kubetest"
	"commissaire/internal/remote/remotetest"
)

// nodeSite is a site with a container manager "kube", a real Kubernetes.
type nodeSite struct {
	*site
	kube  *kubetest.Cluster
	token string
	first *exec.Cmd // its worker
}

// newNodes makes the cluster "web" with that container manager.
func newNodes(t *testing.T, kube *kubetest.Cluster, hosts int, options map[string]any, env ...string) *nodeSite {
	t.Helper()
	account, err := kube.AddAccount(t.Context(), nameOf(t), containermgr.Rules()...)
	require.NoError(t, err)
	n := &nodeSite{site: newSite(t, hosts, env...), kube: kube}
	n.token, err = account.Token(t.Context())
	require.NoError(t, err)
	n.first = n.worker()
	n.putManager("kube", options)
	n.ask(http.StatusCreated, http.MethodPut, "cluster/web", map[string]any{"container_manager": "kube"})
	return n
}

func (n *nodeSite) putManager(name string, more map[string]any) {
	n.t.Helper()
	options := map[string]any{"server_url": n.kube.URL(), "token": n.token, "certificate_ca_path": n.kube.CAFile()}
	for option, value := range more {
		options[option] = value
	}
	body := map[string]any{"type": "kubernetes", "options": options}
	n.ask(http.StatusCreated, http.MethodPut, "containermanager/"+name, body)
}

// there says whether the Kubernetes has a node.
func (n *nodeSite) there(name string) bool {
	n.t.Helper()
	_, err := n.kube.Admin().CoreV1().Nodes().Get(n.t.Context(), name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(n.t, err)
	}
	return err == nil
}

func (n *nodeSite) becomes(h *remotetest.Host, state string) hostView {
	n.t.Helper()
	n.until(limit, h.Address()+" to be "+state, func() bool { return n.host(h).Status == state })
	return n.host(h)
}

// said is what the status of a host has of its container manager.
func (n *nodeSite) said(h *remotetest.Host) map[string]any {
	n.t.Helper()
	var status struct {
		ContainerManager map[string]any `json:"container_manager"`
	}
	n.get(hostPath(h)+"/status", &status)
	return status.ContainerManager
}

// node is a host's node as the status of the host has it: nothing, when no worker
// answers in time.
func (n *nodeSite) node(h *remotetest.Host) (said map[string]any) {
	n.t.Helper()
	n.until(limit, "the status of "+h.Address()+" to have a node", func() bool {
		said = n.said(h)
		return said["kind"] == "Node"
	})
	return said
}

// comesAlive starts the kubelet of a node once it is registered.
func (n *nodeSite) comesAlive(h *remotetest.Host) {
	n.t.Helper()
	n.until(limit, h.Address()+" to be registered", func() bool { return n.there(h.Address()) })
	require.NoError(n.t, n.kube.AddNode(n.t.Context(), h.Address()))
}

// A host goes through its life as a node: bootstrap, status, leaving, joining again,
// the end of its cluster, and its own.
func TestNodes(t *testing.T) {
	t.Parallel()
	n := newNodes(t, kubetest.Shared(t), 3, nil)
	a, b, c := n.Fleet.Hosts()[0], n.Fleet.Hosts()[1], n.Fleet.Hosts()[2]
	stranger := "stranger-" + a.Address()
	require.NoError(t, n.kube.AddNode(t.Context(), stranger))
	for _, h := range []*remotetest.Host{a, b, c} {
		n.addHost(h, "web")
	}
	for _, h := range []*remotetest.Host{a, b, c} {
		n.comesAlive(h)
		n.becomes(h, "active")
	}
	op := n.ended("kind=bootstrap&host=" + a.Address())
	require.Equal(t, "succeeded", op.State)
	var names []string
	for _, s := range n.steps(op.ID) {
		names = append(names, s.Name)
	}
	require.Equal(t, []string{"investigate", "prepare", "register"}, names)

	said := n.node(a)
	require.Equal(t, a.Address(), said["metadata"].(map[string]any)["name"])

	n.ask(http.StatusOK, http.MethodDelete, "cluster/web/hosts/"+a.Address(), nil)
	n.until(limit, "the node to be gone", func() bool { return !n.there(a.Address()) })
	require.Equal(t, "succeeded", n.ended("kind=unregister&host="+a.Address()).State)
	require.Equal(t, map[string]any{}, n.said(a))
	require.True(t, n.there(b.Address()))

	n.ask(http.StatusOK, http.MethodPut, "cluster/web/hosts/"+a.Address(), nil)
	require.Equal(t, "is being registered with container manager kube", n.host(a).Reason)
	n.comesAlive(a)
	require.Empty(t, n.becomes(a, "active").Reason)
	require.Equal(t, "succeeded", n.ended("kind=register&host="+a.Address()).State)

	// Who is left out of a list stays a node, until the host is deleted.
	n.ask(http.StatusOK, http.MethodPut, "cluster/web/hosts", map[string]any{
		"old": []string{a.Address(), b.Address(), c.Address()}, "new": []string{a.Address(), b.Address()},
	})
	require.Equal(t, map[string]any{}, n.said(c))
	require.True(t, n.there(c.Address()))
	n.ask(http.StatusOK, http.MethodDelete, hostPath(c), nil)
	n.until(limit, "the node to be gone", func() bool { return !n.there(c.Address()) })
	require.Equal(t, "succeeded", n.ended("kind=unregister&host="+c.Address()).State)

	n.ask(http.StatusOK, http.MethodDelete, "cluster/web", nil)
	n.until(limit, "the nodes to be gone", func() bool { return !n.there(a.Address()) && !n.there(b.Address()) })
	require.True(t, n.there(stranger), "nobody else's node is touched")
	require.Equal(t, "active", n.host(a).Status, "its hosts stay as they are")
}

// A node that does not become ready leaves its host usable but not active.
func TestNodeThatIsNotReady(t *testing.T) {
	t.Parallel()
	n := newNodes(t, kubetest.Shared(t), 1, map[string]any{"ready_timeout": "15s"})
	h := n.Fleet.Hosts()[0]
	n.addHost(h, "web")
	v := n.becomes(h, "disassociated")
	require.Contains(t, v.Reason, "node "+h.Address()+" was not ready in time: node "+h.Address()+" has never reported; does its kubelet run?")
	require.Equal(t, "succeeded", n.ended("kind=bootstrap&host="+h.Address()).State)
	n.node(h)

	require.NoError(t, n.kube.AddNode(t.Context(), h.Address()))
	n.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/bootstrap", nil)
	n.becomes(h, "active")

	// With the other option nobody waits for it.
	n.ask(http.StatusOK, http.MethodDelete, "cluster/web/hosts/"+h.Address(), nil)
	n.until(limit, "the node to be gone", func() bool { return !n.there(h.Address()) })
	n.ended("kind=unregister&host=" + h.Address())
	n.putManager("quick", map[string]any{"active_when": "registered"})
	n.ask(http.StatusCreated, http.MethodPut, "cluster/quick", map[string]any{"container_manager": "quick"})
	n.ask(http.StatusOK, http.MethodPut, "cluster/quick/hosts/"+h.Address(), nil)
	require.Equal(t, "succeeded", n.ended("kind=register&host="+h.Address()).State)
	require.Equal(t, "active", n.host(h).Status)
}

// A Kubernetes that is away, or does not know us, is no reason to lose anything.
func TestKubernetesIsAway(t *testing.T) {
	t.Parallel()
	n := newNodes(t, kubetest.New(t), 2, map[string]any{"ready_timeout": "1h"})
	a, b := n.Fleet.Hosts()[0], n.Fleet.Hosts()[1]
	n.addHost(a, "web")
	n.comesAlive(a)
	n.becomes(a, "active")

	require.NoError(t, n.kube.StopAPIServer(syscall.SIGKILL))
	n.until(limit, "the last answer to be too old", func() bool { return len(n.said(a)) == 0 })
	var p problem
	n.until(limit, "a worker to answer", func() bool {
		p = n.refused(http.StatusServiceUnavailable, http.MethodPut, "containermanager/other", map[string]any{
			"type": "kubernetes", "options": map[string]any{"server_url": n.kube.URL(), "token": n.token, "certificate_ca_path": n.kube.CAFile()},
		})
		return !strings.Contains(p.Detail, "no worker answered")
	})
	require.Contains(t, p.Detail, "cannot be reached")
	n.ask(http.StatusNotFound, http.MethodGet, "containermanager/other", nil)

	n.addHost(b, "web") // its bootstrap waits
	n.ask(http.StatusOK, http.MethodDelete, hostPath(a), nil)
	var op operationView
	n.until(limit, "the removal to say what it waits for", func() bool {
		op = n.latest("kind=unregister&host=" + a.Address())
		return op.Waiting != ""
	})
	require.Contains(t, op.Waiting, "container manager kube: could not get node "+a.Address())
	p = n.refused(http.StatusConflict, http.MethodPut, hostPath(a), n.HostBody(a))
	require.Contains(t, p.Detail, op.ID)

	require.NoError(t, n.kube.StartAPIServer(t.Context()))
	n.until(limit, "the node to be gone", func() bool { return !n.there(a.Address()) })
	op = n.ended("kind=unregister&host=" + a.Address())
	require.Equal(t, "succeeded", op.State)
	require.Empty(t, op.Waiting)
	n.comesAlive(b)
	n.becomes(b, "active")

	// A manager that is deleted while a removal waits for it ends that.
	require.NoError(t, n.kube.StopAPIServer(syscall.SIGKILL))
	n.ask(http.StatusOK, http.MethodDelete, "cluster/web/hosts/"+b.Address(), nil)
	n.until(limit, "the removal to wait", func() bool { return n.latest("kind=unregister&host="+b.Address()).Waiting != "" })
	n.ask(http.StatusOK, http.MethodDelete, "containermanager/kube", nil)
	op = n.ended("kind=unregister&host=" + b.Address())
	require.Equal(t, "failed", op.State)
	require.Contains(t, op.Reason, "container manager kube was deleted")
	require.NoError(t, n.kube.StartAPIServer(t.Context()))
	require.True(t, n.there(b.Address()), "what it had stays")
}

// What is wrong with a container manager is said when it is put.
func TestBadContainerManagers(t *testing.T) {
	t.Parallel()
	n := newNodes(t, kubetest.Shared(t), 0, nil)
	weak, err := n.kube.AddAccount(t.Context(), "weak")
	require.NoError(t, err)
	token, err := weak.Token(t.Context())
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change map[string]any
		blamed string
	}{
		"no such token":  {map[string]any{"token": "nonsense"}, "options.token"},
		"too few rights": {map[string]any{"token": token}, "options.token"},
		"another CA":     {map[string]any{"certificate_ca_path": nil}, "options.certificate_ca_path"},
		"no such file":   {map[string]any{"certificate_ca_path": "/nonexistent"}, "options.certificate_ca_path"},
	} {
		options := map[string]any{"server_url": n.kube.URL(), "token": n.token, "certificate_ca_path": n.kube.CAFile()}
		for option, value := range c.change {
			if options[option] = value; value == nil {
				delete(options, option)
			}
		}
		p := n.refused(http.StatusBadRequest, http.MethodPut, "containermanager/bad", map[string]any{"type": "openshift", "options": options})
		require.Len(t, p.Errors, 1, name)
		require.Equal(t, c.blamed, p.Errors[0].Field, name)
		n.ask(http.StatusNotFound, http.MethodGet, "containermanager/bad", nil)
	}
	// Without a worker nobody knows.
	alone := newSiteOn(t, harness.Options{Name: nameOf(t) + "_alone", Postgres: shared.postgres, Temporal: shared.address()})
	p := alone.refused(http.StatusServiceUnavailable, http.MethodPut, "containermanager/kube", map[string]any{
		"type": "kubernetes", "options": map[string]any{"server_url": n.kube.URL()},
	})
	require.Contains(t, p.Detail, "no worker answered")
}
