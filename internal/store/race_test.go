package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestManyCallersAtOnce lets callers do everything to few hosts and clusters at
// once. Only documented refusals may come, the invariants must hold, and the
// order of locks must keep Postgres from ever having to break a deadlock.
func TestManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	const callers, calls = 8, 150
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c1", "m1", fleet.ContainerManagerTrivial)
	f.managed(t, "c2", "m2", fleet.ContainerManagerTrivial)
	f.hosts(t, "c1", 4)

	var ids operationIDs
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	failures := together(callers, func(i int) error {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		for range calls {
			err := f.randomCall(ctx, r, &ids)
			if err != nil && !slices.Contains([]fleet.Kind{fleet.NotFound, fleet.Conflict, fleet.NotReady}, fleet.KindOf(err)) {
				return err
			}
		}
		return nil
	})
	for _, err := range failures {
		require.NoError(t, err)
	}
	for name, sql := range invariants {
		require.Equal(t, "0", f.scan(t, sql, fleet.DefaultTenant), name)
	}
	f.db.Close() // connections report their statistics when they end
	require.Equal(t, "0", f.scan(t, "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"))
}

// operationIDs are the operations that callers know of.
type operationIDs struct {
	mu  sync.Mutex
	all []string
}

func (o *operationIDs) add(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if id != "" && !slices.Contains(o.all, id) {
		o.all = append(o.all, id)
	}
}

// pick prefers young ones, since those are still open.
func (o *operationIDs) pick(r *rand.Rand) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.all) == 0 {
		return ""
	}
	return o.all[len(o.all)-1-r.IntN(min(6, len(o.all)))]
}

func (f *fixture) randomCall(ctx context.Context, r *rand.Rand, ids *operationIDs) (err error) {
	address, cluster := fmt.Sprint("h", 1+r.IntN(4)), fmt.Sprint("c", 1+r.IntN(2))
	id := ids.pick(r)
	switch r.IntN(20) {
	case 0:
		var op *fleet.Operation
		if _, op, err = f.PutHost(ctx, HostPut{Address: address, Cluster: cluster, Creds: creds("key")}); op != nil {
			ids.add(op.ID)
		}
	case 1:
		_, err = f.DeleteHost(ctx, address, "ann")
	case 2:
		err = f.AddMember(ctx, cluster, address)
	case 3:
		var old []string
		if old, err = f.Members(ctx, cluster); err == nil {
			_, err = f.ReplaceMembers(ctx, cluster, old, []string{address, fmt.Sprint("h", 1+r.IntN(4))})
		}
	case 4, 5:
		op, _, startErr := f.StartOperation(ctx, NewOperation{Kind: fleet.KindRestart, Cluster: cluster})
		ids.add(op.ID)
		err = startErr
	case 6:
		op, _, startErr := f.StartOperation(ctx, NewOperation{Kind: fleet.KindBootstrap, Host: address})
		ids.add(op.ID)
		err = startErr
	case 7:
		_, err = f.BeginOperation(ctx, id)
	case 8:
		err = f.EndOperation(ctx, id, fleet.OperationFailed, "why")
	case 9:
		_, err = f.Claim(ctx, id, 1+r.IntN(3), hold)
	case 10, 11:
		_, err = f.BeginHostRun(ctx, id, address)
	case 12:
		err = f.endRun(ctx, id, address, fleet.HostRunFailed, "why", fleet.HostBroke)
	case 13:
		if _, err = f.BeginStep(ctx, id, address, "reboot", 1); err == nil {
			err = f.RecordFacts(ctx, id, address, fleet.Facts{OS: "fedora"})
		}
	case 14:
		event := []fleet.HostEvent{fleet.HostPrepared, fleet.HostRecovered}[r.IntN(2)]
		err = f.endRun(ctx, id, address, fleet.HostRunSucceeded, "", event)
	case 16:
		_, err = f.Steer(ctx, id, SteerAction{Action: []string{"pause", "resume", "cancel"}[r.IntN(3)], By: "ann"})
	case 17:
		err = f.EndSlot(ctx, id, Assignment{Slot: 1, Turn: 1 + r.IntN(3)}, "lost")
	case 15:
		if r.IntN(4) == 0 {
			err = f.DeleteCluster(ctx, cluster)
		} else {
			manager := []*string{nil, text(""), text("m1"), text("m2")}[r.IntN(4)]
			_, err = f.PutCluster(ctx, ClusterPut{Name: cluster, ContainerManager: manager})
		}
	case 18:
		err = f.RemoveMember(ctx, cluster, address)
	case 19:
		manager := fmt.Sprint("m", 1+r.IntN(2))
		if r.IntN(4) == 0 {
			err = f.DeleteContainerManager(ctx, manager)
		} else {
			_, err = f.PutContainerManager(ctx, fleet.ContainerManager{Name: manager, Type: fleet.ContainerManagerTrivial})
		}
	}
	return err
}
