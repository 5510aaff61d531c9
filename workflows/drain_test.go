package workflows_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// nodeWorld is a world whose hosts are nodes.
func nodeWorld(names ...string) *world {
	w := &world{hosts: hosts(names...), policy: fleet.Policy{Drain: &fleet.Drain{}}, broken: map[string]error{}}
	for _, h := range w.hosts {
		h.Node = true
	}
	return w
}

func TestANodeIsEmptiedBeforeItsHostGoesAway(t *testing.T) {
	t.Parallel()
	w := nodeWorld("a", "b")
	w.policy.MinReady = fleet.Lasting(time.Minute)
	w.hosts[1].Node = false
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, []string{
		"check a", "diagnose a", "cordon a", "drain a", "reboot a", "wait a", "verify a", "node-ready a", "settle a", "node-settle a", "uncordon a", "leave a",
		"check b", "reboot b", "wait b", "verify b", "settle b", "leave b",
		"end",
	}, w.steps())
	require.Equal(t, []string{"a/0", "a/0"}, w.lefts, "the kubelet must report from another boot")
	require.Equal(t, fleet.HostRecovered, w.ends["a"].Event)
}

func TestAPolicyMayLeaveNodesAlone(t *testing.T) {
	t.Parallel()
	w := nodeWorld("a")
	w.policy.Drain = nil
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, []string{"check a", "reboot a", "wait a", "verify a", "leave a", "end"}, w.steps())
}

// Packages are upgraded on an empty node, whether or not the host reboots then.
func TestPackagesAreUpgradedUnderTheDrain(t *testing.T) {
	t.Parallel()
	for reboots, then := range map[bool][]string{true: {"reboot a", "wait a"}, false: nil} {
		w := nodeWorld("a")
		w.hosts[0].reboot = reboots
		require.NoError(t, roll(t, w, fleet.KindUpgrade))
		steps := []string{"check a", "diagnose a", "cordon a", "drain a", "upgrade a", "verify-packages a", "reboot-needed a"}
		require.Equal(t, append(append(steps, then...), "verify a", "node-ready a", "uncordon a", "leave a", "end"), w.steps())
		require.Equal(t, reboots, len(w.lefts) > 0, "without a reboot any report of the kubelet will do")
	}
}

// The node of a host that only stages what it will boot some day is not touched.
func TestImagesAreStagedWithoutADrain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reboot fleet.RebootPolicy
		needed bool
		steps  []string
	}{
		"never":      {fleet.RebootNever, true, []string{"check ostree", "stage ostree", "reboot-needed ostree", "verify ostree", "leave ostree"}},
		"not needed": {fleet.RebootIfNeeded, false, []string{"check ostree", "diagnose ostree", "stage ostree", "reboot-needed ostree", "verify ostree", "leave ostree"}},
		"needed": {fleet.RebootIfNeeded, true, []string{
			"check ostree", "diagnose ostree", "stage ostree", "reboot-needed ostree", "cordon ostree", "drain ostree",
			"reboot ostree", "wait ostree", "verify ostree", "node-ready ostree", "uncordon ostree", "leave ostree",
		}},
	} {
		w := nodeWorld("ostree")
		w.policy.Reboot, w.hosts[0].stages, w.hosts[0].reboot = &c.reboot, true, c.needed
		require.NoError(t, roll(t, w, fleet.KindUpgrade), name)
		before := []string{"stage ostree", "leave ostree"} // on every host, without a slot
		require.Equal(t, append(append(before, c.steps...), "end"), w.steps(), name)
	}
}

// nodeSteps are those of a restart, and what a failure in each means for the host.
var nodeSteps = []struct {
	name  string
	event fleet.HostEvent
	down  bool
}{
	{workflows.StepCheck, fleet.HostLost, false},
	{workflows.StepDiagnose, "", false},
	{workflows.StepCordon, "", false},
	{workflows.StepDrain, "", false},
	{workflows.StepReboot, fleet.HostBroke, true},
	{workflows.StepWait, fleet.HostBroke, true},
	{workflows.StepVerify, fleet.HostBroke, true},
	{workflows.StepNodeReady, fleet.HostBroke, true},
	{workflows.StepSettle, fleet.HostBroke, true},
	{workflows.StepNodeSettle, fleet.HostBroke, true},
}

// Whatever step ends a host's part, and however, its node is let go as soon as it may
// have been cordoned, and before the slot is anybody else's.
func TestEveryEndingUncordons(t *testing.T) {
	t.Parallel()
	late := temporal.NewNonRetryableApplicationError("patience is over", workflows.TypeGaveUp, nil)
	for name, ending := range map[string]struct {
		err    error
		cancel bool
		reason string
	}{
		"failed":    {permanent("no"), false, "no"},
		"gave up":   {late, false, "patience is over"},
		"cancelled": {temporal.NewCanceledError(), true, "cancelled"},
	} {
		cordons := false
		for _, step := range nodeSteps {
			cordons = cordons || step.name == workflows.StepCordon
			w := nodeWorld("a")
			w.policy.MinReady = fleet.Lasting(time.Minute)
			w.broken[step.name+" a"] = ending.err
			env := environment(t, w)
			w.at = func(did string) {
				if ending.cancel && did == step.name+" a" {
					env.CancelWorkflow()
				}
			}
			require.Error(t, roll(t, w, fleet.KindRestart), "%s at %s", name, step.name)
			then := []string{}
			if name != "failed" && step.name == workflows.StepReboot {
				then = append(then, "stop reboot a")
			}
			if cordons {
				then = append(then, "uncordon a")
			}
			steps := w.steps()
			at := slices.Index(steps, step.name+" a")
			require.Equal(t, append(then, "leave a", "end"), steps[at+1:], "%s at %s", name, step.name)

			end := w.ends["a"]
			require.Equal(t, "step "+step.name+": "+ending.reason, end.Reason, "of the step that failed")
			if step.name == workflows.StepCheck { // which knows no nodes
				continue
			}
			require.Equal(t, step.event, end.Event, "%s at %s", name, step.name)
			require.Equal(t, step.down, end.Down, "%s at %s", name, step.name)
		}
	}
}

func TestTheTimeOfAHostDoesNotKeepItsNode(t *testing.T) {
	t.Parallel()
	for step, event := range map[string]fleet.HostEvent{workflows.StepDrain: "", workflows.StepSettle: fleet.HostBroke} {
		w := nodeWorld("a")
		w.policy.HostTimeout, w.policy.MinReady = fleet.Lasting(time.Hour), fleet.Lasting(2*time.Hour)
		if step == workflows.StepDrain {
			w.broken["drain a"] = errors.New("worker lost")   // tried again and again
			w.policy.HostTimeout = fleet.Lasting(time.Minute) // no step before it stands still for so long
		}
		require.Error(t, roll(t, w, fleet.KindRestart))
		require.Contains(t, w.ends["a"].Reason, "step "+step+": the host was not done within its deadline")
		require.Equal(t, event, w.ends["a"].Event)
		require.Equal(t, event != "", w.ends["a"].Down)
		require.Equal(t, []string{"uncordon a", "leave a", "end"}, w.steps()[len(w.steps())-3:])
	}
}

// A node that cannot be let go fails its host, which works, and others go on with it.
func TestANodeThatIsNotLetGo(t *testing.T) {
	t.Parallel()
	refused := temporal.NewNonRetryableApplicationError("container manager kube: away", workflows.TypeGaveUp, nil)
	w := nodeWorld("a")
	w.broken["uncordon a"] = refused
	require.Error(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, workflows.HostEnd{
		HostRef: w.ends["a"].HostRef, State: fleet.HostRunFailed, Down: true, Event: fleet.HostRecovered,
		Reason: "step uncordon: container manager kube: away; it is tried again until it works",
	}, w.ends["a"])

	w = nodeWorld("a")
	w.broken["uncordon a"], w.broken["drain a"] = refused, permanent("a budget")
	require.Error(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, "step drain: a budget", w.ends["a"].Reason)
	require.Empty(t, w.ends["a"].Event)
	require.True(t, w.ends["a"].Down, "no pod can come to it")
}

// A worker that dies over it is followed by another, for as long as it takes.
func TestUncordoningIsRepeated(t *testing.T) {
	t.Parallel()
	w := nodeWorld("a")
	w.broken["uncordon a"] = errors.New("worker lost")
	tries := 0
	w.at = func(did string) {
		if did == "uncordon a" {
			if tries++; tries == 5 {
				delete(w.broken, did)
			}
		}
	}
	require.NoError(t, roll(t, w, fleet.KindRestart))
	require.Equal(t, 5, tries)
}

// Slots that are kept go on with the next host when the node of the last is let go.
func TestKeptSlotsUncordonInBetween(t *testing.T) {
	t.Parallel()
	w := nodeWorld("a", "b", "c")
	w.policy.MaxFailures = fleet.Count(3)
	w.broken["drain b"] = permanent("a budget")
	env := environment(t, w)
	w.turn = 1
	first := w.hand(fleet.Decision{Start: 1}, 1)
	require.Len(t, first, 1)
	env.ExecuteWorkflow(workflows.Slot, workflows.SlotInput{
		RolloutRef: rollout(fleet.KindRestart).RolloutRef, Assignment: first[0], Policy: w.hostPolicy(), Keep: true,
	})
	require.NoError(t, env.GetWorkflowError())
	for _, h := range w.hosts {
		at := slices.Index(w.log, "uncordon "+h.Address)
		require.Positive(t, at)
		require.Equal(t, "leave "+h.Address, w.log[at+1])
	}
	require.Equal(t, fleet.HostRunSucceeded, w.ends["c"].State)
}

func TestUncordonAfterTheEnd(t *testing.T) {
	t.Parallel()
	w := &world{broken: map[string]error{"uncordon a": errors.New("container manager kube: away")}}
	env := environment(t, w)
	tries := 0
	w.at = func(string) {
		if tries++; tries == 8 {
			delete(w.broken, "uncordon a")
		}
	}
	env.ExecuteWorkflow(workflows.Uncordon, host)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, 8, tries)
}

func TestDiagnosingACluster(t *testing.T) {
	t.Parallel()
	w := &world{diagnosis: workflows.Diagnosis{Hosts: map[string]fleet.HostDiagnosis{
		"a": {Findings: []fleet.Finding{{Cause: "budget", Object: "budget shop/web", Detail: "allows no eviction", Blocks: true}}, More: 2},
	}}}
	ask := func() *testsuite.TestWorkflowEnvironment {
		env := environment(t, w)
		env.ExecuteWorkflow(workflows.DiagnoseCluster, workflows.DiagnosisRef{Tenant: "default", Cluster: "web", Addresses: []string{"a"}})
		return env
	}
	var said workflows.Diagnosis
	require.NoError(t, ask().GetWorkflowResult(&said))
	require.Equal(t, w.diagnosis, said)

	w.broken["diagnose cluster"] = errors.New("no database")
	env := environment(t, w)
	began := env.Now()
	env.ExecuteWorkflow(workflows.DiagnoseCluster, workflows.DiagnosisRef{Tenant: "default", Cluster: "web"})
	require.Error(t, env.GetWorkflowError())
	require.LessOrEqual(t, env.Now().Sub(began), workflows.DiagnoseLimit, "somebody waits")
}

func TestTheNameOfADiagnosis(t *testing.T) {
	t.Parallel()
	in := workflows.DiagnosisRef{Tenant: "default", Cluster: "web", Addresses: []string{"a"}}
	name := workflows.DiagnosisWorkflowID(in)
	require.Equal(t, name, workflows.DiagnosisWorkflowID(in))
	in.Policy.Force = true
	require.NotEqual(t, name, workflows.DiagnosisWorkflowID(in), "another question")
}
