package store

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestHostRunLife(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 2)
	restart := f.start(t, fleet.KindRestart, "c", "")
	requireKind(t, fleet.Conflict, f.endRun(ctx, restart.ID, "h1", fleet.HostRunSucceeded, "", ""))
	run, err := f.BeginHostRun(ctx, restart.ID, "h1")
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunRunning, run.State)
	again, err := f.BeginHostRun(ctx, restart.ID, "h1")
	require.NoError(t, err)
	require.Equal(t, run, again)
	_, err = f.BeginHostRun(ctx, restart.ID, "nope")
	requireKind(t, fleet.NotFound, err)

	boot := f.start(t, fleet.KindBootstrap, "", "h1")
	_, err = f.BeginHostRun(ctx, boot.ID, "h1")
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, restart.ID, holder(t, err).ID)

	ids := together(8, func(i int) string {
		id, err := f.SetHostRunBootID(t.Context(), restart.ID, "h1", fmt.Sprint("boot", i))
		if err != nil {
			return err.Error()
		}
		return id
	})
	for _, id := range ids {
		require.Equal(t, ids[0], id, "the first writer wins")
	}

	step, err := f.BeginStep(ctx, restart.ID, "h1", "reboot", 1)
	require.NoError(t, err)
	require.Error(t, f.endRun(ctx, restart.ID, "h1", fleet.HostRunRunning, "", ""))
	require.NoError(t, f.endRun(ctx, restart.ID, "h1", fleet.HostRunFailed, "", fleet.HostBroke))
	h, err := f.Host(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, fleet.HostFailed, h.State)
	require.NotEmpty(t, h.Reason)
	require.Equal(t, restart.ID, h.OperationID)
	steps, err := f.Steps(ctx, restart.ID, "h1")
	require.NoError(t, err)
	require.Equal(t, step.ID, steps[0].ID)
	require.Equal(t, fleet.StepIndeterminate, steps[0].State)
	require.NotEmpty(t, steps[0].Reason)

	require.NoError(t, f.endRun(ctx, restart.ID, "h1", fleet.HostRunSucceeded, "", fleet.HostRecovered))
	require.Equal(t, fleet.HostFailed, f.state(t, "h1"), "no event comes twice")
	_, err = f.BeginHostRun(ctx, boot.ID, "h1")
	require.NoError(t, err, "the host is free again")

	require.NoError(t, f.endRun(ctx, restart.ID, "h2", fleet.HostRunSkipped, "budget spent", ""))
	runs, err := f.HostRuns(ctx, restart.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunSkipped, runs[1].State)
	require.Equal(t, ids[0], runs[0].BootID)
}

func TestReasonsComeFromTheStep(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 2)
	restart := f.start(t, fleet.KindRestart, "c", "")

	_, err := f.BeginHostRun(ctx, restart.ID, "h1")
	require.NoError(t, err)
	step, err := f.BeginStep(ctx, restart.ID, "h1", "reboot", 1)
	require.NoError(t, err)
	_, err = f.EndStep(ctx, StepEnd{StepID: step.ID, State: fleet.StepFailed, Reason: "exit code 1; it said: no bus"})
	require.NoError(t, err)
	require.NoError(t, f.endRun(ctx, restart.ID, "h1", fleet.HostRunFailed, "step reboot: exit code 1", fleet.HostBroke))

	_, err = f.BeginHostRun(ctx, restart.ID, "h2")
	require.NoError(t, err)
	_, err = f.BeginStep(ctx, restart.ID, "h2", "wait", 1)
	require.NoError(t, err)
	require.NoError(t, f.endRun(ctx, restart.ID, "h2", fleet.HostRunFailed, "step wait: gave up after 2m", fleet.HostBroke))

	runs, err := f.HostRuns(ctx, restart.ID)
	require.NoError(t, err)
	require.Equal(t, "step reboot: exit code 1; it said: no bus", runs[0].Reason, "the host's own words")
	require.Equal(t, "step wait: gave up after 2m", runs[1].Reason)
	h, err := f.Host(ctx, "h1")
	require.NoError(t, err)
	require.Equal(t, runs[0].Reason, h.Reason)
	steps, err := f.Steps(ctx, restart.ID, "h2")
	require.NoError(t, err)
	require.Equal(t, "gave up after 2m", steps[0].Reason)
	require.NoError(t, f.EndOperation(ctx, restart.ID, fleet.OperationFailed, "host h2: something"))
	op, err := f.Operation(ctx, restart.ID)
	require.NoError(t, err)
	require.Equal(t, "host h2: step wait: gave up after 2m", op.Reason)
}

func TestNoStepOnAHostThatWasAddedAgain(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	restart := f.start(t, fleet.KindRestart, "c", "")
	_, err := f.BeginHostRun(ctx, restart.ID, "h1")
	require.NoError(t, err)
	_, err = f.BeginStep(ctx, restart.ID, "h1", "check", 1)
	require.NoError(t, err)
	_, err = f.DeleteHost(ctx, "h1", "alice")
	require.NoError(t, err)
	_, err = f.BeginStep(ctx, restart.ID, "h1", "reboot", 1)
	requireKind(t, fleet.NotFound, err)
	f.newHost(t, "h1", "c")
	_, err = f.BeginStep(ctx, restart.ID, "h1", "reboot", 1)
	requireKind(t, fleet.NotFound, err)
	require.ErrorContains(t, err, "added again")
}

func TestAHostThatWasNeverGivenUpFailsItsPart(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	before := f.state(t, "h1")
	restart := f.start(t, fleet.KindRestart, "c", "")
	require.NoError(t, f.endRun(t.Context(), restart.ID, "h1", fleet.HostRunFailed, "held by another operation", ""))
	runs, err := f.HostRuns(t.Context(), restart.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunFailed, runs[0].State)
	require.Equal(t, before, f.state(t, "h1"), "the host was not touched")
}

func TestConcurrentBeginHostRun(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	ops := []fleet.Operation{f.start(t, fleet.KindRestart, "c", ""), f.start(t, fleet.KindBootstrap, "", "h1")}
	errs := together(20, func(i int) error {
		_, err := f.BeginHostRun(t.Context(), ops[i%2].ID, "h1")
		return err
	})
	refused := 0
	for _, err := range errs {
		if err != nil {
			requireKind(t, fleet.Conflict, err)
			refused++
		}
	}
	require.Equal(t, 10, refused, "one of the two holds the host")
}

// TestPagesFromAnyCursor: what is larger than any number in a list is behind its end.
func TestPagesFromAnyCursor(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 2)
	op := f.rollout(t, NewOperation{})
	for _, cursor := range []string{"2147483647", "2147483648", "9223372036854775807"} {
		runs, next, err := f.HostRunsPage(ctx, op.ID, HostRunFilter{Cursor: cursor})
		require.NoError(t, err, cursor)
		require.Empty(t, runs)
		require.Empty(t, next)
		steps, _, err := f.StepsPage(ctx, op.ID, StepFilter{Cursor: cursor})
		require.NoError(t, err, cursor)
		require.Empty(t, steps)
		_, _, err = f.Audit(ctx, AuditFilter{Cursor: cursor})
		require.NoError(t, err, cursor)
		events, err := f.Events(ctx, op.ID, EventFilter{After: cursor + "-" + cursor})
		require.NoError(t, err, cursor)
		require.Empty(t, events)
	}
	_, _, err := f.HostRunsPage(ctx, op.ID, HostRunFilter{Cursor: "9223372036854775808"})
	requireKind(t, fleet.Invalid, err)
}
