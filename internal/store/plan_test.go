package store

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestPolicyOfTheClusterLiesUnderTheRequest(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 4)
	require.NoError(t, f.PutHostLabels(ctx, "h2", map[string]string{"env": "prod"}))
	require.NoError(t, f.PutHostLabels(ctx, "h4", map[string]string{"env": "prod"}))
	labels, err := f.HostLabels(ctx, "h4")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"env": "prod"}, labels)
	h, err := f.Host(ctx, "h4")
	require.NoError(t, err)
	require.Equal(t, labels, h.Labels)
	require.NoError(t, f.PutClusterPolicy(ctx, "c", fleet.Policy{MaxUnavailable: fleet.Count(3), Order: &fleet.Order{By: fleet.OrderName}}))
	p, err := f.ClusterPolicy(ctx, "c")
	require.NoError(t, err)
	require.Equal(t, fleet.Count(3), p.MaxUnavailable)
	requireKind(t, fleet.NotFound, f.PutClusterPolicy(ctx, "nope", p))
	requireKind(t, fleet.NotFound, f.PutHostLabels(ctx, "nope", nil))

	n := NewOperation{Policy: fleet.Policy{Selector: text("env=prod"), Canary: &fleet.Canary{Hosts: fleet.Count(1)}}}
	v, err := f.PreviewOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: "c", Policy: n.Policy})
	require.NoError(t, err)
	require.Empty(t, v.Blocks)
	require.Len(t, v.Hosts, 2)
	require.True(t, v.Hosts[0].Canary)
	op := f.rollout(t, n)
	require.Equal(t, v.Operation.Policy, op.Policy)
	require.Equal(t, fleet.Count(3), op.Policy.MaxUnavailable)
	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, []string{"h2", "h4"}, []string{runs[0].Address, runs[1].Address})
	require.True(t, runs[0].Canary)

	same, err := f.SetOperationPolicy(ctx, op.ID, fleet.Policy{Selector: text("env=prod"), MaxUnavailable: fleet.Count(1)}, "ann", "")
	require.NoError(t, err)
	require.Equal(t, fleet.Count(1), same.Policy.MaxUnavailable)
	_, err = f.SetOperationPolicy(ctx, op.ID, fleet.Policy{Selector: text("env=dev")}, "ann", "")
	requireKind(t, fleet.Invalid, err)
	require.ErrorContains(t, err, "policy.selector")

	_, err = f.SetOperationPolicy(ctx, op.ID, fleet.Policy{HostTimeout: fleet.Lasting(time.Hour)}, "ann", "")
	require.NoError(t, err)
	_, err = f.SetOperationPolicy(ctx, op.ID, fleet.Policy{MinReady: fleet.Lasting(2 * time.Hour)}, "ann", "")
	requireKind(t, fleet.Invalid, err)
	require.ErrorContains(t, err, "policy.min_ready")
	require.NoError(t, f.PutClusterPolicy(ctx, "c", fleet.Policy{MinReady: fleet.Lasting(2 * time.Hour)}))
	_, err = f.PreviewOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: "c", Policy: fleet.Policy{HostTimeout: fleet.Lasting(time.Hour)}})
	requireKind(t, fleet.Invalid, err)
	require.ErrorContains(t, err, "policy.min_ready")

	f.exec(t, "UPDATE host SET state = 'failed', reason = 'broken disk' WHERE address = 'h4'")
	v, err = f.PreviewOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: "c"})
	require.NoError(t, err)
	require.Equal(t, []string{"operation " + op.ID + " (restart of cluster c) is pending", "failed, and away until their turn: h4"}, v.Blocks)
	require.Equal(t, "it is failed, and counts as away until its turn: broken disk", v.Hosts[3].Blocks)
}

// TestPlanLeavesNoGap: a host that is deleted between the look at the members and the write of
// the plan takes no other one out of a command, which goes by position.
func TestPlanLeavesNoGap(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.pinned(t, "c", 3)
	n := NewOperation{Kind: fleet.KindCommand, Cluster: "c", RequestedBy: "tester", Command: &NewCommand{Command: fleet.Command{Argv: []string{"true"}, Timeout: fleet.Duration(time.Minute)}}}
	var op fleet.Operation
	require.NoError(t, f.db.tx(ctx, func(ctx context.Context, q querier) (err error) {
		if op, _, err = f.insertOperation(ctx, q, n); err != nil {
			return err
		}
		if err := f.keepTarget(ctx, q, n); err != nil {
			return err
		}
		p, err := f.plan(ctx, q, n, fleet.Operation{})
		if err != nil {
			return err
		}
		if _, _, err := f.Store.DeleteHost(t.Context(), "h2", Requester{Name: "tester"}); err != nil { // another transaction
			return err
		}
		if err := f.writePlan(ctx, q, op.ID, p); err != nil {
			return err
		}
		op, err = f.operation(ctx, q, operationSQL, op.ID)
		return err
	}))
	require.Equal(t, 2, op.Hosts)
	_, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	page, err := f.TakeUpCommand(ctx, op.ID, 0, op.Hosts, "")
	require.NoError(t, err)
	var got []string
	for _, h := range page.Hosts {
		got = append(got, h.Address)
	}
	require.Equal(t, []string{"h1", "h3"}, got)
}

func TestDeployNeedsHostsThatTakeOne(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.manyHosts(t, "c", 9)
	n := NewOperation{Kind: fleet.KindDeploy, Cluster: "c", Version: "1"}
	_, _, err := f.StartOperation(t.Context(), n)
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "6 of 9 hosts have neither OSTree nor bootc, so they cannot take a deploy: h1, h2, h4, h5, h7 and 1 more")
	_, err = f.PreviewOperation(t.Context(), n)
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM operation"))
	f.exec(t, "UPDATE host SET bootc = true WHERE NOT ostree AND address <> 'h1'")
	f.exec(t, "UPDATE host SET os = '' WHERE address = 'h1'")
	op := f.rollout(t, n)
	n.Version = "2"
	_, _, err = f.StartOperation(t.Context(), n)
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, op.ID, holder(t, err).ID)
	require.Equal(t, "8", f.scan(t, "SELECT count(*)::text FROM host_run WHERE stages"))
}

func TestRetryTakesWhatHasNotSucceeded(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 4)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(2), Canary: &fleet.Canary{Hosts: fleet.Count(2), Then: fleet.ThenPause}}})
	_, _, err := f.StartOperation(ctx, NewOperation{RetryOf: op.ID})
	requireKind(t, fleet.Conflict, err)
	f.claims(t, op.ID, 1)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded})
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h2", State: fleet.HostRunFailed, Reason: "x"})
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "a canary failed"))
	require.NoError(t, f.RemoveMember(ctx, "c", "h3"))

	_, _, err = f.StartOperation(ctx, NewOperation{RetryOf: op.ID, Policy: fleet.Policy{Order: &fleet.Order{By: fleet.OrderName}}})
	requireKind(t, fleet.Invalid, err)
	again, created, err := f.StartOperation(ctx, NewOperation{RetryOf: op.ID, Policy: fleet.Policy{MaxUnavailable: fleet.Count(1)}})
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, op.ID, again.RetryOf)
	require.Equal(t, fleet.Count(1), again.Policy.MaxUnavailable)
	require.Equal(t, op.Policy.Canary, again.Policy.Canary)
	runs, err := f.HostRuns(ctx, again.ID)
	require.NoError(t, err)
	require.Len(t, runs, 2)
	require.Equal(t, "h2", runs[0].Address)
	require.True(t, runs[0].Canary)
	require.False(t, runs[1].Canary)
	f.claims(t, again.ID, 1)
	f.ends(t, HostRunEnd{OperationID: again.ID, Address: "h2", State: fleet.HostRunSucceeded})
	f.claims(t, again.ID, 2) // passes the gate
	_, err = f.Steer(ctx, again.ID, SteerAction{Action: "cancel", By: "ann"})
	require.NoError(t, err)
	c := f.claims(t, again.ID, 3)
	require.Equal(t, fleet.OperationCancelled, c.End)
	require.Equal(t, "cancelled by ann", c.Reason)
	require.NoError(t, f.EndOperation(ctx, again.ID, c.End, c.Reason))
	third, _, err := f.StartOperation(ctx, NewOperation{RetryOf: again.ID})
	require.NoError(t, err)
	require.Equal(t, "the policy", third.ApprovedBy, "a gate that was passed stays so")
	_, _, err = f.StartOperation(ctx, NewOperation{RetryOf: op.ID})
	requireKind(t, fleet.Conflict, err)
	same, created, err := f.StartOperation(ctx, NewOperation{RetryOf: again.ID, RequestedBy: "bob"})
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, third.ID, same.ID)
	require.Equal(t, []Assignment{{"h4", false, 1, 1, false}}, f.claims(t, third.ID, 1).Assignments)
	f.ends(t, HostRunEnd{OperationID: third.ID, Address: "h4", State: fleet.HostRunFailed, Reason: "x"})
	require.NoError(t, f.EndOperation(ctx, third.ID, fleet.OperationFailed, "x"))
	require.NoError(t, f.RemoveMember(ctx, "c", "h4"))
	_, _, err = f.StartOperation(ctx, NewOperation{RetryOf: third.ID})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "left to retry")
}

func TestRetryIsDoneOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 2)
	fail := func(op fleet.Operation) {
		t.Helper()
		host := f.claims(t, op.ID, 1).Assignments[0].Address
		f.ends(t, HostRunEnd{OperationID: op.ID, Address: host, State: fleet.HostRunFailed, Reason: "x"})
		require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "a host failed"))
	}
	op := f.rollout(t, NewOperation{})
	fail(op)
	n := NewOperation{RetryOf: op.ID}
	again, created, err := f.StartOperation(ctx, n)
	require.NoError(t, err)
	require.True(t, created)
	same, created, err := f.StartOperation(ctx, n)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, again.ID, same.ID)
	_, err = f.PreviewOperation(ctx, n)
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, again.ID, holder(t, err).ID)
	fail(again)

	_, _, err = f.StartOperation(ctx, n)
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "operation "+op.ID+" was retried by "+again.ID+"; retry that one")
	_, err = f.PreviewOperation(ctx, n)
	requireKind(t, fleet.Conflict, err)
	third, _, err := f.StartOperation(ctx, NewOperation{RetryOf: again.ID})
	require.NoError(t, err)
	for turn := 1; turn <= 2; turn++ {
		for _, a := range f.claims(t, third.ID, turn).Assignments {
			f.ends(t, HostRunEnd{OperationID: third.ID, Address: a.Address, State: fleet.HostRunSucceeded})
		}
	}
	require.NoError(t, f.EndOperation(ctx, third.ID, fleet.OperationSucceeded, ""))
	_, _, err = f.StartOperation(ctx, NewOperation{RetryOf: again.ID})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "which has succeeded")
	require.Equal(t, "3", f.scan(t, "SELECT count(*)::text FROM operation WHERE cluster = 'c'"), "nothing was begun again")
}

// TestAnUnfinishedOperationAnswersWhatItDoes, and nothing else.
func TestAnUnfinishedOperationAnswersWhatItDoes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 2)
	failed := f.rollout(t, NewOperation{})
	require.NoError(t, f.EndOperation(ctx, failed.ID, fleet.OperationFailed, "lost"))
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(2), MaxFailures: fleet.Percent(10)}})
	n := NewOperation{Kind: fleet.KindRestart, Cluster: "c"}
	for _, p := range []fleet.Policy{{}, {MaxUnavailable: fleet.Count(2)}} {
		n.Policy = p
		same, created, err := f.StartOperation(ctx, n)
		require.NoError(t, err)
		require.False(t, created)
		require.Equal(t, op.ID, same.ID)
	}
	n.Policy = fleet.Policy{MaxUnavailable: fleet.Count(1)}
	_, _, err := f.StartOperation(ctx, n)
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, op.ID, holder(t, err).ID)
	require.ErrorContains(t, err, "by another policy")
	_, _, err = f.StartOperation(ctx, NewOperation{RetryOf: failed.ID})
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, op.ID, holder(t, err).ID)
}

// TestSoakGoesOnInARetry, which has no canaries left to watch.
func TestSoakGoesOnInARetry(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 2)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{Canary: &fleet.Canary{Hosts: fleet.Count(1), Soak: fleet.Duration(time.Hour)}}})
	f.claims(t, op.ID, 1)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded})
	for range 2 { // also in a retry of a retry
		c := f.claims(t, op.ID, 2)
		require.Empty(t, c.Assignments)
		require.Contains(t, c.Waiting, "the canaries are watched until")
		require.WithinDuration(t, time.Now().Add(time.Hour), c.Again, time.Minute)
		require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationCancelled, "x"))
		again, _, err := f.StartOperation(ctx, NewOperation{RetryOf: op.ID})
		require.NoError(t, err)
		op = again
	}
	f.exec(t, "UPDATE rollout SET canaries_done = canaries_done - interval '1 hour'")
	require.Equal(t, []Assignment{{"h2", false, 1, 1, false}}, f.claims(t, op.ID, 1).Assignments)
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.manyHosts(t, "c", 1)
	n := NewOperation{Kind: fleet.KindRestart, Cluster: "c", IdempotencyKey: "k1", RequestedBy: "ann"}
	type answer struct {
		id      string
		created bool
	}
	answers := together(8, func(int) answer {
		op, created, err := f.StartOperation(t.Context(), n)
		if err != nil {
			return answer{id: err.Error()}
		}
		return answer{op.ID, created}
	})
	for _, a := range answers {
		require.Equal(t, answer{answers[0].id, true}, a, "the same answer")
	}
	other := n
	other.Policy.MaxUnavailable = fleet.Count(1)
	_, _, err := f.StartOperation(ctx, other)
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "Idempotency-Key")

	pause := SteerAction{Action: "pause", By: "ann", IdempotencyKey: "k2"}
	_, err = f.Steer(ctx, answers[0].id, pause)
	require.NoError(t, err)
	_, err = f.Steer(ctx, answers[0].id, SteerAction{Action: "resume", By: "ann"})
	require.NoError(t, err)
	op, err := f.Steer(ctx, answers[0].id, pause)
	require.NoError(t, err)
	require.Zero(t, op.Paused, "the request was carried out once")

	op, err = f.Steer(ctx, op.ID, SteerAction{Action: "cancel", By: "ann"})
	require.NoError(t, err)
	require.Equal(t, fleet.OperationCancelled, op.State, "it had not begun")
	require.Equal(t, "cancelled by ann", op.Reason)
	_, err = f.Steer(ctx, op.ID, pause)
	require.NoError(t, err, "the first answer, for ever")
	_, err = f.Steer(ctx, op.ID, SteerAction{Action: "pause"})
	requireKind(t, fleet.Conflict, err)
	again, created, err := f.StartOperation(ctx, n)
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, op.ID, again.ID)
}
