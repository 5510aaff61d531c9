package store

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// happen applies an event on behalf of an operation, and says whether it fitted.
func (f *fixture) happen(t *testing.T, id, address string, event fleet.HostEvent, reason string) bool {
	t.Helper()
	var changed []string
	require.NoError(t, f.db.tx(t.Context(), func(ctx context.Context, q querier) (err error) {
		changed, err = f.applyEvent(ctx, q, stateChange{addresses: []string{address}, event: event, reason: reason, operation: id})
		return err
	}))
	return len(changed) == 1
}

func TestHostEvents(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for _, from := range []fleet.HostState{fleet.HostInvestigating, fleet.HostBootstrapping, fleet.HostActive, fleet.HostDisassociated, fleet.HostFailed} {
		for _, event := range []fleet.HostEvent{fleet.HostInvestigate, fleet.HostFactsFound, fleet.HostPrepared, fleet.HostRegistered, fleet.HostBroke, fleet.HostRecovered, fleet.HostReturned, fleet.HostLost} {
			name := string(from) + "-" + string(event)
			op := f.newHost(t, name, "")
			f.exec(t, "UPDATE host SET state = $2, reason = 'before', bootstrapped = '2020-01-01', state_since = '2020-01-01' WHERE address = $1", name, string(from))
			before, err := f.Host(ctx, name)
			require.NoError(t, err)
			to, ok := from.Next(event)
			require.Equal(t, ok, f.happen(t, op.ID, name, event, "because"), name)
			after, err := f.Host(ctx, name)
			require.NoError(t, err)
			if !ok {
				require.Equal(t, before, after, name)
				continue
			}
			require.Equal(t, to, after.State, name)
			require.Equal(t, "because", after.Reason, name)
			require.Equal(t, to == from, after.StateSince.Equal(before.StateSince), "%s: since changes with the state", name)
			require.Equal(t, from == fleet.HostBootstrapping && to.ReadyToJoin(), !after.Bootstrapped.Equal(before.Bootstrapped), name)
			require.True(t, f.happen(t, op.ID, name, fleet.HostBroke, "because"), name)
		}
	}

	op := f.newHost(t, "never", "")
	require.True(t, f.happen(t, op.ID, "never", fleet.HostBroke, ""))
	require.False(t, f.happen(t, op.ID, "never", fleet.HostRecovered, ""), "it never worked")
	require.False(t, f.happen(t, op.ID, "never", fleet.HostReturned, ""), "it never worked")
	require.False(t, f.happen(t, op.ID, "never", fleet.HostBroke, "not bootstrapped"), "why it failed first is what counts")
	require.False(t, f.happen(t, op.ID, "nope", fleet.HostBroke, "x"))
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

	require.True(t, f.happen(t, op.ID, "h", fleet.HostPrepared, ""))
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
	require.NoError(t, f.endRun(ctx, op.ID, "h1", fleet.HostRunFailed, "gone", fleet.HostBroke))
	require.Equal(t, fleet.HostInvestigating, f.state(t, "h1"))
	requireKind(t, fleet.NotFound, f.RecordFacts(ctx, op.ID, "h1", fleet.Facts{OS: "x"}))
	require.False(t, f.happen(t, op.ID, "h1", fleet.HostBroke, "x"))
}

// TestABootstrapTakesItsHostAsItIs: the operation before it may leave the host
// failed after the bootstrap was ordered.
func TestABootstrapTakesItsHostAsItIs(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	restart := f.start(t, fleet.KindRestart, "c", "")
	_, err := f.BeginHostRun(ctx, restart.ID, "h1")
	require.NoError(t, err)
	boot := f.start(t, fleet.KindBootstrap, "", "h1")
	require.Equal(t, fleet.HostInvestigating, f.state(t, "h1"))
	require.NoError(t, f.endRun(ctx, restart.ID, "h1", fleet.HostRunFailed, "no way back", fleet.HostBroke))
	require.Equal(t, fleet.HostFailed, f.state(t, "h1"))

	f.bootstrap(t, boot, fleet.HostRunSucceeded, fleet.HostPrepared)
	h, err := f.Host(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, fleet.HostDisassociated, h.State)
	require.Empty(t, h.Reason)
	require.Equal(t, boot.ID, h.OperationID)
}

// TestAnOperationThatIsCutOffFailsItsHosts: nobody knows what the host that it
// was at work on is like now. Those whose turn did not come are untouched.
func TestAnOperationThatIsCutOffFailsItsHosts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 3)
	restart := f.start(t, fleet.KindRestart, "c", "")
	for _, address := range []string{"h1", "h2"} {
		_, err := f.BeginHostRun(ctx, restart.ID, address)
		require.NoError(t, err)
		_, err = f.BeginStep(ctx, restart.ID, address, fleet.StepReboot, 1)
		require.NoError(t, err)
	}
	require.NoError(t, f.endRun(ctx, restart.ID, "h1", fleet.HostRunSucceeded, "", fleet.HostRecovered))
	for range 2 {
		require.NoError(t, f.EndOperation(ctx, restart.ID, fleet.OperationFailed, "its workflow is gone"))
	}
	require.Equal(t, fleet.HostDisassociated, f.state(t, "h1"))
	require.Equal(t, fleet.HostDisassociated, f.state(t, "h3"))
	h, err := f.Host(ctx, "h2")
	require.NoError(t, err)
	require.Equal(t, fleet.HostFailed, h.State)
	require.Equal(t, "its workflow is gone", h.Reason)
	require.Equal(t, restart.ID, h.OperationID)
}

// TestReasonsQuoteWhatHostsSay: also what no text column can hold.
func TestReasonsQuoteWhatHostsSay(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	const said, kept = "ended: a\x00b\xff\xfec", "ended: a\uFFFDb\uFFFDc"
	op := f.newHost(t, "h", "")
	_, err := f.BeginHostRun(ctx, op.ID, "h")
	require.NoError(t, err)
	step, err := f.BeginStep(ctx, op.ID, "h", "prepare", 1)
	require.NoError(t, err)
	step, err = f.EndStep(ctx, StepEnd{StepID: step.ID, State: fleet.StepFailed, Reason: said})
	require.NoError(t, err)
	require.Equal(t, kept, step.Reason)
	require.NoError(t, f.endRun(ctx, op.ID, "h", fleet.HostRunFailed, said, fleet.HostBroke))
	h, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, kept, h.Reason)
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, said))
	op, err = f.Operation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, kept, op.Reason)
}
