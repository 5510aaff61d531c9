package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestHostEvents(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for _, from := range []fleet.HostState{fleet.HostInvestigating, fleet.HostBootstrapping, fleet.HostActive, fleet.HostDisassociated, fleet.HostFailed} {
		for _, event := range []fleet.HostEvent{fleet.HostInvestigate, fleet.HostFactsFound, fleet.HostPrepared, fleet.HostRegistered, fleet.HostBroke, fleet.HostRecovered} {
			name := string(from) + "-" + string(event)
			op := f.newHost(t, name, "")
			f.exec(t, "UPDATE host SET state = $2, reason = 'before', bootstrapped = '2020-01-01', state_since = '2020-01-01' WHERE address = $1", name, string(from))
			before, err := f.Host(ctx, name)
			require.NoError(t, err)
			err = f.MarkHost(ctx, op.ID, name, event, "because")
			after, getErr := f.Host(ctx, name)
			require.NoError(t, getErr)
			to, ok := from.Next(event)
			if !ok {
				requireKind(t, fleet.Conflict, err)
				require.Equal(t, before, after, name)
				continue
			}
			require.NoError(t, err, name)
			require.Equal(t, to, after.State, name)
			require.Equal(t, "because", after.Reason, name)
			require.Equal(t, to == from, after.StateSince.Equal(before.StateSince), "%s: since changes with the state", name)
			require.Equal(t, from == fleet.HostBootstrapping && to.ReadyToJoin(), !after.Bootstrapped.Equal(before.Bootstrapped), name)
			require.NoError(t, f.MarkHost(ctx, op.ID, name, fleet.HostBroke, "because"), name)
		}
	}

	op := f.newHost(t, "never", "")
	require.NoError(t, f.MarkHost(ctx, op.ID, "never", fleet.HostBroke, ""))
	requireKind(t, fleet.Conflict, f.MarkHost(ctx, op.ID, "never", fleet.HostRecovered, ""))
	requireKind(t, fleet.NotFound, f.MarkHost(ctx, op.ID, "nope", fleet.HostBroke, "x"))
}

func TestRecordFacts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.newHost(t, "h", "")
	facts := fleet.Facts{OS: "fedora", OSVersion: "44", OSTree: true, CPUs: 4, Memory: 2048, Space: 1 << 40, BootID: "b"}
	for range 2 {
		require.NoError(t, f.RecordFacts(ctx, op.ID, "h", facts))
	}
	h, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, facts, fleet.Facts{OS: h.OS, OSVersion: h.OSVersion, OSTree: h.OSTree, CPUs: h.CPUs, Memory: h.Memory, Space: h.Space, BootID: h.BootID})
	require.Equal(t, fleet.HostBootstrapping, h.State)
	require.False(t, h.LastCheck.IsZero())
	requireKind(t, fleet.NotFound, f.RecordFacts(ctx, op.ID, "nope", facts))

	require.NoError(t, f.MarkHost(ctx, op.ID, "h", fleet.HostPrepared, ""))
	facts.BootID = "b2"
	require.NoError(t, f.RecordFacts(ctx, op.ID, "h", facts))
	h, err = f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, "b2", h.BootID)
	require.Equal(t, fleet.HostDisassociated, h.State, "facts do not send a host back")
}

// TestReaddedHostIsAnotherMachine: an old rollout must not touch the host that
// has the address of one that it knew.
func TestReaddedHostIsAnotherMachine(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	op := f.start(t, fleet.KindRestart, "c", "")
	_, err := f.BeginHostRun(ctx, op.ID, "h1")
	require.NoError(t, err)
	_, err = f.DeleteHost(ctx, "h1", "ann")
	require.NoError(t, err)
	f.newHost(t, "h1", "c")
	require.NoError(t, f.EndHostRun(ctx, op.ID, "h1", fleet.HostRunFailed, "gone", fleet.HostBroke))
	require.Equal(t, fleet.HostInvestigating, f.state(t, "h1"))
	requireKind(t, fleet.NotFound, f.RecordFacts(ctx, op.ID, "h1", fleet.Facts{OS: "x"}))
	requireKind(t, fleet.Conflict, f.MarkHost(ctx, op.ID, "h1", fleet.HostBroke, "x"))
}
