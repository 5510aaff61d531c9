package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestCordonsRace has slots that cordon and restore, twins of them that everybody thought
// dead, and people who move and delete hosts, and end or delete the cluster, the operation
// and the container manager, all at once. Once a restore has begun nobody may cordon; no cordon is out that nobody
// can take back; and nobody meets a deadlock.
func TestCordonsRace(t *testing.T) {
	t.Parallel()
	const rounds, hosts, twins = 12, 6, 3
	f := setup(t)
	ctx := t.Context()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	outcomes := map[string]int{}
	for round := range rounds {
		cluster, manager, first := fmt.Sprint("c", round), fmt.Sprint("k", round), 100*round
		f.kube(t, cluster, manager, nil, first, hosts)
		op, _, err := f.StartOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: cluster, Policy: fleet.Policy{MaxUnavailable: fleet.Count(hosts)}})
		require.NoError(t, err)
		f.claims(t, op.ID, 1)
		address := func(i int) string { return fmt.Sprint("h", first+i) }

		r := rand.New(rand.NewPCG(seed, uint64(round)))
		var calls []func() error
		for i := range hosts {
			a := address(i)
			if r.IntN(2) == 0 {
				_, err := f.BeginCordon(ctx, op.ID, a)
				require.NoError(t, err)
			}
			var restored atomic.Bool
			for range r.IntN(twins) {
				dies := r.IntN(2) == 0
				calls = append(calls, func() error {
					after := restored.Load()
					_, err := f.BeginCordon(ctx, op.ID, a)
					if err == nil && after {
						t.Errorf("%s was cordoned after it was restored", a)
					}
					if err != nil {
						return err
					}
					after = restored.Load()
					if err = f.CordonStands(ctx, op.ID, a); err == nil && after {
						t.Errorf("the cordon of %s stands after it was restored", a)
					}
					return err
				}, func() error {
					_, out, err := f.BeginRestore(ctx, op.ID, a)
					if err != nil {
						return err
					}
					restored.Store(true)
					if !out || dies {
						return nil
					}
					if _, err := f.BeginStep(ctx, op.ID, a, fleet.StepUncordon, 2); err != nil && fleet.KindOf(err) != fleet.Conflict {
						return err
					}
					return f.CordonRestored(ctx, op.ID, a)
				})
			}
			calls = append(calls, func() error {
				_, err := f.EndHostRun(ctx, HostRunEnd{OperationID: op.ID, Address: a, State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Turn: 1, Next: true})
				return err
			})
		}
		calls = append(calls,
			func() error { return f.RemoveMember(ctx, cluster, address(0)) }, func() error { return f.AddMember(ctx, cluster, address(0)) })
		gone := round % 6
		for _, c := range []struct {
			when bool
			call func() error
		}{
			{gone == 1, func() error { return f.EndOperation(ctx, op.ID, fleet.OperationCancelled, "cancelled") }},
			{gone == 2, func() error { return f.DeleteCluster(ctx, cluster) }},
			{gone == 3, func() error { return f.DeleteContainerManager(ctx, manager) }},
			{gone >= 4, func() error { _, err := f.Store.DeleteContainerManager(ctx, manager, true); return err }},
			{gone == 5, func() error { _, err := f.DeleteHost(ctx, address(1), "ann"); return err }},
			{gone == 5, func() error { return f.EndOperation(ctx, op.ID, fleet.OperationFailed, "x") }},
		} {
			if c.when {
				calls = append(calls, c.call)
			}
		}
		r.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
		for _, err := range together(len(calls), func(i int) error { return calls[i]() }) {
			if err != nil && !slices.Contains([]fleet.Kind{fleet.NotFound, fleet.Conflict, fleet.NotReady}, fleet.KindOf(err)) {
				t.Error(err)
			}
		}

		require.Equal(t, "0", f.scan(t, `SELECT count(*)::text FROM host_run r WHERE cordon IN ('out', 'restoring')
			AND NOT EXISTS (SELECT FROM container_manager m WHERE m.tenant = r.tenant AND m.name = r.cordon_manager)`), "nobody can take it back")
		_ = f.EndOperation(ctx, op.ID, fleet.OperationFailed, "the end")
		for _, c := range f.left(t) {
			_, out, err := f.BeginRestore(ctx, c.OperationID, c.Address)
			require.NoError(t, err)
			require.True(t, out)
			require.NoError(t, f.CordonRestored(ctx, c.OperationID, c.Address))
			outcomes["swept"]++
		}
		require.Empty(t, f.left(t))
		for i := range hosts {
			outcomes[f.scan(t, "SELECT cordon FROM host_run WHERE operation_id = $1 AND address = $2", op.ID, address(i))]++
		}
	}
	t.Log(outcomes)
	f.db.Close()
	require.Equal(t, "0", f.scan(t, "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"))
}
