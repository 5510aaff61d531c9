package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

func anyFits(fleet.ContainerManager) error { return nil }

// replace gives a container manager of type kubernetes other options, as a worker that
// finds them good lets it.
func (f *fixture) replace(t testing.TB, name string, options map[string]any) {
	t.Helper()
	_, check, err := f.ReplaceContainerManager(t.Context(), fleet.ContainerManager{Name: name, Type: fleet.ContainerManagerKubernetes, Options: options}, anyFits)
	require.NoError(t, err)
	require.NoError(t, f.ContainerManagerChecked(t.Context(), name, check))
}

func TestOptionsAreReplacedOnceTheyAreChecked(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	kube := func(options map[string]any) fleet.ContainerManager {
		return fleet.ContainerManager{Name: "k", Type: fleet.ContainerManagerKubernetes, Options: options}
	}
	old := map[string]any{"server_url": "https://192.0.2.1", "token": "old", "max_unavailable": 2.0}
	_, _, err := f.ReplaceContainerManager(ctx, kube(old), anyFits)
	requireKind(t, fleet.NotFound, err)
	_, err = f.PutContainerManager(ctx, kube(old))
	require.NoError(t, err)
	inForce := func(want map[string]any) {
		t.Helper()
		m, err := f.OpenContainerManager(ctx, "k", "")
		require.NoError(t, err)
		require.Equal(t, kube(want), m)
		names, err := f.ContainerManagers(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"k"}, names)
	}

	// What is not given goes; what is given as it is shown stays.
	given := map[string]any{"server_url": "https://192.0.2.2", "token": secret.Redacted, "ready_timeout": "1m"}
	want := map[string]any{"server_url": "https://192.0.2.2", "token": "old", "ready_timeout": "1m"}
	m, check, err := f.ReplaceContainerManager(ctx, kube(given), func(m fleet.ContainerManager) error {
		require.Equal(t, kube(want), m)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, kube(given), m)
	require.NotEmpty(t, check)
	inForce(old)
	m, err = f.OpenContainerManager(ctx, "k", check)
	require.NoError(t, err)
	require.Equal(t, kube(want), m, "as its worker sees it")
	require.NoError(t, f.ContainerManagerChecked(ctx, "k", check))
	inForce(want)
	requireKind(t, fleet.Conflict, f.ContainerManagerChecked(ctx, "k", check))
	m, check, err = f.ReplaceContainerManager(ctx, kube(given), anyFits)
	require.NoError(t, err)
	require.Equal(t, kube(given), m)
	require.Empty(t, check, "nothing changes")

	// One that is refused changes nothing.
	_, check, err = f.ReplaceContainerManager(ctx, kube(old), anyFits)
	require.NoError(t, err)
	require.NoError(t, f.ContainerManagerRefused(ctx, "k", check))
	requireKind(t, fleet.Conflict, f.ContainerManagerChecked(ctx, "k", check))
	inForce(want)
	_, _, err = f.ReplaceContainerManager(ctx, kube(old), func(fleet.ContainerManager) error { return fleet.InvalidField("options.token", "no") })
	requireKind(t, fleet.Invalid, err)
	_, _, err = f.ReplaceContainerManager(ctx, fleet.ContainerManager{Name: "k", Type: fleet.ContainerManagerOpenShift, Options: old}, anyFits)
	requireKind(t, fleet.Conflict, err)
	inForce(want)

	// Of two at once one is in force, and the other is told.
	_, first, err := f.ReplaceContainerManager(ctx, kube(map[string]any{"token": "first"}), anyFits)
	require.NoError(t, err)
	_, second, err := f.ReplaceContainerManager(ctx, kube(map[string]any{"token": "second"}), anyFits)
	require.NoError(t, err)
	requireKind(t, fleet.Conflict, f.ContainerManagerChecked(ctx, "k", first))
	_, err = f.OpenContainerManager(ctx, "k", first)
	requireKind(t, fleet.NotFound, err)
	require.NoError(t, f.ContainerManagerChecked(ctx, "k", second))
	inForce(map[string]any{"token": "second"})

	// What was put beside other options than those in force now does not replace them.
	_, check, err = f.ReplaceContainerManager(ctx, kube(old), anyFits)
	require.NoError(t, err)
	require.NoError(t, f.DeleteContainerManager(ctx, "k"))
	require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM container_manager"))
	_, err = f.PutContainerManager(ctx, kube(want))
	require.NoError(t, err)
	requireKind(t, fleet.Conflict, f.ContainerManagerChecked(ctx, "k", check))
	_, check, err = f.ReplaceContainerManager(ctx, kube(old), anyFits)
	require.NoError(t, err)
	f.exec(t, "UPDATE container_manager SET created = now() WHERE name = 'k'")
	requireKind(t, fleet.Conflict, f.ContainerManagerChecked(ctx, "k", check))
	inForce(want)

	_, err = f.PutContainerManager(ctx, fleet.ContainerManager{Name: "list", Type: fleet.ContainerManagerTrivial})
	require.NoError(t, err)
	_, check, err = f.ReplaceContainerManager(ctx, fleet.ContainerManager{Name: "list", Type: fleet.ContainerManagerTrivial, Options: map[string]any{"a": "b"}}, anyFits)
	require.NoError(t, err)
	require.Empty(t, check, "there is nobody to ask")
	m, err = f.OpenContainerManager(ctx, "list", "")
	require.NoError(t, err)
	require.Equal(t, map[string]any{"a": "b"}, m.Options)
}

// TestANewTokenTakesNothingAway: nodes, cordons and the budget stay.
func TestANewTokenTakesNothingAway(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	options := map[string]any{"server_url": "https://192.0.2.1", "token": "old", "max_unavailable": 1.0}
	f.kube(t, "a", "k", options, 1, 3)
	f.kube(t, "b", "k", options, 11, 3)
	a := f.startOn(t, "a", 2)
	require.Equal(t, []Assignment{{"h1", false, 1, 1, true}}, f.claims(t, a.ID, 1).Assignments)
	_, err := f.BeginCordon(ctx, a.ID, "h1")
	require.NoError(t, err)

	f.replace(t, "k", map[string]any{"server_url": "https://192.0.2.1", "token": "new", "max_unavailable": 1.0})
	require.NoError(t, f.CordonStands(ctx, a.ID, "h1"))
	b := f.startOn(t, "b", 2)
	c := f.claims(t, b.ID, 1)
	require.Empty(t, c.Assignments)
	require.Contains(t, c.Waiting, "container manager k lets 1 of its nodes be away at once")
	m, out, err := f.BeginRestore(ctx, a.ID, "h1")
	require.NoError(t, err)
	require.True(t, out)
	require.Equal(t, "new", m.Options["token"])
	require.NoError(t, f.CordonRestored(ctx, a.ID, "h1"))
	f.ends(t, HostRunEnd{OperationID: a.ID, Address: "h1", State: fleet.HostRunSucceeded, Turn: 1})
	require.Equal(t, []Assignment{{"h11", false, 1, 2, true}}, f.claims(t, b.ID, 2).Assignments)
	ops, err := f.Store.DeleteCluster(ctx, "a", tester)
	require.NoError(t, err)
	require.Len(t, ops, 3)
}

// TestNodesThatWereLostAreStillNodes: hosts of a cluster whose container manager was made
// anew, or that was given one, are not taken away as if they were none.
func TestNodesThatWereLostAreStillNodes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.kube(t, "c", "k", nil, 1, 1)
	require.NoError(t, f.DeleteContainerManager(ctx, "k"))
	preview := func() bool {
		v, err := f.PreviewOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: "c"})
		require.NoError(t, err)
		return v.Hosts[0].Node
	}
	require.True(t, preview(), "one that does not exist cannot say that it has none")
	_, check, err := f.Store.PutContainerManager(ctx, fleet.ContainerManager{Name: "k", Type: fleet.ContainerManagerKubernetes})
	require.NoError(t, err)
	require.True(t, preview(), "nobody knows yet whether it is one")
	require.NoError(t, f.ContainerManagerChecked(ctx, "k", check))
	require.True(t, preview())
	nodes, err := f.NodesAmong(ctx, "k", []string{"h1"})
	require.NoError(t, err)
	require.Empty(t, nodes)
	op := f.rollout(t, NewOperation{})
	require.Equal(t, []Assignment{{"h1", false, 1, 1, true}}, f.claims(t, op.ID, 1).Assignments)
	require.Equal(t, []Assignment{{"h1", false, 1, 1, true}}, f.claims(t, op.ID, 1).Assignments)
	_, err = f.BeginCordon(ctx, op.ID, "h1")
	requireKind(t, fleet.Conflict, err)
}

// TestCordonsThatWereLeftAreTakenUp, when a container manager of that name is there again.
func TestCordonsThatWereLeftAreTakenUp(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.cordoned(t, 2)
	_, _, err := f.BeginRestore(ctx, op.ID, "h1")
	require.NoError(t, err)
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "the token has expired"))
	state, ended, err := f.CordonOf(ctx, op.ID, "h1")
	require.NoError(t, err)
	require.Equal(t, []any{fleet.CordonRestoring, true}, []any{state, ended})
	_, err = f.Store.DeleteContainerManager(ctx, "k", true)
	require.NoError(t, err)
	require.Equal(t, "left k", f.cordonOf(t, op.ID, "h1"))
	require.Empty(t, f.left(t))

	_, err = f.PutContainerManager(ctx, fleet.ContainerManager{Name: "other", Type: fleet.ContainerManagerKubernetes})
	require.NoError(t, err)
	again := fleet.ContainerManager{Name: "k", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{"token": "new"}}
	_, check, err := f.Store.PutContainerManager(ctx, again)
	require.NoError(t, err)
	require.Empty(t, f.left(t), "it may be refused")
	require.NoError(t, f.ContainerManagerChecked(ctx, "k", check))
	require.Equal(t, []HostCordon{{Tenant: fleet.DefaultTenant, OperationID: op.ID, Address: "h1"}}, f.left(t))
	m, out, err := f.BeginRestore(ctx, op.ID, "h1")
	require.NoError(t, err)
	require.True(t, out)
	require.Equal(t, again, m)
	_, _, err = f.CordonOf(ctx, op.ID, "h9")
	requireKind(t, fleet.NotFound, err)
}

func TestAnOperationSaysWhoHoldsItsHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.kube(t, "c", "k", nil, 1, 1)
	rollout := f.rollout(t, NewOperation{})
	f.claims(t, rollout.ID, 1)
	_, ordered, err := f.Store.DeleteHost(ctx, "h1", tester)
	require.NoError(t, err)
	require.Len(t, ordered, 1)
	id := ordered[0].ID
	_, err = f.BeginOperation(ctx, id)
	require.NoError(t, err)
	waiting := func() string {
		op, err := f.Operation(ctx, id)
		require.NoError(t, err)
		return op.Waiting
	}
	_, err = f.BeginHostRun(ctx, id, "h1")
	require.Equal(t, rollout.ID, holder(t, err).ID)
	require.Equal(t, "operation "+rollout.ID+" (restart of cluster c) holds the host", waiting())
	f.ends(t, HostRunEnd{OperationID: rollout.ID, Address: "h1", State: fleet.HostRunSucceeded, Turn: 1})
	_, err = f.BeginHostRun(ctx, id, "h1")
	require.NoError(t, err)
	require.Empty(t, waiting())
}

func TestAddressesThatCannotBeNodes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "nodes", "k", fleet.ContainerManagerKubernetes)
	f.managed(t, "list", "m", fleet.ContainerManagerTrivial)
	for _, address := range []string{"2001:db8::1", "web_1"} {
		refused := func(err error) {
			t.Helper()
			requireKind(t, fleet.Invalid, err)
			var e *fleet.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "address", e.Fields[0].Field)
			require.Contains(t, e.Detail, address)
		}
		_, _, err := f.PutHost(ctx, HostPut{Address: address, Cluster: "nodes", Creds: creds("key")})
		refused(err)
		f.host(t, address, "")
		refused(f.AddMember(ctx, "nodes", address))
		_, err = f.ReplaceMembers(ctx, "nodes", nil, []string{address})
		refused(err)
		require.NoError(t, f.AddMember(ctx, "list", address))
	}
	require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM operation WHERE finished IS NULL"))
}
