package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestProfileOfACluster(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for _, step := range []struct{ put, want *string }{
		{nil, text("")}, {text("none"), text("none")}, {nil, text("none")}, {text(""), text("")}, {text("atomic-2017"), text("atomic-2017")},
	} {
		c, err := f.PutCluster(ctx, ClusterPut{Name: "c", Profile: step.put})
		require.NoError(t, err)
		require.Equal(t, *step.want, c.Profile)
		v, err := f.Cluster(ctx, "c")
		require.NoError(t, err)
		require.Equal(t, *step.want, v.Profile)
	}
	c, err := f.PutCluster(ctx, ClusterPut{Name: "new", Profile: text("none")})
	require.NoError(t, err)
	require.Equal(t, "none", c.Profile)
}

func TestSurroundings(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	_, err := f.Surroundings(ctx, "nobody")
	requireKind(t, fleet.NotFound, err)

	fallback := fleet.Network{Name: "default", Type: fleet.NetworkFlannelEtcd, Options: map[string]any{}}
	f.host(t, "alone", "")
	name, err := f.HostProfile(ctx, "alone")
	require.NoError(t, err)
	require.Empty(t, name)
	got, err := f.Surroundings(ctx, "alone")
	require.NoError(t, err)
	require.Equal(t, Surroundings{Network: fallback}, got)

	own := fleet.Network{Name: "net", Type: fleet.NetworkFlannelServer, Options: map[string]any{"address": "192.0.2.1"}}
	_, err = f.PutNetwork(ctx, own)
	require.NoError(t, err)
	_, err = f.PutContainerManager(ctx, fleet.ContainerManager{Name: "m", Type: fleet.ContainerManagerTrivial, Options: map[string]any{"token": "s3cr3t"}})
	require.NoError(t, err)
	_, err = f.PutCluster(ctx, ClusterPut{Name: "c", Network: text("net"), ContainerManager: text("m"), Profile: text("none")})
	require.NoError(t, err)
	f.host(t, "h", "c")
	name, err = f.HostProfile(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, "none", name)
	name, err = f.HostProfile(ctx, "nobody")
	require.NoError(t, err)
	require.Empty(t, name)
	got, err = f.Surroundings(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, Surroundings{
		Cluster: "c", Profile: "none", Network: own,
		Manager: fleet.ContainerManager{Name: "m", Type: fleet.ContainerManagerTrivial, Options: map[string]any{"token": "s3cr3t"}},
	}, got)

	// What the cluster names need not be there.
	require.NoError(t, f.DeleteNetwork(ctx, "net"))
	_, err = f.PutCluster(ctx, ClusterPut{Name: "c", ContainerManager: text("gone")})
	require.NoError(t, err)
	got, err = f.Surroundings(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, Surroundings{Cluster: "c", Profile: "none", Network: fallback}, got)
	require.NoError(t, f.DeleteNetwork(ctx, "default"))
	got, err = f.Surroundings(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, fallback, got.Network, "as if it were there")

	_, err = f.db.For("other").Surroundings(ctx, "h")
	requireKind(t, fleet.NotFound, err)
}
