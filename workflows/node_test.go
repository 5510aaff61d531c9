package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

func TestABootstrapRegistersTheNode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		registered workflows.NodeRegistered
		broken     error
		end        workflows.HostEnd
		state      fleet.OperationState
	}{
		"ready":     {workflows.NodeRegistered{Ready: true}, nil, workflows.HostEnd{State: fleet.HostRunSucceeded, Event: fleet.HostRegistered}, fleet.OperationSucceeded},
		"not ready": {workflows.NodeRegistered{Reason: "no kubelet"}, nil, workflows.HostEnd{State: fleet.HostRunSucceeded, Event: fleet.HostPrepared, Reason: "no kubelet"}, fleet.OperationSucceeded},
		"it left":   {workflows.NodeRegistered{}, nil, workflows.HostEnd{State: fleet.HostRunSucceeded, Event: fleet.HostPrepared}, fleet.OperationSucceeded},
		"refused":   {workflows.NodeRegistered{}, permanent("403"), workflows.HostEnd{State: fleet.HostRunFailed, Event: fleet.HostBroke, Reason: "step register: 403"}, fleet.OperationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{registers: true, registered: c.registered, broken: map[string]error{"register a": c.broken}}
			env := environment(t, w)
			env.ExecuteWorkflow(workflows.Bootstrap, host)
			require.Equal(t, c.state == fleet.OperationFailed, env.GetWorkflowError() != nil)
			require.Equal(t, []string{"begin", "take a", "investigate a", "prepare a", "register a", "leave a", "end"}, w.log)
			c.end.HostRef = host.HostRef
			require.Equal(t, c.end, w.ends["a"])
			require.Equal(t, c.state, w.ended.State)
			if c.end.Reason == "" {
				require.Empty(t, w.ended.Reason)
			} else { // also of one that did well as far as it went
				require.Equal(t, "host a: "+c.end.Reason, w.ended.Reason)
			}
		})
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	w := &world{registered: workflows.NodeRegistered{Ready: true}, held: map[string]int{"a": 3}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Register, host)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"begin", "take a", "register a", "leave a", "end"}, w.log)
	require.Equal(t, fleet.HostRegistered, w.ends["a"].Event)

	w = &world{broken: map[string]error{"register a": permanent("container manager kube: 403")}}
	env = environment(t, w)
	env.ExecuteWorkflow(workflows.Register, host)
	require.Error(t, env.GetWorkflowError(), "Temporal shows it as failed")
	require.Equal(t, fleet.HostPrepared, w.ends["a"].Event, "nothing is wrong with the host itself")
	require.Equal(t, "host a: step register: container manager kube: 403", w.ended.Reason)
}

func TestACancelledRegister(t *testing.T) {
	t.Parallel()
	w := &world{broken: map[string]error{"register a": temporal.NewCanceledError()}}
	env := environment(t, w)
	w.at = func(did string) {
		if did == "register a" {
			env.CancelWorkflow()
		}
	}
	env.ExecuteWorkflow(workflows.Register, host)
	require.Error(t, env.GetWorkflowError())
	require.Equal(t, fleet.OperationCancelled, w.ended.State)
	require.Equal(t, "step register: cancelled", w.ends["a"].Reason)
}

// A container manager that is away is asked again and again, and at last the operation fails.
func TestUnregister(t *testing.T) {
	t.Parallel()
	w := &world{held: map[string]int{"a": 100}} // for longer than others would wait
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.Unregister, host)
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{"begin", "take a", "unregister a", "leave a", "end"}, w.log)
	require.Empty(t, w.ends["a"].Event, "the host may be gone")

	w = &world{broken: map[string]error{"unregister a": errors.New("container manager kube: away")}}
	env = environment(t, w)
	began := env.Now()
	env.ExecuteWorkflow(workflows.Unregister, host)
	require.Error(t, env.GetWorkflowError())
	require.Greater(t, env.Now().Sub(began), 8*time.Minute, "the environment of the SDK ends after ten attempts, which Temporal does not")
	require.Equal(t, fleet.OperationFailed, w.ended.State)
	require.Equal(t, "host a: step unregister: container manager kube: away; nobody tries it again: remove the node yourself, with kubectl delete node a", w.ended.Reason)
	require.Empty(t, w.ends["a"].Event)
}

func TestAsking(t *testing.T) {
	t.Parallel()
	w := &world{verdict: workflows.ManagerVerdict{Kind: fleet.Invalid, Detail: "403", Fields: []fleet.FieldError{{Field: "options.token", Detail: "403"}}}}
	env := environment(t, w)
	env.ExecuteWorkflow(workflows.CheckManager, workflows.ManagerRef{Tenant: "default", Name: "kube", Check: "1"})
	var said workflows.ManagerVerdict
	require.NoError(t, env.GetWorkflowResult(&said))
	require.Equal(t, w.verdict, said)

	w = &world{broken: map[string]error{"read a": errors.New("no database")}}
	env = environment(t, w)
	began := env.Now()
	env.ExecuteWorkflow(workflows.ReadNode, workflows.NodeRef{Tenant: "default", Address: "a"})
	require.Error(t, env.GetWorkflowError())
	require.LessOrEqual(t, env.Now().Sub(began), workflows.AskLimit, "somebody waits")
}

// A worker that is lost while it lets a node go is replaced before others would be: a node
// is closed meanwhile.
func TestUncordonIsTakenOverSoon(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set, heartbeat time.Duration
	}{"default": {0, 2 * time.Second}, "shorter": {time.Second, time.Second}} {
		w := nodeWorld("a")
		env := environment(t, w)
		var got time.Duration
		env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
			if info.ActivityType.Name == workflows.UncordonNode.Name {
				got = info.HeartbeatTimeout
			}
		})
		in := host
		in.Timing.Heartbeat = c.set
		env.ExecuteWorkflow(workflows.Uncordon, in)
		require.NoError(t, env.GetWorkflowError(), name)
		require.Equal(t, c.heartbeat, got, name)
	}
}
