package activities_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"commissaire/activities"
	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// nodeRig is a database with clusters of a real Kubernetes.
type nodeRig struct {
	*rig
	kube  *kubetest.Cluster
	nodes *activities.Nodes
	token string
}

// newNodeRig has a control plane of its own: what all tests share would outlive them,
// which TestMain takes for a leak.
func newNodeRig(t *testing.T) *nodeRig {
	t.Helper()
	kube := kubetest.New(t)
	r := &nodeRig{rig: open(t, pgtest.New(t), restart), kube: kube}
	account, err := kube.AddAccount(t.Context(), "commissaire", containermgr.Rules()...)
	require.NoError(t, err)
	r.token, err = account.Token(t.Context())
	require.NoError(t, err)
	db := r.openStore(t)
	r.nodes = &activities.Nodes{Store: func(tenant string) activities.NodeStore { return db.For(tenant) }}
	t.Cleanup(r.nodes.Close)
	return r
}

// cluster makes one with a container manager of its name.
func (r *nodeRig) cluster(t *testing.T, name string, more map[string]any) (check string) {
	t.Helper()
	options := map[string]any{"server_url": r.kube.URL(), "token": r.token, "certificate_ca_path": r.kube.CAFile()}
	for option, value := range more {
		options[option] = value
	}
	_, check, err := r.PutContainerManager(t.Context(), fleet.ContainerManager{Name: name, Type: fleet.ContainerManagerKubernetes, Options: options})
	require.NoError(t, err)
	_, err = r.PutCluster(t.Context(), store.ClusterPut{Name: name, ContainerManager: &name})
	require.NoError(t, err)
	return check
}

func (r *nodeRig) checked(t *testing.T, name, check string) {
	t.Helper()
	require.NoError(t, r.ContainerManagerChecked(t.Context(), name, check))
}

// bootstraps gives the step of a host whose bootstrap is about to register it.
func (r *nodeRig) bootstraps(t *testing.T, address, cluster string) workflows.HostStep {
	t.Helper()
	_, op, err := r.PutHost(t.Context(), store.HostPut{Address: address, Cluster: cluster, Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))}})
	require.NoError(t, err)
	return r.takes(t, *op, workflows.StepRegister)
}

func (r *nodeRig) takes(t *testing.T, op fleet.Operation, step string) workflows.HostStep {
	t.Helper()
	_, err := r.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	_, err = r.BeginHostRun(t.Context(), op.ID, op.Host)
	require.NoError(t, err)
	return workflows.HostStep{
		HostRef: workflows.HostRef{OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: op.ID}, Address: op.Host},
		Step:    step, Attempt: 1,
	}
}

func (r *nodeRig) register(h how, in workflows.HostStep) (workflows.NodeRegistered, error) {
	return execute(h, workflows.RegisterNode, r.nodes.Register, in)
}

func (r *nodeRig) unregister(in workflows.HostStep) error {
	_, err := execute(how{}, workflows.UnregisterNode, r.nodes.Unregister, in)
	return err
}

func (r *nodeRig) check(t *testing.T, name, check string) workflows.ManagerVerdict {
	t.Helper()
	said, err := execute(how{}, workflows.AskManager, r.nodes.Check, workflows.ManagerRef{Tenant: fleet.DefaultTenant, Name: name, Check: check})
	require.NoError(t, err)
	return said
}

// status gives what is on record of a node after it was asked for.
func (r *nodeRig) status(t *testing.T, address string) store.Node {
	t.Helper()
	_, err := execute(how{}, workflows.ReadNodeStatus, r.nodes.Status, workflows.NodeRef{Tenant: fleet.DefaultTenant, Address: address})
	require.NoError(t, err)
	n, err := r.HostNode(t.Context(), address)
	require.NoError(t, err)
	return n
}

func (r *nodeRig) there(t *testing.T, name string) bool {
	t.Helper()
	_, err := r.kube.Admin().CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(t, err)
	}
	return err == nil
}

func TestNodeSteps(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	ctx := t.Context()
	check := r.cluster(t, "kube", nil)
	require.Equal(t, workflows.ManagerVerdict{}, r.check(t, "kube", check))
	r.checked(t, "kube", check)

	// Three workers at once, and one again later.
	in := r.bootstraps(t, "h1", "kube")
	require.NoError(t, r.kube.AddNode(ctx, "h1"), "it is there already")
	answers, errs := make([]workflows.NodeRegistered, 3), make([]error, 3)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i], errs[i] = r.register(how{}, in) })
	}
	wg.Wait()
	for i := range answers {
		require.NoError(t, errs[i])
		require.Equal(t, workflows.NodeRegistered{Ready: true}, answers[i])
	}
	again, err := r.register(how{attempt: 2}, in)
	require.NoError(t, err)
	require.Equal(t, workflows.NodeRegistered{Ready: true}, again)

	require.JSONEq(t, `"h1"`, nameIn(t, r.status(t, "h1").Status))
	blob := []byte(`{"metadata":{"annotations":{"a":"` + strings.Repeat("x", 262_000) + `"}}}`)
	_, err = r.kube.Admin().CoreV1().Nodes().Patch(ctx, "h1", types.MergePatchType, blob, metav1.PatchOptions{})
	require.NoError(t, err)
	n := r.status(t, "h1")
	require.Nil(t, n.Status, "more than is kept")
	require.True(t, n.Fresh)

	// A node that nobody brings to life, also when the time went by while no worker was at it.
	quick := r.cluster(t, "quick", map[string]any{"ready_timeout": "1s"})
	r.checked(t, "quick", quick)
	in = r.bootstraps(t, "h2", "quick")
	slow, err := r.register(how{deadline: time.Now().Add(time.Hour), spent: 2 * time.Second}, in)
	require.NoError(t, err)
	require.Contains(t, slow.Reason, "node h2 has never reported; does its kubelet run?")
	require.False(t, slow.Ready)
	require.True(t, r.there(t, "h2"))
	again, err = r.register(how{}, in)
	require.NoError(t, err)
	require.Equal(t, slow, again)

	// A host that left has nothing to register with.
	in = r.bootstraps(t, "h3", "kube")
	_, err = r.RemoveMember(ctx, "kube", "h3", store.Requester{})
	require.NoError(t, err)
	left, err := r.register(how{}, in)
	require.NoError(t, err)
	require.Equal(t, workflows.NodeRegistered{}, left)
	require.False(t, r.there(t, "h3"))

	// A node that somebody has made since its host was removed is not ours to remove.
	_, ordered, err := r.DeleteHost(ctx, "h2", store.Requester{Name: "tester"})
	require.NoError(t, err)
	require.Len(t, ordered, 1)
	_, err = r.sql.Exec(ctx, `UPDATE operation SET created = created - interval '1 hour' WHERE id = $1`, ordered[0].ID)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, r.unregister(r.takes(t, ordered[0], workflows.StepUnregister)))
	}
	require.True(t, r.there(t, "h2"))
	steps, err := r.Steps(ctx, ordered[0].ID, "h2")
	require.NoError(t, err)
	require.Contains(t, steps[0].Reason, "a node of that name was made since")

	// Who lacks rights is told so when it is put, and an operation ends with the words.
	weak, err := r.kube.AddAccount(ctx, "weak")
	require.NoError(t, err)
	token, err := weak.Token(ctx)
	require.NoError(t, err)
	check = r.cluster(t, "weak", map[string]any{"token": token})
	said := r.check(t, "weak", check)
	require.Equal(t, fleet.Invalid, said.Kind)
	require.Equal(t, "options.token", said.Fields[0].Field)
	r.checked(t, "weak", check)
	_, err = r.register(how{}, r.bootstraps(t, "h4", "weak"))
	require.Contains(t, requireRefused(t, "failed", err), "container manager weak: could not register node h4")
}

// Steps share a connection: a drain of hundreds of nodes asks every second for each.
func TestStepsShareAConnection(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var connections atomic.Int64
	var road sync.WaitGroup
	road.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			to, err := net.Dial("tcp", strings.TrimPrefix(r.kube.URL(), "https://"))
			if err != nil {
				_ = from.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				road.Go(func() {
					_, _ = io.Copy(way[1], way[0])
					_ = way[1].Close()
				})
			}
		}
	})
	t.Cleanup(road.Wait)
	t.Cleanup(func() { _ = listener.Close() })
	t.Cleanup(r.nodes.Close) // before the road, which waits for it

	// The certificate is for another address than that of the road.
	authority, err := os.ReadFile(r.kube.CAFile())
	require.NoError(t, err)
	kubeconfig := fmt.Sprintf(`{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
		"users": [{"name": "u", "user": {"token": %q}}],
		"clusters": [{"name": "k", "cluster": {"server": "https://%s", "tls-server-name": "localhost", "certificate-authority-data": %q}}]}`,
		r.token, listener.Addr(), base64.StdEncoding.EncodeToString(authority))
	_, check, err := r.PutContainerManager(t.Context(), fleet.ContainerManager{Name: "kube", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{"kubeconfig": kubeconfig}})
	require.NoError(t, err)
	r.checked(t, "kube", check)
	name := "kube"
	_, err = r.PutCluster(t.Context(), store.ClusterPut{Name: name, ContainerManager: &name})
	require.NoError(t, err)
	in := r.bootstraps(t, "h1", "kube")
	require.NoError(t, r.kube.AddNode(t.Context(), "h1"))
	_, err = r.register(how{}, in)
	require.NoError(t, err)
	var steps sync.WaitGroup
	for range 20 {
		steps.Go(func() { r.status(t, "h1") })
	}
	steps.Wait()
	require.EqualValues(t, 1, connections.Load())
}

func nameIn(t *testing.T, node []byte) string {
	t.Helper()
	var n struct {
		Metadata struct{ Name json.RawMessage }
	}
	require.NoError(t, json.Unmarshal(node, &n))
	return string(n.Metadata.Name)
}

func TestNodeStepsWhileKubernetesIsAway(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	ctx := t.Context()
	check := r.cluster(t, "kube", map[string]any{"active_when": "registered", "ready_timeout": "1h"})
	r.checked(t, "kube", check)
	_, err := r.register(how{}, r.bootstraps(t, "h1", "kube"))
	require.NoError(t, err)
	require.True(t, r.there(t, "h1"))

	require.NoError(t, r.kube.StopAPIServer(syscall.SIGKILL))
	require.Nil(t, r.status(t, "h1").Status)
	other := r.cluster(t, "other", nil)
	require.Equal(t, fleet.Unavailable, r.check(t, "other", other).Kind)

	in := r.bootstraps(t, "h2", "kube") // it waits, until another worker has to go on
	work, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := r.register(how{ctx: work}, in)
		done <- err
	}()
	eventually(t, func() bool {
		n, err := r.HostNode(ctx, "h2")
		return err == nil && n.Held()
	}, "the record knows whom to tell before it is asked")
	eventually(t, func() bool {
		runs, err := r.HostRuns(ctx, in.OperationID)
		return err == nil && strings.HasPrefix(runs[0].Waiting, "could not register node h2")
	}, "the record says why it waits")
	stop()
	require.Error(t, await(t, done))

	_, ordered, err := r.DeleteHost(ctx, "h1", store.Requester{Name: "tester"})
	require.NoError(t, err)
	require.Len(t, ordered, 1)
	out := r.takes(t, ordered[0], workflows.StepUnregister)
	for range 2 {
		requireRetried(t, r.unregister(out))
		op, err := r.Operation(ctx, ordered[0].ID)
		require.NoError(t, err)
		require.Contains(t, op.Waiting, "container manager kube: could not get node h1")
	}

	require.NoError(t, r.kube.StartAPIServer(ctx))
	for range 2 {
		require.NoError(t, r.unregister(out))
		require.False(t, r.there(t, "h1"))
	}
	registered, err := r.register(how{}, in)
	require.NoError(t, err)
	require.True(t, registered.Ready)
	require.True(t, r.there(t, "h2"))
}
