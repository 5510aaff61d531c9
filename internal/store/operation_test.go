package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestStartOperation(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 3)
	_, err := f.ReplaceMembers(ctx, "c", []string{"h1", "h2", "h3"}, []string{"h3", "h1", "h2"})
	require.NoError(t, err)

	op, created, err := f.StartOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: "c", RequestedBy: "ann", RequestID: "r"})
	require.NoError(t, err)
	require.True(t, created)
	id, err := uuid.Parse(op.ID)
	require.NoError(t, err)
	require.Equal(t, uuid.Version(7), id.Version())
	require.Equal(t, []string{"default", "c", "", "ann", "r"}, []string{op.Tenant, op.Cluster, op.Host, op.RequestedBy, op.RequestID})
	require.True(t, op.Started.IsZero() && op.Finished.IsZero())

	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	var order []string
	for i, r := range runs {
		require.Equal(t, i, r.Position)
		require.Equal(t, fleet.HostRunPending, r.State)
		order = append(order, r.Address)
	}
	require.Equal(t, []string{"h3", "h1", "h2"}, order)

	same, created, err := f.StartOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: "c"})
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, op, same)

	_, _, err = f.StartOperation(ctx, NewOperation{Kind: fleet.KindBootstrap, Cluster: "c"})
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, op, holder(t, err))

	for _, n := range []NewOperation{{Kind: fleet.KindRestart, Cluster: "nope"}, {Kind: fleet.KindBootstrap, Host: "nope"}} {
		_, _, err = f.StartOperation(ctx, n)
		requireKind(t, fleet.NotFound, err)
	}
	for _, n := range []NewOperation{{Kind: fleet.KindRestart}, {Kind: fleet.KindRestart, Cluster: "c", Host: "h1"}} {
		_, _, err = f.StartOperation(ctx, n)
		requireKind(t, fleet.Invalid, err)
	}

	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationCancelled, "enough"))
	next := f.start(t, fleet.KindRestart, "c", "")
	require.Greater(t, next.ID, op.ID, "ids sort by time")

	f.cluster(t, "empty")
	runs, err = f.HostRuns(ctx, f.start(t, fleet.KindRestart, "empty", "").ID)
	require.NoError(t, err)
	require.Empty(t, runs)
}

func TestBootstrapAgain(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.bootstrap(t, f.newHost(t, "h", ""), fleet.HostRunFailed, fleet.HostBroke)
	h, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, fleet.HostFailed, h.State)
	require.Equal(t, "prepare failed", h.Reason)

	op := f.start(t, fleet.KindBootstrap, "", "h")
	h, err = f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, fleet.HostInvestigating, h.State)
	require.Equal(t, op.ID, h.OperationID)
	require.Empty(t, h.Reason)

	_, _, err = f.StartOperation(ctx, NewOperation{Kind: fleet.KindRestart, Host: "h"})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "wait for its end or delete the host, which cancels it")
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationCancelled, "cancelled by ann"))
	h, err = f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, fleet.HostFailed, h.State, "no host stays in limbo")
	require.Equal(t, "cancelled by ann", h.Reason)
}

func TestConcurrentStartOperation(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	f.hosts(t, "c", 3)
	type result struct {
		kind    fleet.OperationKind
		op      fleet.Operation
		created bool
		err     error
	}
	results := together(50, func(i int) result {
		kind := fleet.KindRestart
		if i%5 == 0 {
			kind = fleet.KindBootstrap
		}
		op, created, err := f.StartOperation(t.Context(), NewOperation{Kind: kind, Cluster: "c"})
		return result{kind, op, created, err}
	})
	winner := slices.IndexFunc(results, func(r result) bool { return r.created })
	require.GreaterOrEqual(t, winner, 0)
	w := results[winner]
	for i, r := range results {
		if r.kind != w.kind {
			requireKind(t, fleet.Conflict, r.err)
			require.Equal(t, w.op.ID, holder(t, r.err).ID)
			continue
		}
		require.NoError(t, r.err)
		require.Equal(t, w.op.ID, r.op.ID)
		require.Equal(t, i == winner, r.created)
	}
	require.Equal(t, "1 3", f.scan(t, "SELECT concat_ws(' ', (SELECT count(*) FROM operation WHERE cluster = 'c'), (SELECT count(*) FROM host_run r JOIN operation o ON o.id = r.operation_id WHERE o.cluster = 'c'))"))
}

func TestOperationLife(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 2)
	op := f.start(t, fleet.KindRestart, "c", "")
	running, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.OperationRunning, running.State)
	require.False(t, running.Started.IsZero())
	again, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, running, again)

	require.Error(t, f.EndOperation(ctx, op.ID, fleet.OperationRunning, ""))
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "h1 did not come back"))
	ended, err := f.Operation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.OperationFailed, ended.State)
	require.False(t, ended.Finished.IsZero())
	for _, s := range []fleet.OperationState{fleet.OperationSucceeded, fleet.OperationCancelled} {
		require.NoError(t, f.EndOperation(ctx, op.ID, s, "other"))
	}
	after, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, ended, after, "ended stays ended")

	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	for _, r := range runs {
		require.Equal(t, fleet.HostRunSkipped, r.State)
		require.Equal(t, "h1 did not come back", r.Reason)
		require.False(t, r.Finished.IsZero())
	}

	for _, id := range []string{uuid.NewString(), "junk", ""} {
		_, err = f.Operation(ctx, id)
		requireKind(t, fleet.NotFound, err)
		_, err = f.BeginOperation(ctx, id)
		requireKind(t, fleet.NotFound, err)
		requireKind(t, fleet.NotFound, f.EndOperation(ctx, id, fleet.OperationFailed, "x"))
		_, err = f.Claim(ctx, id, 1, hold)
		requireKind(t, fleet.NotFound, err)
		_, err = f.HostRuns(ctx, id)
		requireKind(t, fleet.NotFound, err)
		_, err = f.BeginHostRun(ctx, id, "h1")
		requireKind(t, fleet.NotFound, err)
		_, err = f.SetHostRunBootID(ctx, id, "h1", "b")
		requireKind(t, fleet.NotFound, err)
		requireKind(t, fleet.NotFound, f.endRun(ctx, id, "h1", fleet.HostRunSkipped, "x", ""))
		_, err = f.Steps(ctx, id, "")
		requireKind(t, fleet.NotFound, err)
		_, err = f.BeginStep(ctx, id, "h1", "s", 1)
		requireKind(t, fleet.NotFound, err)
	}
	_, err = f.db.For("other").Operation(ctx, op.ID)
	requireKind(t, fleet.NotFound, err)
}

func TestOperationsPages(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.cluster(t, "d")
	f.host(t, "h", "c")
	f.host(t, "g", "d")
	for i := range 7 {
		op := f.start(t, fleet.KindRestart, []string{"c", "d"}[i%2], "")
		require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationCancelled, ""))
	}
	last := f.start(t, fleet.KindRestart, "c", "")

	all, next, err := f.Operations(ctx, OperationFilter{})
	require.NoError(t, err)
	require.Empty(t, next)
	require.Len(t, all, 10)
	require.True(t, slices.IsSortedFunc(all, func(a, b fleet.Operation) int { return strings.Compare(b.ID, a.ID) }))

	var paged []fleet.Operation
	for cursor := ""; ; {
		page, next, err := f.Operations(ctx, OperationFilter{Cursor: cursor, Limit: 5})
		require.NoError(t, err)
		paged = append(paged, page...)
		if cursor = next; cursor == "" {
			break
		}
	}
	require.Equal(t, all, paged)

	for name, c := range map[string]struct {
		filter OperationFilter
		count  int
	}{
		"cluster":          {OperationFilter{Cluster: "c"}, 5},
		"host":             {OperationFilter{Host: "h"}, 6},
		"host and kind":    {OperationFilter{Host: "h", Kind: fleet.KindBootstrap}, 1},
		"host and cluster": {OperationFilter{Host: "h", Cluster: "c"}, 5},
		"kind":             {OperationFilter{Kind: fleet.KindBootstrap}, 2},
		"state":            {OperationFilter{State: fleet.OperationPending}, 1},
		"all of them":      {OperationFilter{Cluster: "d", Kind: fleet.KindRestart, State: fleet.OperationCancelled}, 3},
		"none":             {OperationFilter{Cluster: "nope"}, 0},
		"host, one page":   {OperationFilter{Host: "h", Limit: 2}, 2},
	} {
		ops, _, err := f.Operations(ctx, c.filter)
		require.NoError(t, err, name)
		require.Len(t, ops, c.count, name)
	}
	_, _, err = f.Operations(ctx, OperationFilter{Cursor: "junk"})
	requireKind(t, fleet.Invalid, err)
	others, _, err := f.db.For("other").Operations(ctx, OperationFilter{Limit: 10000})
	require.NoError(t, err)
	require.Empty(t, others)

	latest, err := f.LatestOperation(ctx, fleet.KindRestart, "c", "")
	require.NoError(t, err)
	require.Equal(t, last, latest)
	latest, err = f.LatestOperation(ctx, fleet.KindBootstrap, "", "g")
	require.NoError(t, err)
	require.Equal(t, "g", latest.Host)
	_, err = f.LatestOperation(ctx, fleet.KindBootstrap, "c", "")
	requireKind(t, fleet.NotFound, err)
}

// A list is read row by row into the same place, and what one operation lacks it must
// not have from the one before.
func TestListedOperationsShareNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	f.cluster(t, "d")
	f.pinned(t, "c", 2)
	f.host(t, "h", "d")
	f.rolloutOf(t, "c", fleet.Policy{MaxUnavailable: fleet.Count(2), Canary: &fleet.Canary{Hosts: fleet.Count(1), Then: fleet.ThenPause}})
	f.rolloutOf(t, "d", fleet.Policy{MaxUnavailable: fleet.Count(1)})
	f.order(t, "c", NewCommand{Command: fleet.Command{Argv: []string{"true"}}})
	f.newHost(t, "last", "")
	f.order(t, "d", NewCommand{Command: fleet.Command{Argv: []string{"false"}}})

	listed, _, err := f.Operations(t.Context(), OperationFilter{})
	require.NoError(t, err)
	for _, op := range listed {
		alone, err := f.Operation(t.Context(), op.ID)
		require.NoError(t, err)
		require.Equal(t, alone, op)
	}
}

func (f *fixture) rolloutOf(t *testing.T, cluster string, policy fleet.Policy) {
	t.Helper()
	_, created, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindRestart, Cluster: cluster, Policy: policy, RequestedBy: "tester"})
	require.NoError(t, err)
	require.True(t, created)
}

func TestPendingAndRunningOperations(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.exec(t, "INSERT INTO tenant (name) VALUES ('other')")
	_, mine, err := f.PutHost(ctx, HostPut{Address: "a", Creds: creds("k")})
	require.NoError(t, err)
	_, theirs, err := f.db.For("other").PutHost(ctx, HostPut{Address: "a", Creds: creds("k")})
	require.NoError(t, err)
	begun := f.newHost(t, "b", "")
	_, err = f.BeginOperation(ctx, begun.ID)
	require.NoError(t, err)

	ops, err := f.db.PendingOperations(ctx, 0, 10)
	require.NoError(t, err)
	require.Equal(t, []fleet.Operation{*mine, *theirs}, ops)
	ops, err = f.db.PendingOperations(ctx, 0, 1)
	require.NoError(t, err)
	require.Len(t, ops, 1)
	ops, err = f.db.PendingOperations(ctx, time.Hour, 10)
	require.NoError(t, err)
	require.Empty(t, ops)

	begun, err = f.Operation(ctx, begun.ID)
	require.NoError(t, err)
	ops, err = f.db.RunningOperations(ctx, 0, 10)
	require.NoError(t, err)
	require.Equal(t, []fleet.Operation{begun}, ops)
	ops, err = f.db.RunningOperations(ctx, time.Hour, 10)
	require.NoError(t, err)
	require.Empty(t, ops)
}
