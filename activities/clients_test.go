package activities

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestClientsAreShared also by those who come at once, each of whom makes one.
func TestClientsAreShared(t *testing.T) {
	t.Parallel()
	m := fleet.ContainerManager{Name: "kube", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{"server_url": "https://10.2.0.1"}}
	var c clients
	got, releases := make([]*client, 20), make([]func(), 20)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], releases[i], err = c.get(t.Context(), "default", m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range got {
		require.Same(t, got[0], got[i])
	}
	require.Equal(t, len(got), got[0].users)
	another, release, err := c.get(t.Context(), "another", m)
	require.NoError(t, err)
	require.NotSame(t, got[0], another)
	release()
	c.close()
	for _, release := range releases {
		release()
	}
	require.Zero(t, got[0].users)
	require.True(t, got[0].old)
	require.Empty(t, c.shared)
}
