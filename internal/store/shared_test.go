package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// startOn starts a restart of a cluster whose policy allows n hosts to be away at once.
func (f *fixture) startOn(t testing.TB, cluster string, n int) fleet.Operation {
	t.Helper()
	op, created, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindRestart, Cluster: cluster, RequestedBy: "tester",
		Policy: fleet.Policy{MaxUnavailable: fleet.Count(n), MaxFailures: fleet.Count(1000)}})
	require.NoError(t, err)
	require.True(t, created)
	return op
}

func budget(amount any) map[string]any { return map[string]any{"max_unavailable": amount} }

func TestASharedBudgetOfTwoRollouts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.kube(t, "a", "k", budget(3), 1, 5)
	f.kube(t, "b", "k", budget(3), 11, 5)
	f.kube(t, "c", "free", nil, 21, 5)
	a, b := f.startOn(t, "a", 2), f.startOn(t, "b", 5)
	require.Len(t, f.claims(t, a.ID, 1).Assignments, 2)

	before := time.Now()
	c := f.claims(t, b.ID, 1)
	require.Equal(t, []Assignment{{"h11", false, 1, 1, true}}, c.Assignments)
	require.Equal(t, "container manager k lets 3 of its nodes be away at once; 3 are away, 2 in other operations", c.Waiting)
	require.Equal(t, c.Waiting, c.Operation.Waiting)
	require.WithinRange(t, c.Again, before.Add(3*time.Second), time.Now().Add(7*time.Second))
	require.Equal(t, c.Assignments, f.claims(t, b.ID, 1).Assignments, "the same turn hands out nothing new")

	// A slot is handed on only while it is in the budget.
	next := f.ends(t, HostRunEnd{OperationID: b.ID, Address: "h11", State: fleet.HostRunSucceeded, Turn: 1, Next: true})
	require.Equal(t, "h12", next.Address)
	f.exec(t, "UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'h5'")
	require.Nil(t, f.ends(t, HostRunEnd{OperationID: b.ID, Address: "h12", State: fleet.HostRunSucceeded, Turn: 1, Next: true}), "a host of a is away meanwhile")
	c = f.claims(t, b.ID, 2)
	require.Empty(t, c.Assignments)
	require.Equal(t, "container manager k lets 3 of its nodes be away at once; 3 are away, 2 in other operations", c.Waiting)

	// The other rollout's own counts are its own.
	require.Empty(t, f.claims(t, a.ID, 2).Assignments)
	f.ends(t, HostRunEnd{OperationID: a.ID, Address: "h1", State: fleet.HostRunSucceeded, Turn: 1})
	c = f.claims(t, b.ID, 3)
	require.Len(t, c.Assignments, 1)
	require.Len(t, f.claims(t, f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(5)}}).ID, 1).Assignments, 5, "another container manager")

	// Nothing gives back any more: it ends and says what to do.
	_, err := f.BeginStep(t.Context(), a.ID, "h2", fleet.StepReboot, 1)
	require.NoError(t, err)
	require.NoError(t, f.EndOperation(t.Context(), a.ID, fleet.OperationCancelled, "cancelled"))
	f.exec(t, "UPDATE host SET state = 'failed', reason = 'x' WHERE address IN ('h3', 'h4')")
	f.ends(t, HostRunEnd{OperationID: b.ID, Address: c.Assignments[0].Address, State: fleet.HostRunSucceeded, Turn: 3})
	c = f.claims(t, b.ID, 4)
	require.Equal(t, fleet.OperationFailed, c.End)
	require.Equal(t, "container manager k lets 3 of its nodes be away at once, and 4 are away already (failed); mend them, or raise its max_unavailable, then retry", c.Reason)

	// A bootstrap of one of them may bring it back.
	f.start(t, fleet.KindBootstrap, "", "h3")
	c = f.claims(t, b.ID, 5)
	require.Empty(t, c.End)
	require.Equal(t, "container manager k lets 3 of its nodes be away at once; 4 are away, 1 in other operations", c.Waiting)
}

// TestASlotOfABrokenHost: a host that broke without being down, such as in an upgrade, is
// away for the container manager, so its slot is not handed on beyond the budget.
func TestASlotOfABrokenHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.kube(t, "a", "k", budget(1), 1, 5)
	a := f.startOn(t, "a", 3)
	require.Len(t, f.claims(t, a.ID, 1).Assignments, 1)
	broke := HostRunEnd{OperationID: a.ID, Address: "h1", State: fleet.HostRunFailed, Event: fleet.HostBroke, Reason: "step upgrade: x", Turn: 1, Next: true}
	for range 2 {
		require.Nil(t, f.ends(t, broke))
	}
	require.Equal(t, fleet.HostFailed, f.state(t, "h1"))
	c := f.claims(t, a.ID, 2)
	require.Empty(t, c.Assignments)
	require.Equal(t, fleet.OperationFailed, c.End)
}

// TestWhatASharedBudgetCounts: every node that is away once, whoever has it.
func TestWhatASharedBudgetCounts(t *testing.T) {
	t.Parallel()
	// A host whose part in the rollout of b has ended well, and that checks have lost then.
	const lose = `UPDATE host_run SET state = 'succeeded', started = now(), finished = now() WHERE address = 'h11';
		UPDATE host SET state = 'failed', reason = 'x', state_since = clock_timestamp() WHERE address = 'h11'`
	for name, c := range map[string]struct {
		sql    string // what happens, while a rollout of b has h1 of a's cluster running
		others int    // besides h1
		atWork int
	}{
		"nothing else":                       {"SELECT", 0, 0},
		"a failed host of ours":              {"UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'h11'", 0, 0},
		"one of ours that is not in it":      {"UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'h11'; DELETE FROM host_run WHERE address = 'h11'", 1, 0},
		"one of ours that was lost since":    {lose, 0, 0},
		"one that was lost is mended":        {lose + "; UPDATE host SET state = 'bootstrapping' WHERE address = 'h11'", 0, 0},
		"one that was lost and has left":     {lose + "; UPDATE host SET cluster = 'a' WHERE address = 'h11'", 1, 0},
		"one that failed before it was done": {lose + "; UPDATE host SET state_since = state_since - interval '1 hour' WHERE address = 'h11'", 1, 0},
		"one of ours that is down":           {"UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'h11'; UPDATE host_run SET state = 'failed', down = true, reason = 'x', finished = now() WHERE address = 'h11'", 0, 0},
		"one that left our cluster":          {"UPDATE host SET state = 'failed', reason = 'x', cluster = 'a' WHERE address = 'h11'", 1, 0},
		"a failed host of theirs":            {"UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'h2'", 1, 0},
		"the running one has failed, too":    {"UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'h1'", 0, 0},
		"one in a bootstrap":                 {"UPDATE host SET state = 'bootstrapping' WHERE address = 'h2'", 1, 1},
		"one that is disassociated":          {"UPDATE host SET state = 'disassociated' WHERE address = 'h2'", 0, 0},
		"one that is in no cluster":          {"UPDATE host SET state = 'failed', reason = 'x', cluster = NULL WHERE address = 'h2'", 1, 0},
		"one of another container manager":   {"UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'h2'; DELETE FROM node WHERE address = 'h2'", 0, 0},
		"one that stages":                    {"UPDATE host_run SET state = 'staging', started = now() WHERE address = 'h2'", 0, 0},
		"two":                                {"UPDATE host_run SET state = 'running', turn = 1, slot = 2, started = now(), rolling = now() WHERE address = 'h2'", 1, 1},
		"one that a register is at work on":  {"UPDATE host_run SET state = 'running', started = now(), rolling = now() WHERE address = 'h2'", 0, 0},
		"one whose cordon is out yet":        {"UPDATE host_run SET state = 'failed', turn = 1, reason = 'x', started = now(), finished = now(), cordon = 'restoring', cordon_manager = 'k' WHERE address = 'h2'", 1, 1},
		"one that is cordoned and deleted":   {"UPDATE host_run SET state = 'running', turn = 1, slot = 2, started = now(), rolling = now(), cordon = 'out', cordon_manager = 'k' WHERE address = 'h2'; DELETE FROM node WHERE address = 'h2'; DELETE FROM host WHERE address = 'h2'", 1, 1},
		"one that is let go and deleted":     {"UPDATE host_run SET state = 'running', turn = 1, slot = 2, started = now(), rolling = now(), cordon = 'restored', cordon_manager = 'k' WHERE address = 'h2'; DELETE FROM node WHERE address = 'h2'; DELETE FROM host WHERE address = 'h2'", 0, 0},
		"one with a cordon elsewhere":        {"UPDATE host_run SET state = 'failed', turn = 1, reason = 'x', started = now(), finished = now(), cordon = 'out', cordon_manager = 'l' WHERE address = 'h2'", 0, 0},
		"the running one is cordoned":        {"UPDATE host_run SET cordon = 'out', cordon_manager = 'k' WHERE address = 'h1'", 0, 0},
		"a running one of ours is cordoned":  {"UPDATE host_run SET state = 'running', turn = 1, slot = 1, started = now(), rolling = now(), cordon = 'out', cordon_manager = 'k' WHERE address = 'h11'", 0, 0},
		"one of ours is cordoned and down":   {"UPDATE host_run SET state = 'failed', down = true, reason = 'x', finished = now(), cordon = 'out', cordon_manager = 'k' WHERE address = 'h11'", 0, 0},
		"one of ours is cordoned yet":        {"UPDATE host_run SET state = 'failed', reason = 'x', finished = now(), cordon = 'out', cordon_manager = 'k' WHERE address = 'h11'", 1, 1},
		"one that is given back at its turn": {"UPDATE host_run SET state = 'pending', turn = 1 WHERE address = 'h2'", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.kube(t, "a", "k", budget("30%"), 1, 5)
			f.kube(t, "b", "k", budget("30%"), 11, 5)
			a, b := f.startOn(t, "a", 1), f.startOn(t, "b", 1)
			f.claims(t, a.ID, 1)
			f.exec(t, c.sql)
			got, err := f.shared(t.Context(), f.sql, b, "k", *fleet.Percent(30))
			require.NoError(t, err)
			want := fleet.Shared{Manager: "k", Limit: 3, Others: 1 + c.others, AtWork: 1 + c.atWork}
			if name == "one of another container manager" || strings.HasSuffix(name, "and deleted") {
				want.Limit = 2 // of nine nodes
			}
			require.Equal(t, want, *got)
		})
	}
}

// TestRolloutsThatShareABudget races two rollouts over one container manager, with
// hosts that fail and holders that are lost or come again, and looks all the time, in one
// snapshot each, how many nodes are away.
func TestRolloutsThatShareABudget(t *testing.T) {
	t.Parallel()
	const limit, hosts, workers = 3, 40, 4
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := setup(t)
	ctx := t.Context()
	f.kube(t, "a", "k", budget(limit), 1, hosts)
	f.kube(t, "b", "k", budget(limit), 101, hosts)
	var most atomic.Int64
	away := func() {
		var n int64
		err := f.sql.QueryRow(ctx, `SELECT (SELECT count(*) FROM host_run WHERE state = 'running') +
			(SELECT count(*) FROM host h WHERE state = 'failed' AND NOT EXISTS (SELECT FROM host_run r WHERE r.address = h.address AND r.state = 'running'))`).Scan(&n)
		if !assertNoError(t, err) {
			return
		}
		if n > limit {
			t.Errorf("%d nodes are away", n)
		}
		for {
			old := most.Load()
			if n <= old || most.CompareAndSwap(old, n) {
				return
			}
		}
	}
	var all sync.WaitGroup
	for i, cluster := range []string{"a", "b"} {
		op := f.startOn(t, cluster, limit)
		var turn atomic.Int64
		var broke atomic.Bool
		for j := range workers {
			r := rand.New(rand.NewPCG(seed, uint64(10*i+j)))
			all.Go(func() {
				for t.Context().Err() == nil && !t.Failed() {
					c, err := f.Claim(ctx, op.ID, int(turn.Add(1)), hold)
					if fleet.KindOf(err) == fleet.Conflict {
						continue // another one of us was faster
					}
					if !assertNoError(t, err) {
						return
					}
					if c.End != "" {
						_ = assertNoError(t, f.EndOperation(ctx, op.ID, c.End, c.Reason))
						return
					}
					for _, a := range c.Assignments {
						for next := &a; next != nil && !t.Failed(); {
							away()
							e := HostRunEnd{OperationID: op.ID, Address: next.Address, State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Turn: next.Turn, Next: r.IntN(3) > 0}
							switch {
							case r.IntN(20) == 0 && broke.CompareAndSwap(false, true): // one of each cluster
								e.State, e.Reason, e.Event, e.Down = fleet.HostRunFailed, "x", fleet.HostBroke, r.IntN(2) == 0
								e.Next = true
							case r.IntN(10) == 0:
								if !assertNoError(t, f.EndSlot(ctx, op.ID, Assignment{Slot: next.Slot, Turn: next.Turn, Stage: true}, "a slot that is not there")) {
									return
								}
							}
							given, err := f.EndHostRun(ctx, e)
							if !assertNoError(t, err) {
								return
							}
							away()
							next = given
						}
					}
				}
			})
		}
	}
	all.Wait()
	require.EqualValues(t, limit, most.Load(), "the budget is used")
	f.db.Close()
	require.Equal(t, "0", f.scan(t, "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"))
	t.Log(f.scan(t, "SELECT string_agg(cluster || ' ' || state || ' ' || reason, '; ') FROM operation"), fmt.Sprint(most.Load()))
}
