package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

const hold = time.Minute

// rollout starts one on cluster "c".
func (f *fixture) rollout(t testing.TB, n NewOperation) fleet.Operation {
	t.Helper()
	n.Cluster, n.RequestedBy = "c", "tester"
	if n.Kind == "" {
		n.Kind = fleet.KindRestart
	}
	op, created, err := f.StartOperation(t.Context(), n)
	require.NoError(t, err)
	require.True(t, created)
	return op
}

func (f *fixture) claims(t testing.TB, id string, turn int) Claimed {
	t.Helper()
	c, err := f.Claim(t.Context(), id, turn, hold)
	require.NoError(t, err)
	return c
}

func (f *fixture) ends(t testing.TB, e HostRunEnd) *Assignment {
	t.Helper()
	next, err := f.EndHostRun(t.Context(), e)
	require.NoError(t, err)
	return next
}

func TestClaimOneAtATime(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	f.hosts(t, "c", 3)
	op := f.rollout(t, NewOperation{})
	require.Equal(t, 3, op.Hosts)

	c := f.claims(t, op.ID, 1)
	require.Equal(t, fleet.OperationRunning, c.Operation.State)
	require.Equal(t, []Assignment{{"h1", false, 1, 1}}, c.Assignments)
	require.Equal(t, fleet.Progress{Total: 3, Pending: 2, Running: 1}, c.Progress)
	require.Equal(t, c.Assignments, f.claims(t, op.ID, 1).Assignments, "the same turn gives the same")
	require.Empty(t, f.claims(t, op.ID, 2).Assignments)
	_, err := f.Claim(t.Context(), op.ID, 1, hold)
	requireKind(t, fleet.Conflict, err)

	end := HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Next: true}
	require.Equal(t, &Assignment{"h2", false, 1, 1}, f.ends(t, end))
	require.Equal(t, &Assignment{"h2", false, 1, 1}, f.ends(t, end), "never another one")
	require.Empty(t, f.claims(t, op.ID, 3).Assignments)
	require.Nil(t, f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h2", State: fleet.HostRunSucceeded}))
	require.Nil(t, f.ends(t, end), "it is not at work any more")
	require.Equal(t, []Assignment{{"h3", false, 1, 4}}, f.claims(t, op.ID, 4).Assignments)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunSucceeded})
	c = f.claims(t, op.ID, 5)
	require.Equal(t, fleet.OperationSucceeded, c.End)
	require.NoError(t, f.EndOperation(t.Context(), op.ID, c.End, c.Reason))
	require.Equal(t, fleet.OperationSucceeded, f.claims(t, op.ID, 6).End)
}
