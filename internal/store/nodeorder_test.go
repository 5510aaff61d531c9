package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// take begins an operation on a host, as its workflow does.
func (f *fixture) take(t *testing.T, op fleet.Operation) {
	t.Helper()
	_, err := f.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(t.Context(), op.ID, op.Host)
	require.NoError(t, err)
}

// leave ends it.
func (f *fixture) leave(t *testing.T, op fleet.Operation, event fleet.HostEvent, reason string) {
	t.Helper()
	require.NoError(t, f.endRun(t.Context(), op.ID, op.Host, fleet.HostRunSucceeded, reason, event))
	require.NoError(t, f.EndOperation(t.Context(), op.ID, fleet.OperationSucceeded, ""))
}

// nodeOf makes a host a node that is ready, of a cluster whose manager has nodes.
func (f *fixture) nodeOf(t *testing.T, address, cluster string) {
	t.Helper()
	op := f.newHost(t, address, cluster)
	f.take(t, op)
	require.NoError(t, f.RecordFacts(t.Context(), op.ID, address, fleet.Facts{OS: "fedora"}))
	_, err := f.ClaimNode(t.Context(), op.ID, address)
	require.NoError(t, err)
	f.leave(t, op, fleet.HostRegistered, "")
}

// unfinished is what is on order for a host, as "kind manager".
func (f *fixture) unfinished(t *testing.T, address string) string {
	t.Helper()
	return f.scan(t, "SELECT coalesce(string_agg(kind || ' ' || manager, ', '), '') FROM operation WHERE host = $1 AND finished IS NULL", address)
}

// theOne gives the only one of some operations, which must be of this kind.
func theOne(t *testing.T, kind fleet.OperationKind, ops []fleet.Operation) fleet.Operation {
	t.Helper()
	require.Len(t, ops, 1)
	require.Equal(t, kind, ops[0].Kind)
	require.Equal(t, fleet.OperationPending, ops[0].State)
	require.Equal(t, 1, ops[0].Hosts)
	return ops[0]
}

func TestABootstrapByWorkers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "k", fleet.ContainerManagerKubernetes)
	f.nodeOf(t, "h", "c")
	require.Equal(t, fleet.HostActive, f.state(t, "h"))
	require.Equal(t, []string{"h k"}, f.nodes(t))
	n, err := f.HostNode(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, Node{Manager: "k", Type: fleet.ContainerManagerKubernetes, Holder: "k", Ready: true}, n)
	require.Equal(t, fleet.HostActive, f.recover(t, "h"))

	// Once more, and now the node is not ready.
	op := f.start(t, fleet.KindBootstrap, "", "h")
	f.take(t, op)
	require.NoError(t, f.RecordFacts(ctx, op.ID, "h", fleet.Facts{OS: "fedora"}))
	f.leave(t, op, fleet.HostPrepared, "node h was not ready in time")
	h, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, fleet.HostDisassociated, h.State)
	require.Equal(t, "node h was not ready in time", h.Reason)
	require.Equal(t, []string{"h k"}, f.nodes(t), "it is still a node")
	require.Equal(t, fleet.HostDisassociated, f.recover(t, "h"), "and no rollout makes it active")

	// A host whose register never came to be.
	f.host(t, "plain", "c")
	h, err = f.Host(ctx, "plain")
	require.NoError(t, err)
	require.Equal(t, fleet.HostDisassociated, h.State)
	require.Contains(t, h.Reason, "container manager k does not have it yet")
}

func TestJoiningByWorkers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "k", fleet.ContainerManagerKubernetes)
	f.managed(t, "list", "m", fleet.ContainerManagerTrivial)
	f.cluster(t, "bare")
	f.hosts(t, "", 3)
	require.NoError(t, f.AddMember(ctx, "list", "h1"))
	require.NoError(t, f.RemoveMember(ctx, "list", "h1"))

	ops, err := f.Store.AddMember(ctx, "c", "h1", tester)
	require.NoError(t, err)
	op := theOne(t, fleet.KindRegister, ops)
	require.Equal(t, []string{"h1", "k", "tester", "r1"}, []string{op.Host, op.Manager, op.RequestedBy, op.RequestID})
	h, err := f.Host(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, fleet.HostDisassociated, h.State)
	require.Equal(t, "is being registered with container manager k", h.Reason)
	ops, err = f.Store.AddMember(ctx, "c", "h1", tester)
	require.NoError(t, err)
	require.Empty(t, ops, "a member stays one")

	f.take(t, op)
	for range 2 {
		m, err := f.ClaimNode(ctx, op.ID, "h1")
		require.NoError(t, err)
		require.Equal(t, "k", m.Name)
	}
	require.Equal(t, []string{"h1 k"}, f.nodes(t))
	n, err := f.HostNode(ctx, "h1")
	require.NoError(t, err)
	require.False(t, n.Ready)
	f.leave(t, op, fleet.HostRegistered, "")
	h, err = f.Host(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, fleet.HostActive, h.State)
	require.Empty(t, h.Reason)

	// Several at once; one fails and says why, one is cut off.
	_, ops, err = f.Store.ReplaceMembers(ctx, "c", []string{"h1"}, []string{"h3", "h1", "h2"}, tester)
	require.NoError(t, err)
	require.Len(t, ops, 2)
	require.NoError(t, f.db.For(fleet.DefaultTenant).EndOperation(ctx, ops[0].ID, fleet.OperationFailed, "terminated"))
	f.take(t, ops[1])
	require.NoError(t, f.EndOperation(ctx, ops[1].ID, fleet.OperationFailed, "terminated"))
	for _, address := range []string{"h2", "h3"} {
		h, err := f.Host(ctx, address)
		require.NoError(t, err)
		require.Equal(t, fleet.HostDisassociated, h.State, "nothing is wrong with the host itself")
	}
	require.Equal(t, "terminated", f.scan(t, "SELECT reason FROM host WHERE address = $1", ops[1].Host))

	// Who is left out of the list stays a node, which goes when the host joins others.
	_, err = f.ReplaceMembers(ctx, "c", []string{"h1", "h2", "h3"}, []string{"h2", "h3"})
	require.NoError(t, err)
	require.Equal(t, "", f.unfinished(t, "h1"))
	ops, err = f.Store.AddMember(ctx, "bare", "h1", tester)
	require.NoError(t, err)
	op = theOne(t, fleet.KindUnregister, ops)
	require.Equal(t, "k", op.Manager)
	require.Equal(t, []string{"h1 k"}, f.nodes(t))
	f.take(t, op)
	require.NoError(t, f.NodeRemoved(ctx, op.ID))
	f.leave(t, op, "", "")
	require.Equal(t, []string{}, f.nodes(t))
}

func TestLeavingByWorkers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "k", fleet.ContainerManagerKubernetes)
	f.managed(t, "list", "m", fleet.ContainerManagerTrivial)
	f.nodeOf(t, "h", "c")
	f.nodeOf(t, "other", "c")

	ops, err := f.Store.RemoveMember(ctx, "c", "h", tester)
	require.NoError(t, err)
	op := theOne(t, fleet.KindUnregister, ops)
	require.Equal(t, "k", op.Manager)
	require.Equal(t, fleet.HostActive, f.state(t, "h"), "the state stays (contract §3.3)")
	ops, err = f.Store.RemoveMember(ctx, "c", "h", tester)
	require.NoError(t, err)
	require.Empty(t, ops)
	for _, cluster := range []string{"c", "list"} {
		err = f.AddMember(ctx, cluster, "h")
		requireKind(t, fleet.Conflict, err)
		require.Equal(t, op.ID, holder(t, err).ID)
		require.ErrorContains(t, err, "or delete container manager k, which ends it and leaves the node there")
	}

	// It goes on when the host is deleted, and keeps the address until its end.
	cancelled, ordered, err := f.Store.DeleteHost(ctx, "h", tester)
	require.NoError(t, err)
	require.Empty(t, cancelled)
	require.Empty(t, ordered)
	_, _, err = f.PutHost(ctx, HostPut{Address: "h", Creds: creds("key")})
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, op.ID, holder(t, err).ID)
	f.take(t, op)
	_, err = f.BeginStep(ctx, op.ID, "h", "unregister", 1)
	require.NoError(t, err)
	require.NoError(t, f.SetWaiting(ctx, op.ID, "the manager is away"))
	got, err := f.Operation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, "the manager is away", got.Waiting)
	require.NoError(t, f.NodeRemoved(ctx, op.ID))
	f.leave(t, op, "", "")
	got, err = f.Operation(ctx, op.ID)
	require.NoError(t, err)
	require.Empty(t, got.Waiting)
	require.Equal(t, []string{"other k"}, f.nodes(t))
	f.newHost(t, "h", "")

	ops, err = f.Store.DeleteCluster(ctx, "c", tester)
	require.NoError(t, err)
	require.Equal(t, "other", theOne(t, fleet.KindUnregister, ops).Host)
	require.Equal(t, fleet.HostActive, f.state(t, "other"))
}

// TestLeavingMeanwhile: who leaves while an operation is at it is removed at its end.
func TestLeavingMeanwhile(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "k", fleet.ContainerManagerKubernetes)
	f.host(t, "joins", "")
	ops, err := f.Store.AddMember(ctx, "c", "joins", tester)
	require.NoError(t, err)
	register := theOne(t, fleet.KindRegister, ops)
	bootstrap := f.newHost(t, "boots", "c")
	deleted := f.newHost(t, "deleted", "c")
	for _, op := range []fleet.Operation{register, bootstrap, deleted} {
		f.take(t, op)
		_, err = f.ClaimNode(ctx, op.ID, op.Host)
		require.NoError(t, err)
	}
	require.NoError(t, f.RecordFacts(ctx, bootstrap.ID, "boots", fleet.Facts{OS: "fedora"}))
	for _, address := range []string{"joins", "boots"} {
		ops, err = f.Store.RemoveMember(ctx, "c", address, tester)
		require.NoError(t, err)
		require.Empty(t, ops)
	}
	f.leave(t, register, fleet.HostRegistered, "")
	f.leave(t, bootstrap, fleet.HostRegistered, "")
	require.Equal(t, "unregister k", f.unfinished(t, "joins"))
	require.Equal(t, "unregister k", f.unfinished(t, "boots"))
	require.Equal(t, fleet.HostDisassociated, f.state(t, "joins"), "as when it left")
	require.Equal(t, fleet.HostDisassociated, f.state(t, "boots"))

	cancelled, ordered, err := f.Store.DeleteHost(ctx, "deleted", tester)
	require.NoError(t, err)
	require.Len(t, cancelled, 1)
	require.Equal(t, fleet.OperationCancelled, cancelled[0].State)
	require.Equal(t, "deleted", theOne(t, fleet.KindUnregister, ordered).Host)
	_, err = f.ClaimNode(ctx, deleted.ID, "deleted")
	requireKind(t, fleet.Conflict, err)

	// Whatever would ask a container manager ends with it.
	ended, err := f.Store.DeleteContainerManager(ctx, "k", false)
	require.NoError(t, err)
	require.Len(t, ended, 3)
	for _, op := range ended {
		require.Equal(t, fleet.OperationFailed, op.State)
		require.Contains(t, op.Reason, "container manager k was deleted")
	}
	require.Equal(t, []string{}, f.nodes(t))
}

// TestNothingIsClaimedForWhoLeft: the step finds that there is nothing to do.
func TestNothingIsClaimedForWhoLeft(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "k", fleet.ContainerManagerKubernetes)
	op := f.newHost(t, "h", "c")
	f.take(t, op)
	require.NoError(t, f.RemoveMember(ctx, "c", "h"))
	m, err := f.ClaimNode(ctx, op.ID, "h")
	require.NoError(t, err)
	require.Empty(t, m.Name)
	require.Equal(t, []string{}, f.nodes(t))
	require.NoError(t, f.RecordFacts(ctx, op.ID, "h", fleet.Facts{OS: "fedora"}))
	f.leave(t, op, fleet.HostPrepared, "")
	require.Equal(t, fleet.HostDisassociated, f.state(t, "h"))
	require.Equal(t, "", f.unfinished(t, "h"))
}

func TestUncheckedContainerManagers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	kube := func(token string) fleet.ContainerManager {
		return fleet.ContainerManager{Name: "k", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{"token": token}}
	}
	_, first, err := f.Store.PutContainerManager(ctx, kube("one"))
	require.NoError(t, err)
	require.NotEmpty(t, first)
	names, err := f.ContainerManagers(ctx)
	require.NoError(t, err)
	require.Empty(t, names)
	_, err = f.ContainerManager(ctx, "k")
	requireKind(t, fleet.NotFound, err)
	_, err = f.OpenContainerManager(ctx, "k", "")
	requireKind(t, fleet.NotFound, err)
	requireKind(t, fleet.NotFound, f.DeleteContainerManager(ctx, "k"))

	// Somebody overtakes it.
	_, second, err := f.Store.PutContainerManager(ctx, kube("two"))
	require.NoError(t, err)
	requireKind(t, fleet.Conflict, f.ContainerManagerChecked(ctx, "k", first))
	require.NoError(t, f.ContainerManagerRefused(ctx, "k", first), "it is gone already")
	_, err = f.OpenContainerManager(ctx, "k", first)
	requireKind(t, fleet.NotFound, err)
	m, err := f.OpenContainerManager(ctx, "k", second)
	require.NoError(t, err)
	require.Equal(t, kube("two"), m)
	require.NoError(t, f.ContainerManagerChecked(ctx, "k", second))
	m, err = f.OpenContainerManager(ctx, "k", "")
	require.NoError(t, err)
	require.Equal(t, kube("two"), m)
	require.NoError(t, f.ContainerManagerRefused(ctx, "k", second), "what is checked stays")

	_, check, err := f.Store.PutContainerManager(ctx, kube("two"))
	require.NoError(t, err)
	require.Empty(t, check, "it is there already")
	_, _, err = f.Store.PutContainerManager(ctx, kube("three"))
	requireKind(t, fleet.Conflict, err)
	_, refused, err := f.Store.PutContainerManager(ctx, fleet.ContainerManager{Name: "l", Type: fleet.ContainerManagerOpenShift})
	require.NoError(t, err)
	require.NoError(t, f.ContainerManagerRefused(ctx, "l", refused))
	require.Equal(t, "1", f.scan(t, "SELECT count(*)::text FROM container_manager"))
}

func TestStatusOfNodes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "k", fleet.ContainerManagerKubernetes)
	f.nodeOf(t, "h", "c")
	status := func() (string, bool) {
		n, err := f.HostNode(ctx, "h")
		require.NoError(t, err)
		return string(n.Status), n.Fresh
	}
	began := time.Now()
	// What is said is fresh for 5 s, and a busy machine may take those for the next line.
	isFresh := func(fresh bool) {
		t.Helper()
		require.True(t, fresh || time.Since(began) > 5*time.Second)
	}
	require.NoError(t, f.SetNodeStatus(ctx, "h", "k", []byte(`{"kind": "Node"}`)))
	said, fresh := status()
	require.JSONEq(t, `{"kind": "Node"}`, said)
	isFresh(fresh)
	f.exec(t, "UPDATE node SET status_at = now() - interval '6 s'")
	_, fresh = status()
	require.False(t, fresh)
	require.NoError(t, f.SetNodeStatus(ctx, "h", "another", []byte(`{}`)))
	require.NoError(t, f.SetNodeStatus(ctx, "nope", "k", []byte(`{}`)))
	said, _ = status()
	require.JSONEq(t, `{"kind": "Node"}`, said)
	began = time.Now()
	require.NoError(t, f.SetNodeStatus(ctx, "h", "k", []byte(`{"a": "\u0000"}`)), "no column holds it")
	said, fresh = status()
	require.Empty(t, said)
	isFresh(fresh)
}

// TestNodeRaces lets hosts come and go while workers are at them. Whoever wins, no node
// that a container manager may have is forgotten, and nobody meets a deadlock.
func TestNodeRaces(t *testing.T) {
	t.Parallel()
	const rounds, hosts = 10, 5
	f := setup(t)
	ctx := t.Context()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		cluster, manager := fmt.Sprint("c", round), fmt.Sprint("m", round)
		f.managed(t, cluster, manager, fleet.ContainerManagerKubernetes)
		var calls []func() error
		for i := range hosts {
			address := fmt.Sprintf("h%d-%d", round, i)
			f.host(t, address, "")
			ops, err := f.Store.AddMember(ctx, cluster, address, tester)
			require.NoError(t, err)
			op := theOne(t, fleet.KindRegister, ops)
			f.take(t, op)
			calls = append(calls,
				func() error {
					_, err := f.ClaimNode(ctx, op.ID, address)
					return err
				},
				func() error {
					if err := f.endRun(ctx, op.ID, address, fleet.HostRunSucceeded, "", fleet.HostRegistered); err != nil {
						return err
					}
					return f.EndOperation(ctx, op.ID, fleet.OperationSucceeded, "")
				},
				func() error { return f.RemoveMember(ctx, cluster, address) },
				func() error { return f.AddMember(ctx, cluster, address) },
			)
			if i == 0 {
				calls = append(calls, func() error { _, err := f.DeleteHost(ctx, address, "ann"); return err })
			}
		}
		switch round % 3 {
		case 1:
			calls = append(calls, func() error { return f.DeleteContainerManager(ctx, manager) })
		case 2:
			calls = append(calls, func() error { return f.DeleteCluster(ctx, cluster) })
		}
		r.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
		for _, err := range together(len(calls), func(i int) error { return calls[i]() }) {
			if err != nil && fleet.KindOf(err) != fleet.NotFound {
				requireKind(t, fleet.Conflict, err)
			}
		}
		for name, sql := range invariants {
			require.Equal(t, "0", f.scan(t, sql, fleet.DefaultTenant), name)
		}
		lost := f.scan(t, `SELECT coalesce(string_agg(n.address, ' '), '') FROM node n JOIN host h ON h.address = n.address
			WHERE h.cluster IS NULL AND NOT EXISTS (SELECT FROM operation o WHERE o.host = n.address AND o.finished IS NULL)`)
		require.Empty(t, lost, "nodes of hosts in no cluster that nobody removes")
	}
	f.db.Close()
	require.Equal(t, "0", f.scan(t, "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"))
}
