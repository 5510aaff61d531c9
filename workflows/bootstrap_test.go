package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

const anyArgument = mock.Anything

type convertedArgs = converter.EncodedValues

var host = workflows.HostInput{HostRef: workflows.HostRef{OperationRef: operation, Address: "a"}}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	w := &world{}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"begin", "take a", "investigate a", "prepare a", "leave a", "end"}, w.log)
	require.Equal(t, fleet.HostPrepared, w.ends["a"].Event)
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)
}

func TestBootstrapByAProfile(t *testing.T) {
	t.Parallel()
	w := &world{profile: "p", registers: true, registered: workflows.NodeRegistered{Ready: true}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"begin", "take a", "investigate a", "prepare a", "install p a", "configure p a", "services p a", "register a", "leave a", "end"}, w.log)

	for _, c := range []struct {
		step string
		err  error
		last []string
	}{
		{"install", permanent("no space"), []string{"install p a", "leave a", "end"}},
		{"install", temporal.NewNonRetryableApplicationError("gave up", workflows.TypeGaveUp, nil), []string{"install p a", "stop install a", "leave a", "end"}},
		{"configure", permanent("no space"), []string{"configure p a", "leave a", "end"}},
		{"services", permanent("it does not run"), []string{"services p a", "leave a", "end"}},
	} {
		w := &world{profile: "p", broken: map[string]error{c.step + " p a": c.err}}
		env := environment(t, w)
		env.ExecuteWorkflow(workflows.Bootstrap, host)
		require.Error(t, env.GetWorkflowError())
		require.Equal(t, c.last, w.log[len(w.log)-len(c.last):])
		require.Equal(t, fleet.HostBroke, w.ends["a"].Event)
		require.Contains(t, w.ends["a"].Reason, "step "+c.step+": ")
	}
}

func TestBootstrapFailureNamesHostAndStep(t *testing.T) {
	t.Parallel()
	w := &world{broken: map[string]error{"investigate a": permanent("the host refused the login")}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, "host a: step investigate: the host refused the login", w.ended.Reason)
	require.Equal(t, "step investigate: the host refused the login", w.ends["a"].Reason)
	require.Equal(t, fleet.HostBroke, w.ends["a"].Event)
	require.NotContains(t, w.log, "prepare a")
}

func TestAHeldHostIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := &world{held: map[string]int{"a": 5}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, fleet.OperationSucceeded, w.ended.State)

	w = &world{held: map[string]int{"a": 1000}}
	env = environment(t, w)
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, fleet.OperationFailed, w.ended.State)
	require.Contains(t, w.ended.Reason, "operation other held the host for more than 1h0m0s")
	require.Empty(t, w.ends["a"].Event, "a host that was never ours is not broken by us")
}

func TestACancelledBootstrapEndsTheHost(t *testing.T) {
	t.Parallel()
	w := &world{broken: map[string]error{"investigate a": temporal.NewCanceledError()}}
	env := environment(t, w)
	w.at = func(did string) {
		if did == "investigate a" {
			env.CancelWorkflow()
		}
	}
	env.ExecuteWorkflow(workflows.Bootstrap, host)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, fleet.OperationCancelled, w.ended.State)
	require.Equal(t, fleet.HostRunFailed, w.ends["a"].State, "no host stays in limbo")
	require.Equal(t, "step investigate: cancelled", w.ends["a"].Reason)
}
