package dispatch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// TestACommandIsStartedUnderItsOwnName, since any number of them may run on a cluster.
func TestACommandIsStartedUnderItsOwnName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rollout("web")
	_, _, err := r.record.PutHost(t.Context(), store.HostPut{
		Address: "192.0.2.1", Cluster: "web", Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))},
	})
	require.NoError(t, err)
	for range 2 {
		command := &store.NewCommand{Command: fleet.Command{Argv: []string{"true"}, Timeout: fleet.Duration(time.Minute), AtOnce: 7}}
		op, _, err := r.record.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindCommand, Cluster: "web", Command: command, RequestedBy: "alice"})
		require.NoError(t, err)
		r.Start(t.Context(), op)
		start := r.frontend.starts[len(r.frontend.starts)-1]
		require.Equal(t, "command/default/"+op.ID, start.WorkflowId)
		require.Equal(t, "Command", start.WorkflowType.Name)
		var in workflows.CommandInput
		require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(start.Input, &in))
		ref := workflows.OperationRef{Tenant: "default", OperationID: op.ID}
		require.Equal(t, workflows.CommandInput{OperationRef: ref, Hosts: 1, AtOnce: 7, Timing: workflows.Timing{Step: time.Minute}}, in)
		r.Wake(t.Context(), op)
		require.Equal(t, workflows.CommandWorkflowID(op.Tenant, op.ID), workflows.WorkflowID(op))
	}
	require.Len(t, r.frontend.starts, 2)
	require.Empty(t, r.frontend.signals, "nobody has to tell a command to look")
}
