package api

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// A request that orders an operation for each of many nodes does not wait until all
// workflows are started: the dispatcher finds the others on record.
func TestManyNodesOfADeletedCluster(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var hosts []string
	for i := range 30 {
		hosts = append(hosts, fmt.Sprint("h", i))
	}
	b.nodes(t, "web", hosts...)
	before := b.dispatcher.starts()
	b.v0(t, "DELETE /cluster/web", "", 200, "")
	require.Equal(t, 20, b.dispatcher.starts()-before)
	pending, _, err := b.store.Operations(t.Context(), store.OperationFilter{State: fleet.OperationPending, Limit: 100})
	require.NoError(t, err)
	require.Len(t, pending, 30)
}
