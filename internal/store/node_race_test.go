package store

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestRegisteringRaces ends bootstraps while hosts join and leave, and while what they
// would be registered with is deleted. Whoever wins, the end must be that of one call
// after the other: a host with a node works and is active, one whose cluster or container
// manager is gone has no node, and nobody meets a deadlock.
func TestRegisteringRaces(t *testing.T) {
	t.Parallel()
	const rounds, hosts = 12, 6
	f := setup(t)
	ctx := t.Context()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	outcomes := map[string]int{}
	for round := range rounds {
		cluster, manager := fmt.Sprint("c", round), fmt.Sprint("m", round)
		f.managed(t, cluster, manager, fleet.ContainerManagerTrivial)
		address := func(i int) string { return fmt.Sprintf("h%d-%d", round, i) }
		var ops []fleet.Operation
		for i := range hosts {
			ops = append(ops, f.newHost(t, address(i), cluster))
			_, err := f.BeginHostRun(ctx, ops[i].ID, address(i))
			require.NoError(t, err)
			require.NoError(t, f.RecordFacts(ctx, ops[i].ID, address(i), fleet.Facts{OS: "fedora"}))
		}
		f.host(t, address(hosts), "")

		calls := []func() error{
			func() error { return f.AddMember(ctx, cluster, address(hosts)) },
			func() error { return f.RemoveMember(ctx, cluster, address(0)) },
			func() error { _, err := f.DeleteHost(ctx, address(1), "ann"); return err },
			func() error { return f.RemoveMember(ctx, cluster, address(hosts)) },
		}
		for i, op := range ops {
			calls = append(calls, func() error {
				return f.endRun(ctx, op.ID, address(i), fleet.HostRunSucceeded, "", fleet.HostPrepared)
			})
		}
		gone := round % 3
		switch gone {
		case 1:
			calls = append(calls, func() error { return f.DeleteContainerManager(ctx, manager) })
		case 2:
			calls = append(calls, func() error { return f.DeleteCluster(ctx, cluster) })
		}
		r.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
		for _, err := range together(len(calls), func(i int) error { return calls[i]() }) {
			if err != nil && fleet.KindOf(err) != fleet.NotFound {
				requireKind(t, fleet.Conflict, err)
			}
		}

		for i := range hosts + 1 {
			h, err := f.Host(ctx, address(i))
			if i == 1 {
				requireKind(t, fleet.NotFound, err)
				continue
			}
			require.NoError(t, err)
			held := f.scan(t, "SELECT count(*)::text FROM node WHERE address = $1", h.Address) == "1"
			outcomes[fmt.Sprint(h.State, " held ", held)]++
			require.True(t, h.State == fleet.HostActive || h.State == fleet.HostDisassociated, "%+v", h)
			require.Equal(t, held, h.State == fleet.HostActive && h.Cluster != "" && gone != 1, "%+v", h)
		}
	}
	t.Log(outcomes)
	f.db.Close()
	require.Equal(t, "0", f.scan(t, "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"))
}
