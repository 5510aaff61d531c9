package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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
	require.Equal(t, []Assignment{{"h1", false, 1, 1, false}}, c.Assignments)
	require.Equal(t, fleet.Progress{Total: 3, Pending: 2, Running: 1}, c.Progress)
	require.Equal(t, c.Assignments, f.claims(t, op.ID, 1).Assignments, "the same turn gives the same")
	require.Empty(t, f.claims(t, op.ID, 2).Assignments)
	_, err := f.Claim(t.Context(), op.ID, 1, hold)
	requireKind(t, fleet.Conflict, err)

	end := HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Next: true}
	require.Equal(t, &Assignment{"h2", false, 1, 1, false}, f.ends(t, end))
	require.Equal(t, &Assignment{"h2", false, 1, 1, false}, f.ends(t, end), "never another one")
	require.Empty(t, f.claims(t, op.ID, 3).Assignments)
	require.Nil(t, f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h2", State: fleet.HostRunSucceeded}))
	require.Nil(t, f.ends(t, end), "it is not at work any more")
	require.Equal(t, []Assignment{{"h3", false, 1, 4, false}}, f.claims(t, op.ID, 4).Assignments)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunSucceeded})
	c = f.claims(t, op.ID, 5)
	require.Equal(t, fleet.OperationSucceeded, c.End)
	require.NoError(t, f.EndOperation(t.Context(), op.ID, c.End, c.Reason))
	require.Equal(t, fleet.OperationSucceeded, f.claims(t, op.ID, 6).End)
}

func TestCanariesThenApproval(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 6)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{
		MaxUnavailable: fleet.Count(4), Canary: &fleet.Canary{Hosts: fleet.Count(2), Then: fleet.ThenApprove},
	}})
	c := f.claims(t, op.ID, 1)
	require.Equal(t, []Assignment{{"h1", false, 1, 1, false}, {"h2", false, 2, 1, false}}, c.Assignments)
	_, err := f.Steer(ctx, op.ID, SteerAction{Action: "approve", By: "ann"})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "the canaries are not done")
	for _, a := range c.Assignments {
		require.Nil(t, f.ends(t, HostRunEnd{OperationID: op.ID, Address: a.Address, State: fleet.HostRunSucceeded, Next: true}))
	}
	c = f.claims(t, op.ID, 2)
	require.Empty(t, c.Assignments)
	require.Equal(t, "the canaries are done; waits for approval", c.Waiting)
	require.Equal(t, c.Waiting, c.Operation.Waiting)
	require.Zero(t, c.Progress.ExpectedEnd, "nobody knows while it waits")

	op, err = f.Steer(ctx, op.ID, SteerAction{Action: "approve", By: "ann"})
	require.NoError(t, err)
	require.Equal(t, "ann", op.ApprovedBy)
	unseen, err := f.db.UnseenOperations(ctx, 0, 10)
	require.NoError(t, err)
	require.Len(t, unseen, 1)
	again, err := f.Steer(ctx, op.ID, SteerAction{Action: "approve", By: "bob"})
	require.NoError(t, err)
	require.Equal(t, op, again, "it is so already")
	c = f.claims(t, op.ID, 3)
	require.Len(t, c.Assignments, 4)
	require.NotZero(t, c.Progress.ExpectedEnd)
	unseen, err = f.db.UnseenOperations(ctx, 0, 10)
	require.NoError(t, err)
	require.Empty(t, unseen)
}

func TestCanariesThenPause(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.manyHosts(t, "c", 2)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{Canary: &fleet.Canary{Hosts: fleet.Count(1), Then: fleet.ThenPause}}})
	f.claims(t, op.ID, 1)
	require.Nil(t, f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Next: true}))
	c := f.claims(t, op.ID, 2)
	require.Equal(t, "the canaries are done; paused", c.Waiting)
	require.Equal(t, "the policy", c.Operation.PausedBy)
	require.Equal(t, "paused by the policy", f.claims(t, op.ID, 3).Waiting)
	_, err := f.Steer(t.Context(), op.ID, SteerAction{Action: "resume", By: "ann"})
	require.NoError(t, err)
	require.Equal(t, []Assignment{{"h2", false, 1, 4, false}}, f.claims(t, op.ID, 4).Assignments)
}

func TestAllHostsStageBeforeOneRolls(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.manyHosts(t, "c", 6) // h3 and h6 stage
	op := f.rollout(t, NewOperation{Kind: fleet.KindUpgrade, Policy: fleet.Policy{MaxUnavailable: fleet.Count(2)}})
	c := f.claims(t, op.ID, 1)
	require.Equal(t, []Assignment{{"h3", true, 1, 1, false}, {"h6", true, 2, 1, false}}, c.Assignments)
	staged := HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunStaged, Next: true}
	require.Nil(t, f.ends(t, staged))
	require.Empty(t, f.claims(t, op.ID, 2).Assignments)
	_, err := f.EndHostRun(t.Context(), HostRunEnd{OperationID: op.ID, Address: "h6", State: fleet.HostRunSucceeded})
	requireKind(t, fleet.Conflict, err)
	stands, err := f.SetHostRunTarget(t.Context(), op.ID, "h6", "abc")
	require.NoError(t, err)
	require.Equal(t, "abc", stands)
	stands, err = f.SetHostRunTarget(t.Context(), op.ID, "h6", "def")
	require.NoError(t, err)
	require.Equal(t, "abc", stands, "the first writer wins")
	staged.Address = "h6"
	require.Nil(t, f.ends(t, staged))
	require.Equal(t, []Assignment{{"h1", false, 1, 3, false}, {"h2", false, 2, 3, false}}, f.claims(t, op.ID, 3).Assignments)
	require.Equal(t, &Assignment{"h3", false, 1, 3, false}, f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Next: true}))
	require.Nil(t, f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunStaged}), "a late word of its staging changes nothing")
	runs, err := f.HostRuns(t.Context(), op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunRunning, runs[2].State)
}

func TestEndOfAnOperationLeavesStagedHostsAlone(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.manyHosts(t, "c", 3)
	op := f.rollout(t, NewOperation{Kind: fleet.KindUpgrade})
	f.claims(t, op.ID, 1)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunStaged})
	f.claims(t, op.ID, 2)
	_, err := f.BeginStep(t.Context(), op.ID, "h1", fleet.StepReboot, 1)
	require.NoError(t, err)
	require.NoError(t, f.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "lost"))
	require.Equal(t, fleet.HostFailed, f.state(t, "h1"))
	require.Equal(t, fleet.HostDisassociated, f.state(t, "h3"))
	p, err := f.Progress(t.Context(), op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.Progress{Total: 3, Failed: 1, Skipped: 2}, p)
}

func TestHostsThatAreAwayKeepSlots(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.manyHosts(t, "c", 5)
	f.exec(t, "UPDATE host SET state = 'failed', reason = 'x' WHERE address IN ('h4', 'h5')")
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(2), MaxFailures: fleet.Count(5)}})
	c := f.claims(t, op.ID, 1)
	require.Equal(t, []Assignment{{"h4", false, 1, 1, false}, {"h5", false, 2, 1, false}}, c.Assignments, "no working host is taken away besides")
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h4", State: fleet.HostRunSucceeded, Event: fleet.HostRecovered})
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h5", State: fleet.HostRunFailed, Reason: "x", Event: fleet.HostBroke, Down: true})
	require.Equal(t, []Assignment{{"h1", false, 1, 2, false}}, f.claims(t, op.ID, 2).Assignments, "h5 keeps slot 2")
	require.Nil(t, f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "x", Event: fleet.HostBroke, Down: true, Next: true}))
	c = f.claims(t, op.ID, 3)
	require.Equal(t, fleet.OperationFailed, c.End)
	require.Contains(t, c.Reason, "uses up max_unavailable (2)")
}

// TestDeletingAClusterWakesItsRollout, which may be paused and look at nothing.
func TestDeletingAClusterWakesItsRollout(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 2)
	op := f.rollout(t, NewOperation{})
	_, err := f.Steer(ctx, op.ID, SteerAction{Action: "pause", By: "ann"})
	require.NoError(t, err)
	require.Equal(t, "paused by ann", f.claims(t, op.ID, 1).Waiting)
	unseen, err := f.db.UnseenOperations(ctx, 0, 10)
	require.NoError(t, err)
	require.Empty(t, unseen)
	require.NoError(t, f.DeleteCluster(ctx, "c"))
	unseen, err = f.db.UnseenOperations(ctx, 0, 10)
	require.NoError(t, err)
	require.Len(t, unseen, 1)
	require.Equal(t, op.ID, unseen[0].ID)
	c := f.claims(t, op.ID, 2)
	require.Equal(t, fleet.OperationCancelled, c.End)
	require.Equal(t, `cluster "c" was deleted`, c.Reason)
	unseen, err = f.db.UnseenOperations(ctx, 0, 10)
	require.NoError(t, err)
	require.Empty(t, unseen)
}

// TestHostsInABootstrapAreAway: hosts that failed are mended by a bootstrap, and do
// no work until it has ended well.
func TestHostsInABootstrapAreAway(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.manyHosts(t, "c", 5)
	for host, state := range map[string]string{"h3": "investigating", "h4": "bootstrapping", "h5": "failed"} {
		f.exec(t, "UPDATE host SET state = $2, reason = 'x' WHERE address = $1", host, state)
	}
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(3)}})
	c := f.claims(t, op.ID, 1)
	require.Equal(t, []Assignment{{"h3", false, 1, 1, false}, {"h4", false, 2, 1, false}, {"h5", false, 3, 1, false}}, c.Assignments, "no working host is taken away besides")
}

// TestHostsThatAreLostAfterTheirTurnKeepSlots: a version that kills hosts minutes after
// their part ended well takes down no more of them than the policy allows.
func TestHostsThatAreLostAfterTheirTurnKeepSlots(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	for i := range 8 {
		f.watchable(t, fmt.Sprint("h", i+1), "c")
	}
	lost := []fleet.WatchState{fleet.WatchUnreachable, fleet.WatchUnreachable, fleet.WatchUnreachable}
	op := f.rollout(t, NewOperation{Kind: fleet.KindUpgrade, Policy: fleet.Policy{MaxUnavailable: fleet.Count(2), MaxFailures: fleet.Count(8)}})
	works := func(address string, next bool) *Assignment {
		t.Helper()
		return f.ends(t, HostRunEnd{OperationID: op.ID, Address: address, State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Next: next})
	}
	require.Len(t, f.claims(t, op.ID, 1).Assignments, 2)
	require.Nil(t, works("h1", false))
	require.Equal(t, fleet.HostFailed, f.check(t, "h1", lost...).State)
	require.Empty(t, f.claims(t, op.ID, 2).Assignments, "h2 is at work, and h1 is away")
	require.Equal(t, "h3", works("h2", true).Address, "there is one place, which goes on")
	require.Empty(t, f.claims(t, op.ID, 3).Assignments)

	require.Equal(t, fleet.HostDisassociated, f.check(t, "h1", fleet.WatchHealthy).State)
	require.Equal(t, []Assignment{{"h4", false, 1, 4, false}}, f.claims(t, op.ID, 4).Assignments, "h1 is back")
	f.check(t, "h1", lost...)
	f.check(t, "h2", lost...)
	require.Nil(t, works("h3", true))
	require.Nil(t, works("h4", true))
	c := f.claims(t, op.ID, 5)
	require.Equal(t, fleet.OperationFailed, c.End)
	require.Equal(t, "0 of 8 hosts failed while away and 2 are away in the inventory (failed, or in a bootstrap), which uses up max_unavailable (2); mend them, or raise it, then retry", c.Reason)

	boot := f.start(t, fleet.KindBootstrap, "", "h2")
	_, err := f.BeginOperation(t.Context(), boot.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(t.Context(), boot.ID, "h2")
	require.NoError(t, err)
	c = f.claims(t, op.ID, 6)
	require.Empty(t, c.End)
	require.Equal(t, "hosts that are away, 1 of them in a bootstrap, use up max_unavailable (2)", c.Waiting)
	f.exec(t, "UPDATE host SET state = 'active' WHERE address IN ('h1', 'h2')")
	require.Len(t, f.claims(t, op.ID, 7).Assignments, 2)
}

// TestAHostThatNothingRecoversIsNotLost: a rollout over a host that was never bootstrapped
// may end well and leave its state alone, which takes no slot from the others.
func TestAHostThatNothingRecoversIsNotLost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.manyHosts(t, "c", 2)
	f.exec(t, "UPDATE host SET state = 'failed', reason = 'x', bootstrapped = NULL WHERE address = 'h1'")
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(1)}})
	require.Equal(t, []Assignment{{"h1", false, 1, 1, false}}, f.claims(t, op.ID, 1).Assignments)
	next := f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Next: true})
	require.Equal(t, fleet.HostFailed, f.state(t, "h1"))
	require.Equal(t, "h2", next.Address)
}

func TestHostsThatAreGoneAreSkipped(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 6)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(2)}})
	_, err := f.DeleteHost(ctx, "h2", "ann")
	require.NoError(t, err)
	require.NoError(t, f.RemoveMember(ctx, "c", "h3"))
	_, err = f.DeleteHost(ctx, "h4", "ann")
	require.NoError(t, err)
	f.newHost(t, "h4", "c")
	require.Equal(t, []Assignment{{"h1", false, 1, 1, false}, {"h5", false, 2, 1, false}}, f.claims(t, op.ID, 1).Assignments)
	skipped, next, err := f.HostRunsPage(ctx, op.ID, HostRunFilter{State: fleet.HostRunSkipped, Limit: 2})
	require.NoError(t, err)
	rest, none, err := f.HostRunsPage(ctx, op.ID, HostRunFilter{State: fleet.HostRunSkipped, Limit: 2, Cursor: next})
	require.NoError(t, err)
	require.Empty(t, none)
	reasons := map[string]string{}
	for _, r := range append(skipped, rest...) {
		reasons[r.Address] = r.Reason
	}
	require.Equal(t, map[string]string{
		"h2": "the host was removed before its turn",
		"h3": "the host left the cluster before its turn",
		"h4": "the host was removed and added again before its turn",
	}, reasons)
	_, _, err = f.HostRunsPage(ctx, op.ID, HostRunFilter{Cursor: "junk"})
	requireKind(t, fleet.Invalid, err)
}

func TestHostsThatAreHeldArePassedOver(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 2)
	boot := f.start(t, fleet.KindBootstrap, "", "h1")
	_, err := f.BeginOperation(ctx, boot.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(ctx, boot.ID, "h1")
	require.NoError(t, err)
	op := f.rollout(t, NewOperation{})
	require.Equal(t, []Assignment{{"h2", false, 1, 1, false}}, f.claims(t, op.ID, 1).Assignments)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h2", State: fleet.HostRunSucceeded})
	before := time.Now()
	c := f.claims(t, op.ID, 2)
	require.Empty(t, c.Assignments)
	require.False(t, c.More)
	require.Equal(t, "host h1: operation "+boot.ID+" (bootstrap of host h1) holds it", c.Waiting)
	require.WithinRange(t, c.Again, before.Add(time.Second), time.Now().Add(time.Minute))
	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, "operation "+boot.ID+" (bootstrap of host h1) holds it", runs[0].Waiting)

	f.exec(t, "UPDATE host_run SET held_since = held_since - interval '2 minutes' WHERE operation_id = $1 AND held_since IS NOT NULL", op.ID)
	c = f.claims(t, op.ID, 3)
	require.Equal(t, fleet.OperationFailed, c.End)
	runs, err = f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunFailed, runs[0].State)
	require.Equal(t, "operation "+boot.ID+" (bootstrap of host h1) holds it, for longer than 1m0s", runs[0].Reason)
	require.NoError(t, f.EndOperation(ctx, op.ID, c.End, c.Reason))
	require.NotEqual(t, fleet.HostFailed, f.state(t, "h1"), "it was not touched")
}

func TestEndSlot(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 4)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxFailures: fleet.Count(3)}})
	first := f.claims(t, op.ID, 1).Assignments[0]
	require.Equal(t, "h2", f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Next: true}).Address)
	_, err := f.BeginStep(ctx, op.ID, "h2", fleet.StepReboot, 1)
	require.NoError(t, err)
	require.NoError(t, f.EndSlot(ctx, op.ID, first, "its workflow was lost"))
	require.Equal(t, fleet.HostFailed, f.state(t, "h2"))
	require.Equal(t, []Assignment{{"h3", false, 1, 2, false}}, f.claims(t, op.ID, 2).Assignments)
	require.NoError(t, f.EndSlot(ctx, op.ID, first, "its workflow was lost"))
	require.Equal(t, fleet.HostDisassociated, f.state(t, "h3"), "the slot has another holder")
}

// TestAPauseHoldsFromItsCommitOn pauses again and again while several workers
// claim and end hosts as fast as they can.
func TestAPauseHoldsFromItsCommitOn(t *testing.T) {
	t.Parallel()
	const pauses = 200
	f := setup(t)
	f.manyHosts(t, "c", 2000)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(3)}})
	ctx, stop := context.WithCancel(t.Context())
	var turn atomic.Int64
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for ctx.Err() == nil {
				c, err := f.Claim(ctx, op.ID, int(turn.Add(1)), hold)
				if err != nil && ctx.Err() == nil && fleet.KindOf(err) != fleet.Conflict {
					t.Errorf("%v", err)
					return
				}
				for _, a := range c.Assignments {
					for next := &a; next != nil && err == nil; {
						next, err = f.EndHostRun(ctx, HostRunEnd{OperationID: op.ID, Address: next.Address, State: fleet.HostRunSucceeded, Next: true})
					}
				}
			}
		})
	}
	const begun = "SELECT count(*)::text FROM host_run WHERE operation_id = $1 AND state <> 'pending'"
	for range pauses {
		_, err := f.Steer(t.Context(), op.ID, SteerAction{Action: "pause", By: "ann"})
		require.NoError(t, err)
		before := f.scan(t, begun, op.ID)
		require.Equal(t, before, f.scan(t, begun, op.ID))
		_, err = f.Steer(t.Context(), op.ID, SteerAction{Action: "resume", By: "ann"})
		require.NoError(t, err)
	}
	stop()
	workers.Wait()
	p, err := f.Progress(t.Context(), op.ID)
	require.NoError(t, err)
	require.NotZero(t, p.Succeeded)
	t.Logf("%d hosts rolled between %d pauses", p.Succeeded, pauses)
}
