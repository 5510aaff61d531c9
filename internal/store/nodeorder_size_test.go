package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestAClusterOfThousandsOfNodes is deleted and made again, each in one transaction, in
// the time that a request has, with patience for a busy machine.
func TestAClusterOfThousandsOfNodes(t *testing.T) {
	t.Parallel()
	const nodes = 2000
	f := setup(t)
	f.kube(t, "c", "k", nil, 1, nodes)
	f.exec(t, "VACUUM ANALYZE")
	working := f.start(t, fleet.KindBootstrap, "", "h7")
	begun := time.Now()
	ops, err := f.Store.DeleteCluster(t.Context(), "c", tester)
	require.NoError(t, err)
	t.Logf("deleted in %s", time.Since(begun))
	require.Len(t, ops, nodes-1)
	require.Equal(t, []any{fleet.KindUnregister, fleet.OperationPending, "h1", "k", "tester", "r1", 1},
		[]any{ops[0].Kind, ops[0].State, ops[0].Host, ops[0].Manager, ops[0].RequestedBy, ops[0].RequestID, ops[0].Hosts})
	require.Equal(t, "2000 1999 1999", f.scan(t, `SELECT (SELECT count(*) FROM node WHERE leaving) || ' ' || (SELECT count(*) FROM operation WHERE kind = 'unregister')
		|| ' ' || (SELECT count(*) FROM host_run WHERE operation_id <> $1)`, working.ID))

	manager := "k"
	_, err = f.PutCluster(t.Context(), ClusterPut{Name: "d", ContainerManager: &manager})
	require.NoError(t, err)
	f.exec(t, "UPDATE operation SET state = 'failed', finished = now(), started = now()")
	f.exec(t, "UPDATE host SET state = 'active'")
	var hosts []string
	for i := range nodes {
		hosts = append(hosts, fmt.Sprint("h", i+1))
	}
	begun = time.Now()
	_, ops, err = f.Store.ReplaceMembers(t.Context(), "d", nil, hosts, tester)
	require.NoError(t, err)
	t.Logf("joined in %s", time.Since(begun))
	require.Len(t, ops, nodes)
	require.Equal(t, fleet.KindRegister, ops[0].Kind)
	require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM node WHERE leaving"))
}
