package dispatch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/workflows"
)

func TestASyncIsStartedUnderTheNameOfItsSource(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op, _, err := r.record.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindSync, Source: "cmdb"})
	require.NoError(t, err)
	r.Start(t.Context(), op)
	require.Len(t, r.frontend.starts, 1)
	start := r.frontend.starts[0]
	require.Equal(t, "source/default/cmdb", start.WorkflowId)
	require.Equal(t, "Sync", start.WorkflowType.Name)
	var in workflows.SourceInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(start.Input, &in))
	require.Equal(t, workflows.SourceInput{
		OperationRef: workflows.OperationRef{Tenant: "default", OperationID: op.ID}, Source: "cmdb", Timing: workflows.Timing{Step: time.Minute},
	}, in)
}
