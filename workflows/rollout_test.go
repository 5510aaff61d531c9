package workflows_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

var operation = workflows.OperationRef{Tenant: "default", OperationID: "op"}

func rollout(kind fleet.OperationKind) workflows.RolloutInput {
	return workflows.RolloutInput{RolloutRef: workflows.RolloutRef{OperationRef: operation, Cluster: "web", Kind: kind}}
}

// roll runs a rollout in a world and gives how its workflow ended.
func roll(t *testing.T, w *world, kind fleet.OperationKind) error {
	t.Helper()
	env := w.env
	if env == nil {
		env = environment(t, w)
	}
	env.ExecuteWorkflow(workflows.Rollout, rollout(kind))
	require.True(t, env.IsWorkflowCompleted())
	return env.GetWorkflowError()
}

// steps is what happened to hosts, without the questions to the record.
func (w *world) steps() []string {
	return slices.DeleteFunc(slices.Clone(w.log), func(did string) bool { return did == "plan" })
}

func TestWithoutAPolicyItIsSerialAndInOrder(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("b", "a")}
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, []string{
		"check b", "reboot b", "wait b", "verify b", "leave b",
		"check a", "reboot a", "wait a", "verify a", "leave a",
		"end",
	}, w.steps())
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
	require.Equal(t, map[string]int{"a": 1, "b": 1}, w.boots)
	require.Equal(t, fleet.HostRecovered, w.ends["a"].Event)
}

func TestAnEmptyClusterSucceeds(t *testing.T) {
	t.Parallel()
	w := &world{}
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
}

func TestItStopsAtTheFirstFailure(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b", "c"), broken: map[string]error{"wait b": permanent("it did not come back")}}
	require.Error(t, roll(t, w, fleet.KindRestart), "Temporal shows it as failed")
	require.Equal(t, fleet.OperationFailed, w.ended.State)
	require.Equal(t, fleet.HostRunSucceeded, w.ends["a"].State)
	require.Equal(t, fleet.HostRunFailed, w.ends["b"].State)
	require.Equal(t, "step wait: it did not come back", w.ends["b"].Reason)
	require.Equal(t, fleet.HostBroke, w.ends["b"].Event)
	require.True(t, w.ends["b"].Down, "it was away when it failed")
	require.NotContains(t, w.ends, "c", "the rest is untouched")
}

func TestSlotsRefillAndAreNeverExceeded(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b", "c", "d", "e", "f", "g"), policy: fleet.Policy{MaxUnavailable: fleet.Count(3)}}
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, 3, w.most)
	require.Len(t, w.boots, 7)
}

func TestCanariesWaitForApprovalForDays(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b", "c"), policy: fleet.Policy{Canary: &fleet.Canary{Hosts: fleet.Count(1), Then: fleet.ThenApprove}}}
	w.hosts[0].canary = true
	env := environment(t, w)
	env.RegisterDelayedCallback(func() {
		require.Equal(t, map[string]int{"a": 1}, w.boots, "nobody starts before the approval")
		env.SignalWorkflow(workflows.SignalWake, nil) // and a signal alone is none
	}, 72*time.Hour)
	env.RegisterDelayedCallback(func() {
		require.Equal(t, map[string]int{"a": 1}, w.boots)
		w.steering.Approved = true
		env.SignalWorkflow(workflows.SignalWake, nil)
	}, 96*time.Hour)
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Len(t, w.boots, 3)
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
}

func TestAPauseHoldsUntilSomebodyResumes(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b", "c")}
	w.at = func(did string) {
		if did == "wait a" {
			w.steering.Paused, w.steering.PausedBy = true, "alice"
		}
	}
	env := environment(t, w)
	env.RegisterDelayedCallback(func() {
		require.Equal(t, map[string]int{"a": 1}, w.boots)
		w.steering.Paused = false
		env.SignalWorkflow(workflows.SignalWake, nil)
	}, 24*time.Hour)
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Len(t, w.boots, 3)
}

func TestAClosedWindowIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a")}
	env := environment(t, w)
	opens := env.Now().UTC().Add(5 * time.Hour).Truncate(time.Minute)
	w.policy.Window = &fleet.Window{Start: opens.Format("15:04"), End: opens.Add(time.Hour).Format("15:04")}
	w.at = func(did string) {
		if did == "check a" {
			require.False(t, env.Now().Before(opens), "started at %s, the window opens at %s", env.Now(), opens)
		}
	}
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, 1, w.boots["a"])
}

func TestAnUpgradeOfPackages(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b")}
	w.hosts[1].reboot = true
	require.NoError(t, roll(t, w, fleet.KindUpgrade))
	require.Equal(t, []string{
		"check a", "upgrade a", "verify-packages a", "reboot-needed a", "verify a", "leave a",
		"check b", "upgrade b", "verify-packages b", "reboot-needed b", "reboot b", "wait b", "verify b", "leave b",
		"end",
	}, w.steps())
	require.Equal(t, map[string]int{"b": 1}, w.boots, "only the host that wants it reboots")
}

func TestTheRebootPolicyWinsOverTheHost(t *testing.T) {
	t.Parallel()
	for policy, want := range map[fleet.RebootPolicy]map[string]int{
		fleet.RebootNever: {}, fleet.RebootIfNeeded: {"b": 1}, fleet.RebootAlways: {"a": 1, "b": 1},
	} {
		w := &world{hosts: hosts("a", "b"), policy: fleet.Policy{Reboot: &policy}}
		w.hosts[1].reboot = true
		require.NoError(t, roll(t, w, fleet.KindUpgrade))
		require.Equal(t, want, w.boots, "%s", policy)
	}
}

// Every host stages before the first one is taken away, and staging takes no slot.
func TestImagesAreStagedEverywhereFirst(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("ostree1", "ostree2", "ostree3")}
	for _, h := range w.hosts {
		h.stages, h.reboot = true, true
	}
	require.NoError(t, roll(t, w, fleet.KindDeploy))
	last := slices.Index(w.log, "check ostree1")
	for _, h := range w.hosts {
		require.Less(t, slices.Index(w.log, "stage "+h.Address), last)
		require.Equal(t, 1, w.boots[h.Address])
	}
	require.Equal(t, 1, w.most)
	require.NotContains(t, strings.Join(w.log, "\n"), "upgrade")
}

func TestAVersionThatCannotBeHadTakesNobodyAway(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("ostree1", "ostree2"), broken: map[string]error{"stage ostree2": permanent("no such version")}}
	for _, h := range w.hosts {
		h.stages, h.reboot = true, true
	}
	require.Error(t, roll(t, w, fleet.KindDeploy))
	require.Empty(t, w.boots)
	require.False(t, w.ends["ostree2"].Down)
	require.Equal(t, fleet.OperationFailed, w.ended.State)
}

func TestAStepThatLostItsWorkerIsRepeated(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a"), broken: map[string]error{"reboot a": errors.New("worker lost")}}
	tries := 0
	w.at = func(did string) {
		if did == "reboot a" {
			if tries++; tries == 2 {
				delete(w.broken, "reboot a")
			}
		}
	}
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, 2, tries)
	require.Equal(t, 1, w.boots["a"], "the boot id guards the reboot")
}

func TestAnOutageOfOursIsNotTheHostsFailure(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a"), broken: map[string]error{"wait a": errors.New("Postgres does not answer")}}
	env := environment(t, w)
	over := env.Now().Add(time.Minute) // the test environment tries ten times at most
	w.at = func(string) {
		if env.Now().After(over) {
			delete(w.broken, "wait a")
		}
	}
	in := rollout(fleet.KindRestart)
	in.Timing.Reboot = 5 * time.Second
	env.ExecuteWorkflow(workflows.Rollout, in)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, fleet.OperationSucceeded, w.ended.State, w.ended.Reason)
}

func TestAHostIsWatchedBeforeItsSlotIsGivenOn(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a"), policy: fleet.Policy{MinReady: fleet.Lasting(10 * time.Minute)}}
	env := environment(t, w)
	var verified time.Time
	w.at = func(did string) {
		switch did {
		case "verify a":
			verified = env.Now()
		case "settle a":
			require.GreaterOrEqual(t, env.Now().Sub(verified), 10*time.Minute)
		}
	}
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Contains(t, w.log, "settle a")
}

func TestAHostEndsWithinItsDeadline(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b"), policy: fleet.Policy{
		HostTimeout: fleet.Lasting(time.Hour), MinReady: fleet.Lasting(2 * time.Hour), MaxFailures: fleet.Count(1),
	}}
	require.Error(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, "step settle: the host was not done within its deadline of 1h0m0s (host_timeout)", w.ends["a"].Reason)
	require.Contains(t, w.ends, "b", "the other hosts go on")
}

// Cancelled in Temporal: the hosts at work end cleanly, the others are untouched,
// and the operation says that it was cancelled.
func TestACancelledRolloutEndsItsHosts(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b"), broken: map[string]error{"wait a": temporal.NewCanceledError()}}
	env := environment(t, w)
	w.at = func(did string) {
		if did == "wait a" {
			env.CancelWorkflow()
		}
	}
	require.Error(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, fleet.OperationCancelled, w.ended.State)
	require.Equal(t, "step wait: cancelled", w.ends["a"].Reason)
	require.NotContains(t, w.ends, "b")
	require.Equal(t, "end", w.log[len(w.log)-1], "the operation ends after its hosts")
}

// The command of a step that is cancelled, or has had its time, is ended on the
// host, also when the worker that followed it is dead.
func TestNoCommandIsLeftBehind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		cancel bool
		reason string
	}{
		"cancelled": {temporal.NewCanceledError(), true, "step upgrade: cancelled"},
		"late":      {temporal.NewNonRetryableApplicationError("no result within the step's deadline", workflows.TypeGaveUp, nil), false, "step upgrade: no result within the step's deadline"},
	} {
		w := &world{hosts: hosts("a"), broken: map[string]error{"upgrade a": c.err}}
		env := environment(t, w)
		w.at = func(did string) {
			if did == "upgrade a" && c.cancel {
				env.CancelWorkflow()
			}
		}
		require.Error(t, roll(t, w, fleet.KindUpgrade), name)
		require.Equal(t, []string{"check a", "upgrade a", "stop upgrade a", "leave a", "end"}, w.steps(), name)
		require.Equal(t, c.reason, w.ends["a"].Reason, name)
		require.Equal(t, fleet.HostBroke, w.ends["a"].Event, name)
	}
}

// A host that a rollout did nothing to keeps the right to come back by itself; one that it
// changed something on, or may have, does not.
func TestWhatAFailureMeansForItsHost(t *testing.T) {
	t.Parallel()
	gaveUp := temporal.NewNonRetryableApplicationError("gave up after 2m0s: unreachable", workflows.TypeGaveUp, nil)
	for name, c := range map[string]struct {
		step   string
		err    error
		cancel bool
		event  fleet.HostEvent
	}{
		"out of reach at check":      {workflows.StepCheck, gaveUp, false, fleet.HostLost},
		"refused at check":           {workflows.StepCheck, permanent("auth-refused"), false, fleet.HostLost},
		"cancelled at check":         {workflows.StepCheck, temporal.NewCanceledError(), true, ""},
		"out of reach at stage":      {workflows.StepStage, gaveUp, false, fleet.HostLost},
		"failed at stage":            {workflows.StepStage, permanent("no space"), false, ""},
		"out of reach at upgrade":    {workflows.StepUpgrade, gaveUp, false, fleet.HostBroke},
		"failed at upgrade":          {workflows.StepUpgrade, permanent("no space"), false, fleet.HostBroke},
		"out of reach at the reboot": {workflows.StepReboot, gaveUp, false, fleet.HostBroke},
		"out of reach after it":      {workflows.StepWait, gaveUp, false, fleet.HostBroke},
	} {
		h := hosts("a")
		h[0].stages, h[0].reboot = c.step == workflows.StepStage, true
		w := &world{hosts: h, broken: map[string]error{c.step + " a": c.err}}
		env := environment(t, w)
		w.at = func(did string) {
			if did == c.step+" a" && c.cancel {
				env.CancelWorkflow()
			}
		}
		require.Error(t, roll(t, w, fleet.KindUpgrade), name)
		require.Equal(t, fleet.HostRunFailed, w.ends["a"].State, name)
		require.Equal(t, c.event, w.ends["a"].Event, name)
	}
}

// A host that was handed out before a pause and is taken up after it is given back.
func TestAHostThatWasGivenBackWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b"), broken: map[string]error{"check a": temporal.NewNonRetryableApplicationError("given back", workflows.TypeGivenBack, nil)}}
	env := environment(t, w)
	w.at = func(did string) {
		if did == "check a" && w.broken[did] != nil {
			w.host("a").state, w.steering.Paused, w.steering.PausedBy = fleet.HostRunPending, true, "alice"
		}
	}
	env.RegisterDelayedCallback(func() {
		require.Empty(t, w.boots)
		require.Empty(t, w.ends, "it has not ended")
		delete(w.broken, "check a")
		w.steering.Paused = false
		env.SignalWorkflow(workflows.SignalWake, nil)
	}, 24*time.Hour)
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, map[string]int{"a": 1, "b": 1}, w.boots)
}

// A host that only failed to stage works as before.
func TestAFailureBeforeAnythingWasDoneLeavesTheHostAlone(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("ostree1"), broken: map[string]error{"stage ostree1": permanent("no such version")}}
	w.hosts[0].stages = true
	require.Error(t, roll(t, w, fleet.KindDeploy))
	require.Empty(t, w.ends["ostree1"].Event)
}

// Somebody terminates the workflow of a host: its slot is given back.
func TestALostSlotIsGivenBack(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b"), policy: fleet.Policy{MaxFailures: fleet.Count(1)}}
	env := environment(t, w)
	env.OnWorkflow(workflows.Slot, anyArgument, anyArgument).Return(func(_ workflow.Context, in workflows.SlotInput) (workflows.HostResult, error) {
		if in.Address == "a" {
			return workflows.HostResult{}, temporal.NewNonRetryableApplicationError("gone", "", nil)
		}
		w.host(in.Address).state = fleet.HostRunSucceeded
		return workflows.HostResult{}, nil
	})
	require.Error(t, roll(t, w, fleet.KindRestart))
	require.Contains(t, w.log, "give back a")
	require.Contains(t, w.ends["a"].Reason, "its workflow in Temporal ended without an answer: gone")
	require.Equal(t, fleet.HostRunSucceeded, w.host("b").state, "the rollout goes on")
}

// Large rollouts keep one workflow for each slot, host after host.
func TestManyHostsShareTheWorkflowsOfTheirSlots(t *testing.T) {
	t.Parallel()
	w := &world{policy: fleet.Policy{MaxUnavailable: fleet.Percent(4)}}
	for i := range 250 {
		w.hosts = append(w.hosts, hosts(fmt.Sprintf("h%03d", i))...)
	}
	env := environment(t, w)
	slots := map[string]bool{}
	env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, _ convertedArgs) {
		slots[info.WorkflowExecution.ID] = true
	})
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, 10, w.most)
	require.Len(t, w.boots, 250)
	require.Len(t, slots, 10)
	require.True(t, slots["cluster/default/web/slot-10"], "%v", slots)
}

func TestALongHistoryIsLeftBehindWhenNobodyIsAtWork(t *testing.T) {
	t.Parallel()
	w := &world{hosts: hosts("a", "b"), steering: fleet.Steering{Paused: true, PausedBy: "alice"}}
	env := environment(t, w)
	env.SetContinueAsNewSuggested(true)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(workflows.SignalWake, nil) }, time.Hour)
	err := roll(t, w, fleet.KindRestart)
	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &again)
	require.Nil(t, w.ended)
	require.Empty(t, w.boots)
}
