package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// nodes lists who holds which host, as "address manager".
func (f *fixture) nodes(t *testing.T) []string {
	t.Helper()
	var out []string
	require.NoError(t, f.sql.QueryRow(t.Context(), "SELECT coalesce(array_agg(address || ' ' || manager ORDER BY address), '{}') FROM node").Scan(&out))
	return out
}

// recover ends a rollout's part on a host that was lost and came back.
func (f *fixture) recover(t *testing.T, address string) fleet.HostState {
	t.Helper()
	f.exec(t, "UPDATE host SET state = 'failed', reason = 'lost' WHERE address = $1", address)
	op := f.start(t, fleet.KindRestart, "", address)
	_, err := f.BeginHostRun(t.Context(), op.ID, address)
	require.NoError(t, err)
	require.NoError(t, f.endRun(t.Context(), op.ID, address, fleet.HostRunSucceeded, "", fleet.HostRecovered))
	require.NoError(t, f.EndOperation(t.Context(), op.ID, fleet.OperationSucceeded, ""))
	return f.state(t, address)
}

func TestJoiningRegisters(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "m", fleet.ContainerManagerTrivial)
	f.managed(t, "d", "n", fleet.ContainerManagerTrivial)
	f.cluster(t, "bare")
	f.hosts(t, "", 4)

	require.NoError(t, f.AddMember(ctx, "c", "h1"))
	_, err := f.ReplaceMembers(ctx, "c", []string{"h1"}, []string{"h3", "h2", "h1"})
	require.NoError(t, err)
	require.Equal(t, []string{"h1 m", "h2 m", "h3 m"}, f.nodes(t))
	for _, address := range []string{"h1", "h2", "h3"} {
		require.Equal(t, fleet.HostActive, f.state(t, address))
	}
	n, err := f.HostNode(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, Node{Manager: "m", Type: fleet.ContainerManagerTrivial, Holder: "m", Ready: true}, n)
	_, err = f.HostNode(ctx, "nope")
	requireKind(t, fleet.NotFound, err)

	require.NoError(t, f.RemoveMember(ctx, "d", "h1"), "it is not in d")
	require.NoError(t, f.RemoveMember(ctx, "c", "h1"))
	require.Equal(t, []string{"h2 m", "h3 m"}, f.nodes(t))
	require.Equal(t, fleet.HostActive, f.state(t, "h1"), "the state stays (contract §3.3)")
	n, err = f.HostNode(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, Node{}, n)

	_, err = f.ReplaceMembers(ctx, "c", []string{"h2", "h3"}, []string{"h3"})
	require.NoError(t, err)
	require.Equal(t, []string{"h2 m", "h3 m"}, f.nodes(t), "who is left out stays registered (contract §3.3)")
	n, err = f.HostNode(ctx, "h2")
	require.NoError(t, err)
	require.False(t, n.Held(), "its cluster has no container manager, for it has no cluster")
	require.NoError(t, f.AddMember(ctx, "d", "h2"))
	require.Equal(t, []string{"h2 n", "h3 m"}, f.nodes(t), "one manager holds it")
	require.NoError(t, f.RemoveMember(ctx, "d", "h2"))

	_, err = f.ReplaceMembers(ctx, "c", []string{"h3"}, nil)
	require.NoError(t, err)
	require.NoError(t, f.AddMember(ctx, "bare", "h3"))
	require.Equal(t, []string{}, f.nodes(t), "nobody holds it there")
	require.Equal(t, fleet.HostDisassociated, f.state(t, "h3"))
}

func TestWhatIsGoneIsNotRegistered(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "m", fleet.ContainerManagerTrivial)
	_, err := f.PutCluster(ctx, ClusterPut{Name: "d", ContainerManager: text("m")})
	require.NoError(t, err)
	f.hosts(t, "", 5)
	for cluster, addresses := range map[string][]string{"c": {"h1", "h2", "h3"}, "d": {"h4", "h5"}} {
		_, err = f.ReplaceMembers(ctx, cluster, nil, addresses)
		require.NoError(t, err)
	}
	_, err = f.DeleteHost(ctx, "h1", "ann")
	require.NoError(t, err)
	require.Equal(t, []string{"h2 m", "h3 m", "h4 m", "h5 m"}, f.nodes(t))
	require.NoError(t, f.DeleteCluster(ctx, "c"))
	require.Equal(t, []string{"h4 m", "h5 m"}, f.nodes(t), "only those of the cluster")
	require.Equal(t, fleet.HostActive, f.state(t, "h2"))
	require.Equal(t, fleet.HostDisassociated, f.recover(t, "h2"))

	require.Equal(t, fleet.HostActive, f.recover(t, "h4"))
	require.NoError(t, f.DeleteContainerManager(ctx, "m"))
	require.Equal(t, []string{}, f.nodes(t))
	require.Equal(t, fleet.HostActive, f.state(t, "h4"))
	n, err := f.HostNode(ctx, "h4")
	require.NoError(t, err)
	require.Equal(t, Node{Manager: "m"}, n)
	require.Equal(t, fleet.HostDisassociated, f.recover(t, "h4"))
}

func TestManagersThatCannotRegister(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	_, err := f.PutCluster(ctx, ClusterPut{Name: "unknown", ContainerManager: text("x")})
	require.NoError(t, err)
	_, _, err = f.Store.PutContainerManager(ctx, fleet.ContainerManager{Name: "y", Type: fleet.ContainerManagerKubernetes})
	require.NoError(t, err)
	_, err = f.PutCluster(ctx, ClusterPut{Name: "unchecked", ContainerManager: text("y")})
	require.NoError(t, err)
	f.host(t, "h", "")
	f.exec(t, "UPDATE host SET state = 'active' WHERE address = 'h'")
	for cluster, says := range map[string]string{
		"unknown":   `container manager "x" of the cluster does not exist`,
		"unchecked": `container manager "y" of the cluster does not exist`,
	} {
		_, err := f.ReplaceMembers(ctx, cluster, nil, []string{"h"})
		for _, err := range []error{err, f.AddMember(ctx, cluster, "h")} {
			requireKind(t, fleet.Conflict, err)
			require.ErrorContains(t, err, says)
			require.ErrorContains(t, err, "; container_manager: ")
		}
		require.Empty(t, f.members(t, cluster), "nothing is changed")
		require.Equal(t, fleet.HostActive, f.state(t, "h"))
		_, err = f.ReplaceMembers(ctx, cluster, nil, nil)
		require.NoError(t, err, "nobody joins")

		f.host(t, "in-"+cluster, cluster)
		h, err := f.Host(ctx, "in-"+cluster)
		require.NoError(t, err)
		require.Equal(t, fleet.HostDisassociated, h.State, "its bootstrap did not fail")
		require.Contains(t, h.Reason, says)
		require.NotContains(t, h.Reason, "container_manager:")
		require.False(t, h.Bootstrapped.IsZero())
		require.Equal(t, fleet.HostDisassociated, f.recover(t, h.Address))
	}
	require.Equal(t, []string{}, f.nodes(t))
}

func TestABootstrapRegisters(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "m", fleet.ContainerManagerTrivial)
	f.host(t, "h", "c")
	h, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, fleet.HostActive, h.State)
	require.False(t, h.Bootstrapped.IsZero())
	require.NotEmpty(t, h.OperationID)
	require.Equal(t, []string{"h m"}, f.nodes(t))
	require.Equal(t, fleet.HostActive, f.recover(t, "h"))

	f.bootstrap(t, f.start(t, fleet.KindBootstrap, "", "h"), fleet.HostRunFailed, fleet.HostBroke)
	require.Equal(t, fleet.HostFailed, f.state(t, "h"))
	require.Equal(t, []string{"h m"}, f.nodes(t))
	f.bootstrap(t, f.start(t, fleet.KindBootstrap, "", "h"), fleet.HostRunSucceeded, fleet.HostPrepared)
	require.Equal(t, fleet.HostActive, f.state(t, "h"))

	// The cluster goes on without a container manager; the next bootstrap finds out.
	_, err = f.PutCluster(ctx, ClusterPut{Name: "c", ContainerManager: text("")})
	require.NoError(t, err)
	require.Equal(t, []string{"h m"}, f.nodes(t))
	require.Equal(t, fleet.HostActive, f.recover(t, "h"))
	f.bootstrap(t, f.start(t, fleet.KindBootstrap, "", "h"), fleet.HostRunSucceeded, fleet.HostPrepared)
	require.Equal(t, fleet.HostDisassociated, f.state(t, "h"))
	require.Equal(t, []string{}, f.nodes(t))
}

// TestTheEndOfAnOldOperationRegistersNobody: the host at its address was added again.
func TestTheEndOfAnOldOperationRegistersNobody(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "m", fleet.ContainerManagerTrivial)
	f.hosts(t, "c", 1)
	op := f.start(t, fleet.KindRestart, "c", "")
	_, err := f.BeginHostRun(ctx, op.ID, "h1")
	require.NoError(t, err)
	_, err = f.DeleteHost(ctx, "h1", "ann")
	require.NoError(t, err)
	f.newHost(t, "h1", "c")
	require.NoError(t, f.endRun(ctx, op.ID, "h1", fleet.HostRunSucceeded, "", fleet.HostPrepared))
	require.Equal(t, fleet.HostInvestigating, f.state(t, "h1"))
	require.Equal(t, []string{}, f.nodes(t))
}
