package activities_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// slow makes the command of prepare print a line and then wait for release.
func (r *rig) slow(t *testing.T) {
	t.Helper()
	require.NoError(t, r.host.OnCommand("uname", `echo begun
while [ ! -e "$H/go" ]; do sleep 0.05; done & echo $! >"$H/pid.new"; mv "$H/pid.new" "$H/pid"; wait`))
}

func (r *rig) release(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(r.host.Dir(), "go"), nil, 0o600))
}

// running says whether the slow command's inner process lives.
func (r *rig) running() bool {
	pid, err := os.ReadFile(filepath.Join(r.host.Dir(), "pid"))
	if err != nil {
		return false
	}
	status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/status")
	return err == nil && !strings.Contains(string(status), "\nState:\tZ") // a zombie only waits for its parent
}

// begun waits until the command runs and what it printed is stored.
func (r *rig) begun(t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return r.running() && r.row(t, workflows.StepPrepare).OutputTo > 0 }, "the command runs")
}

func TestCancel(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	r.slow(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done := r.beside(r.crew(t), workflows.StepPrepare, how{ctx: ctx})
	r.begun(t)

	cancel(temporal.NewCanceledError()) // as the SDK does when a heartbeat is answered so
	require.True(t, temporal.IsCanceledError(await(t, done)))
	require.True(t, r.running(), "it is another step that ends it")
	for range 2 { // any worker may, and twice
		require.NoError(t, r.stop(r.crew(t), workflows.StepPrepare, how{}))
		require.False(t, r.running())
		require.Zero(t, r.host.Count("uname", ""), "it did not come to its work")
		require.True(t, strings.HasPrefix(r.output(t, workflows.StepPrepare), "begun\n"))
		row := r.row(t, workflows.StepPrepare)
		require.Equal(t, fleet.StepFailed, row.State)
		require.Contains(t, row.Reason, "cancelled; its command was ended by signal 15")
		require.Equal(t, 128+15, *row.ExitCode)
	}
}

// stop ends the command of a step by one crew.
func (r *rig) stop(c *crew, step string, h how) error {
	if h.unreachable == 0 {
		h.unreachable = patience
	}
	in := workflows.StopStep{HostStep: workflows.HostStep{HostRef: r.ref(), Step: step, Attempt: 1, Unreachable: h.unreachable}, Reason: "cancelled"}
	_, err := execute(h, workflows.Stop, c.hosts.Stop, in)
	return err
}

// A command that ended by itself in time has done its work.
func TestStopComesLate(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	before := r.effects(t)
	r.slow(t)
	lost := r.beside(r.crew(t), workflows.StepPrepare, how{})
	r.begun(t)
	r.release(t)
	require.NoError(t, await(t, lost))
	_, err := r.sql.Exec(t.Context(), `UPDATE step SET state = 'running', finished = NULL, exit_code = NULL`)
	require.NoError(t, err)
	require.NoError(t, r.stop(r.crew(t), workflows.StepPrepare, how{}))
	require.Equal(t, fleet.StepSucceeded, r.row(t, workflows.StepPrepare).State)
	require.Equal(t, 1, r.since(t, before)["uname -a"])
}

// Nobody can say what became of a command on a host that cannot be reached.
func TestStopOutOfReach(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	r.slow(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	lost := r.beside(r.crew(t), workflows.StepPrepare, how{ctx: ctx})
	r.begun(t)
	cancel(temporal.NewCanceledError())
	require.Error(t, await(t, lost))
	require.NoError(t, r.host.Refuse())
	require.NoError(t, r.stop(r.crew(t), workflows.StepPrepare, how{unreachable: 300 * time.Millisecond}))
	row := r.row(t, workflows.StepPrepare)
	require.Equal(t, fleet.StepIndeterminate, row.State)
	require.Contains(t, row.Reason, "cancelled; the host could not be told to end the command, which may still run there: gave up after 300ms")
	require.NoError(t, r.host.Accept(t.Context()))
	r.release(t)
}

// What was not begun never will be, whoever comes late.
func TestStopBeforeBegin(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepReboot)
	require.NoError(t, r.stop(r.crew(t), workflows.StepReboot, how{}))
	require.Equal(t, "cancelled; its command had not begun", r.row(t, workflows.StepReboot).Reason)
	_, err := r.do(r.crew(t), workflows.StepReboot, how{})
	requireRefused(t, "failed", err)
	require.Zero(t, r.host.Count("systemctl", "reboot"))
}

func TestCancelBeforeBegin(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepReboot)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(temporal.NewCanceledError())
	c := r.crew(t)
	_, err := r.do(c, workflows.StepReboot, how{ctx: ctx})
	require.True(t, temporal.IsCanceledError(err), "%v", err)
	require.Zero(t, r.host.Count("systemctl", "reboot"))
}

// Who lost the step leaves the command alone: another worker follows it.
func TestStepTakenAway(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	before := r.effects(t)
	r.slow(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	lost := r.beside(r.crew(t), workflows.StepPrepare, how{ctx: ctx})
	r.begun(t)
	follower := r.beside(r.crew(t), workflows.StepPrepare, how{attempt: 2})

	cancel(serviceerror.NewNotFound("activity task not found")) // as the SDK does
	require.Error(t, await(t, lost))
	require.True(t, r.running())
	r.release(t)
	require.NoError(t, await(t, follower))
	r.requireOnce(t, workflows.StepPrepare, before)
}

// A worker that was asleep when its time ran out has lost the step, too.
func TestSleptOverDeadline(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	before := r.effects(t)
	r.slow(t)
	follower := r.beside(r.crew(t), workflows.StepPrepare, how{attempt: 2})
	r.begun(t)

	for _, h := range []how{
		{deadline: time.Now().Add(-time.Second)},
		{deadline: time.Now().Add(time.Second), heartbeat: time.Nanosecond}, // every silence is too long
	} {
		_, err := r.do(r.crew(t), workflows.StepPrepare, h)
		requireRetried(t, err)
		require.Contains(t, err.Error(), "slept over")
	}
	require.True(t, r.running())
	r.release(t)
	require.NoError(t, await(t, follower))
	r.requireOnce(t, workflows.StepPrepare, before)
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	r.slow(t)
	ctx, lose := context.WithCancel(t.Context())
	lost := r.beside(r.crew(t), workflows.StepPrepare, how{ctx: ctx})
	r.begun(t) // however long that takes
	lose()
	require.Error(t, await(t, lost))
	_, err := r.do(r.crew(t), workflows.StepPrepare, how{attempt: 2, deadline: time.Now().Add(15 * time.Second)})
	require.Contains(t, requireRefused(t, "gave-up", err), "no result within the step's deadline")
	require.NoError(t, r.stop(r.crew(t), workflows.StepPrepare, how{}))
	require.False(t, r.running(), "the command's time is over, too")
	require.True(t, strings.HasPrefix(r.output(t, workflows.StepPrepare), "begun\n"))
	require.Contains(t, r.row(t, workflows.StepPrepare).Reason, "; it said: begun", "which an attempt before had kept")
}

// What stood in the way is said also when it was another attempt that met it.
func TestDeadlineOfAHostInTrouble(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	require.NoError(t, r.host.Refuse())
	ctx, lose := context.WithCancel(t.Context())
	lost := r.beside(r.crew(t), workflows.StepPrepare, how{ctx: ctx, unreachable: time.Hour})
	eventually(t, func() bool { return strings.HasPrefix(r.row(t, workflows.StepPrepare).Reason, "trouble since ") }, "it is told")
	lose()
	require.Error(t, await(t, lost))
	require.NoError(t, r.host.Accept(t.Context()))
	require.NoError(t, r.host.Hang())
	t.Cleanup(func() { _ = r.host.Unhang() })
	h := how{attempt: 2, unreachable: time.Hour, deadline: time.Now().Add(time.Hour), spent: time.Hour - workflows.EndGrace - time.Second}
	_, err := r.do(r.crew(t), workflows.StepPrepare, h)
	require.Regexp(t, "no result within the step's deadline; last: trouble since .*: unreachable: .*connection refused", requireRefused(t, "gave-up", err))
}

// Workers that come and go do not give a step more time than it has.
func TestDeadlineOverSeveralAttempts(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	r.slow(t)
	h := how{attempt: 3, deadline: time.Now().Add(time.Hour), spent: time.Hour - workflows.EndGrace - time.Second}
	require.Contains(t, requireRefused(t, "gave-up", await(t, r.beside(r.crew(t), workflows.StepPrepare, h))), "no result within the step's deadline")
	r.release(t)
}

func TestWorkerStops(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	before := r.effects(t)
	r.slow(t)
	stop := make(chan struct{})
	done := r.beside(r.crew(t), workflows.StepPrepare, how{stop: stop})
	r.begun(t)
	close(stop)
	err := await(t, done)
	requireRetried(t, err)
	require.Contains(t, err.Error(), "another one goes on")
	require.True(t, r.running())

	next := r.beside(r.crew(t), workflows.StepPrepare, how{attempt: 2})
	r.release(t)
	require.NoError(t, await(t, next))
	r.requireOnce(t, workflows.StepPrepare, before)
	printed := r.output(t, workflows.StepPrepare)
	require.True(t, strings.HasPrefix(printed, "begun\n"))
	require.Equal(t, 2, strings.Count(printed, "\n"), "%q", printed)
}

func TestOutOfReach(t *testing.T) {
	forEachStep(t, func(t *testing.T, r *rig, step string) {
		before := r.effects(t)
		require.NoError(t, r.host.Refuse())
		h := how{unreachable: 300 * time.Millisecond}
		if step == workflows.StepReboot || step == workflows.StepWait { // which have no other limit
			h.deadline, h.spent = time.Now().Add(time.Hour), time.Hour-workflows.EndGrace-10*time.Second
		}
		_, err := r.do(r.crew(t), step, h)
		refused := requireRefused(t, "gave-up", err)
		require.Contains(t, refused, fmt.Sprintf("%s:%d", r.host.Address(), r.host.Port()))
		require.Equal(t, fleet.StepRunning, r.row(t, step).State, "Temporal may know better whose step it is")
		if reason := r.row(t, step).Reason; reason != "" {
			require.Regexp(t, "^trouble since ", reason, "which is no end")
		}
		require.Empty(t, r.since(t, before))
	})
}
