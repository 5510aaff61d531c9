package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// world plays the record and the hosts for the workflows: an in-memory ledger
// of what the steps were asked to do, in order.
type world struct {
	log    []string
	hosts  []string // still to come
	stop   string
	held   map[string]int // how many times the host is held by another operation
	broken map[string]error
	ended  *workflows.OperationEnd
	hostly map[string]workflows.HostEnd
	boots  map[string]int
	cancel func(step string)
}

func (w *world) did(step string, host string) error {
	w.log = append(w.log, strings.TrimSpace(step+" "+host))
	if w.cancel != nil {
		w.cancel(step)
	}
	return w.broken[step+" "+host]
}

func environment(t *testing.T, w *world) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	w.hostly = map[string]workflows.HostEnd{}
	w.boots = map[string]int{}
	register := func(name string, fn any) { env.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name}) }
	register(workflows.BeginOperation.Name, func(context.Context, workflows.OperationRef) (workflows.OperationBegun, error) {
		return workflows.OperationBegun{Hosts: len(w.hosts)}, w.did("begin", "")
	})
	register(workflows.NextHost.Name, func(context.Context, workflows.OperationRef) (workflows.NextHostResult, error) {
		if w.stop != "" && len(w.hostly) > 0 {
			return workflows.NextHostResult{Stop: w.stop}, nil
		}
		for _, h := range w.hosts {
			if _, done := w.hostly[h]; !done {
				return workflows.NextHostResult{Address: h}, nil
			}
		}
		return workflows.NextHostResult{}, nil
	})
	register(workflows.EndOperation.Name, func(_ context.Context, end workflows.OperationEnd) (workflows.Nothing, error) {
		if w.ended == nil {
			w.ended = &end
		}
		return workflows.Nothing{}, w.did("end", "")
	})
	register(workflows.BeginHost.Name, func(_ context.Context, in workflows.HostRef) (workflows.HostBegun, error) {
		if w.held[in.Address] > 0 {
			w.held[in.Address]--
			return workflows.HostBegun{HeldBy: "other"}, nil
		}
		return workflows.HostBegun{}, w.did("take", in.Address)
	})
	register(workflows.EndHost.Name, func(_ context.Context, end workflows.HostEnd) (workflows.Nothing, error) {
		if _, done := w.hostly[end.Address]; !done {
			w.hostly[end.Address] = end
		}
		return workflows.Nothing{}, w.did("leave", end.Address)
	})
	onHost := func(name string) func(context.Context, workflows.HostStep) (workflows.Nothing, error) {
		return func(_ context.Context, in workflows.HostStep) (workflows.Nothing, error) {
			return workflows.Nothing{}, w.did(name, in.Address)
		}
	}
	register(workflows.Investigate.Name, onHost(workflows.StepInvestigate))
	register(workflows.Prepare.Name, onHost(workflows.StepPrepare))
	register(workflows.Check.Name, func(_ context.Context, in workflows.HostStep) (workflows.Boot, error) {
		return workflows.Boot{BootID: fmt.Sprintf("%s/%d", in.Address, w.boots[in.Address])}, w.did(workflows.StepCheck, in.Address)
	})
	register(workflows.Reboot.Name, func(_ context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
		if in.BootID == fmt.Sprintf("%s/%d", in.Address, w.boots[in.Address]) {
			w.boots[in.Address]++
		}
		return workflows.Nothing{}, w.did(workflows.StepReboot, in.Address)
	})
	register(workflows.AwaitBoot.Name, func(_ context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
		return workflows.Nothing{}, w.did(workflows.StepWait, in.Address)
	})
	register(workflows.Verify.Name, func(_ context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
		return workflows.Nothing{}, w.did(workflows.StepVerify, in.Address)
	})
	env.RegisterWorkflow(workflows.RestartHost)
	env.RegisterWorkflow(workflows.Restart)
	env.RegisterWorkflow(workflows.Bootstrap)
	return env
}

func permanent(reason string) error {
	return temporal.NewNonRetryableApplicationError(reason, "failed", nil)
}

var (
	cluster = workflows.ClusterInput{OperationRef: workflows.OperationRef{Tenant: "default", OperationID: "op"}, Cluster: "web", Kind: fleet.KindRestart}
	host    = workflows.HostInput{HostRef: workflows.HostRef{OperationRef: cluster.OperationRef, Address: "a"}}
)

func TestRestartIsSerialAndInOrder(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"b", "a"}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{
		"begin",
		"take b", "check b", "reboot b", "wait b", "verify b", "leave b",
		"take a", "check a", "reboot a", "wait a", "verify a", "leave a",
		"end",
	}, w.log)
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
	require.Equal(t, map[string]int{"a": 1, "b": 1}, w.boots)
	require.Equal(t, fleet.HostRecovered, w.hostly["a"].Event)
}

func TestRestartOfAnEmptyClusterSucceeds(t *testing.T) {
	t.Parallel()
	w := &world{}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
}

func TestRestartStopsAtTheFirstFailure(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a", "b", "c"}, broken: map[string]error{"wait b": permanent("it did not come back")}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, fleet.OperationFailed, w.ended.State)
	require.Equal(t, "host b: step wait: it did not come back", w.ended.Reason)
	require.Equal(t, fleet.HostRunSucceeded, w.hostly["a"].State)
	require.Equal(t, fleet.HostRunFailed, w.hostly["b"].State)
	require.Equal(t, fleet.HostBroke, w.hostly["b"].Event)
	require.NotContains(t, w.hostly, "c", "the rest is untouched")
	require.NotContains(t, w.log, "take c")
}

func TestRestartStopsWhenTheRecordSaysSo(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a", "b"}, stop: "cluster web was deleted"}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, fleet.OperationCancelled, w.ended.State)
	require.Equal(t, "cluster web was deleted", w.ended.Reason)
	require.NotContains(t, w.log, "take b")
}

func TestAStepThatLostItsWorkerIsRepeated(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a"}}
	tries := 0
	w.broken = map[string]error{}
	w.cancel = func(step string) {
		if step == workflows.StepReboot {
			tries++
			delete(w.broken, "reboot a")
			if tries == 1 {
				w.broken["reboot a"] = errors.New("worker lost")
			}
		}
	}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, 2, tries)
	require.Equal(t, 1, w.boots["a"], "the boot id guards the reboot")
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
}

func TestAHeldHostIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a"}, held: map[string]int{"a": 5}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)

	w = &world{hosts: []string{"a"}, held: map[string]int{"a": 1000}}
	env = environment(t, w)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, fleet.OperationFailed, w.ended.State)
	require.Contains(t, w.ended.Reason, "operation other held the host for more than 1h0m0s")
	require.Zero(t, w.boots["a"])
	require.Empty(t, w.hostly["a"].Event, "a host that was never ours is not broken by us")
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a"}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"begin", "take a", "investigate a", "prepare a", "leave a", "end"}, w.log)
	require.Equal(t, fleet.HostPrepared, w.hostly["a"].Event)
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
}

func TestBootstrapFailureNamesHostAndStep(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a"}, broken: map[string]error{"investigate a": permanent("the host refused the login")}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, "host a: step investigate: the host refused the login", w.ended.Reason)
	require.Equal(t, "step investigate: the host refused the login", w.hostly["a"].Reason)
	require.Equal(t, fleet.HostBroke, w.hostly["a"].Event)
	require.NotContains(t, w.log, "prepare a")
}

func TestACancelledBootstrapEndsTheHost(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a"}}
	env := environment(t, w)
	w.broken = map[string]error{"investigate a": temporal.NewCanceledError()}
	w.cancel = func(step string) {
		if step == workflows.StepInvestigate {
			env.CancelWorkflow()
		}
	}
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, fleet.OperationCancelled, w.ended.State)
	require.Equal(t, fleet.HostRunFailed, w.hostly["a"].State, "no host stays in limbo")
	require.Equal(t, "step investigate: cancelled", w.hostly["a"].Reason)
}

func TestAnOutageOfOursIsNotTheHostsFailure(t *testing.T) {
	t.Parallel()
	w := &world{hosts: []string{"a"}, broken: map[string]error{"wait a": errors.New("Postgres does not answer")}}
	env := environment(t, w)
	over := env.Now().Add(time.Minute) // the test environment tries ten times at most
	in := cluster
	in.Timing.Reboot = 5 * time.Second
	w.cancel = func(string) {
		if env.Now().After(over) {
			delete(w.broken, "wait a")
		}
	}
	env.ExecuteWorkflow(workflows.Restart, in)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, fleet.OperationSucceeded, w.ended.State, w.ended.Reason)
	require.Equal(t, 1, w.boots["a"])
}

func TestALongClusterContinuesAsNew(t *testing.T) {
	t.Parallel()
	w := &world{}
	for i := range 501 {
		w.hosts = append(w.hosts, fmt.Sprintf("h%03d", i))
	}
	env := environment(t, w)
	env.SetTestTimeout(time.Minute)
	env.ExecuteWorkflow(workflows.Restart, cluster)
	require.ErrorContains(t, env.GetWorkflowError(), "continue as new")
	require.Len(t, w.hostly, 500)
	require.Nil(t, w.ended)
}
