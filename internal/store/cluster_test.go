package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestClusters(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	names, err := f.Clusters(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{}, names)

	for _, name := range []string{"b", "a", "B"} {
		f.cluster(t, name)
	}
	names, err = f.Clusters(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"B", "a", "b"}, names)

	require.NoError(t, f.DeleteCluster(ctx, "b"))
	requireKind(t, fleet.NotFound, f.DeleteCluster(ctx, "b"))
	_, err = f.Cluster(ctx, "b")
	requireKind(t, fleet.NotFound, err)

	others, err := f.db.For("other").Clusters(ctx)
	require.NoError(t, err)
	require.Empty(t, others, "another tenant sees nothing")
	_, err = f.db.For("other").PutCluster(ctx, ClusterPut{Name: "x"})
	requireKind(t, fleet.NotFound, err)
}

func TestPutCluster(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	_, err := f.PutNetwork(ctx, fleet.Network{Name: "net", Type: fleet.NetworkFlannelServer})
	require.NoError(t, err)

	for _, c := range []struct {
		name          string
		network, want *string
	}{
		{"none", nil, text("default")},
		{"known", text("net"), text("net")},
		{"unknown", text("nope"), text("default")},
		{"empty", text(""), text("")},
	} {
		got, err := f.PutCluster(ctx, ClusterPut{Name: c.name, Network: c.network})
		require.NoError(t, err)
		require.Equal(t, *c.want, got.Network, c.name)
		require.Empty(t, got.ContainerManager)
		require.False(t, got.Created.IsZero())
	}

	f.host(t, "h1", "known")
	got, err := f.PutCluster(ctx, ClusterPut{Name: "known", ContainerManager: text("k8s")})
	require.NoError(t, err)
	require.Equal(t, "net", got.Network, "what is not given stays")
	require.Equal(t, "k8s", got.ContainerManager)
	got, err = f.PutCluster(ctx, ClusterPut{Name: "known", Network: text("unchecked")})
	require.NoError(t, err)
	require.Equal(t, "unchecked", got.Network)
	require.Equal(t, "k8s", got.ContainerManager)
	require.Equal(t, []string{"h1"}, f.members(t, "known"), "members stay")
}

func TestClusterView(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	v, err := f.Cluster(t.Context(), "c")
	require.NoError(t, err)
	require.Equal(t, []string{}, v.Members)
	require.Equal(t, "ok", v.Counts.Status())

	f.hosts(t, "c", 3)
	f.host(t, "lonely", "")
	f.exec(t, "UPDATE host SET state = 'active' WHERE address = 'h2'")
	v, err = f.Cluster(t.Context(), "c")
	require.NoError(t, err)
	require.Equal(t, []string{"h1", "h2", "h3"}, v.Members)
	require.Equal(t, fleet.HostCounts{Total: 3, Available: 1}, v.Counts)
	require.Equal(t, "degraded", v.Counts.Status())
}

func TestDeleteClusterKeepsHostsAndOperations(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 2)
	f.exec(t, "UPDATE host SET state = 'active' WHERE address = 'h1'")
	op := f.start(t, fleet.KindRestart, "c", "")
	require.NoError(t, f.DeleteCluster(ctx, "c"))

	h, err := f.Host(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, fleet.HostActive, h.State)
	require.Empty(t, h.Cluster)
	latest, err := f.LatestOperation(ctx, fleet.KindRestart, "c", "")
	require.NoError(t, err)
	require.Equal(t, op.ID, latest.ID)
	c := f.claims(t, op.ID, 1)
	require.Empty(t, c.Assignments)
	require.Equal(t, fleet.OperationCancelled, c.End)
	require.Equal(t, `cluster "c" was deleted`, c.Reason)

	f.cluster(t, "c")
	require.NoError(t, f.AddMember(ctx, "c", "h2"))
	c = f.claims(t, op.ID, 2)
	require.Empty(t, c.Assignments)
	require.Equal(t, fleet.OperationCancelled, c.End)
	require.Equal(t, `cluster "c" was deleted, and another one made under its name`, c.Reason)
	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunPending, runs[1].State, "the end of the operation says why, not the host")
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	names, err := f.Networks(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"default"}, names)

	want := fleet.Network{Name: "n", Type: fleet.NetworkFlannelServer, Options: map[string]any{"address": "192.0.2.1:8080", "deep": map[string]any{"a": 1.0}}}
	for range 2 {
		got, err := f.PutNetwork(ctx, want)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := f.Network(ctx, "n")
	require.NoError(t, err)
	require.Equal(t, want, got)

	other := want
	other.Options = nil
	_, err = f.PutNetwork(ctx, other)
	requireKind(t, fleet.Conflict, err)
	other = want
	other.Type = fleet.NetworkFlannelEtcd
	_, err = f.PutNetwork(ctx, other)
	requireKind(t, fleet.Conflict, err)
	_, err = f.PutNetwork(ctx, fleet.Network{Name: "z", Type: fleet.NetworkFlannelEtcd, Options: map[string]any{"a": "\x00"}})
	requireKind(t, fleet.Invalid, err)

	require.NoError(t, f.DeleteNetwork(ctx, "n"))
	requireKind(t, fleet.NotFound, f.DeleteNetwork(ctx, "n"))
	_, err = f.Network(ctx, "n")
	requireKind(t, fleet.NotFound, err)
	require.NoError(t, f.DeleteNetwork(ctx, "default"), "the default one may go too")
	f.cluster(t, "c")
	v, err := f.Cluster(ctx, "c")
	require.NoError(t, err)
	require.Equal(t, "default", v.Network)
}

func TestConcurrentPutNetwork(t *testing.T) {
	t.Parallel()
	f := setup(t)
	errs := together(20, func(i int) error {
		options := map[string]any{"side": float64(i % 2)}
		_, err := f.PutNetwork(t.Context(), fleet.Network{Name: "n", Type: fleet.NetworkFlannelEtcd, Options: options})
		return err
	})
	refused := 0
	for _, err := range errs {
		if err != nil {
			requireKind(t, fleet.Conflict, err)
			refused++
		}
	}
	require.Equal(t, 10, refused, "the other half agrees with the first")
}
