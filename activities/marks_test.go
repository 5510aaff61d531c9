package activities_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// TestDiagnosisByTheRecord: whether a mark goes, and whether a host is a node, is for the
// record to say.
func TestDiagnosisByTheRecord(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := newNodeRig(t).drained(t, "marked", nil)
	dryRun := func() fleet.HostDiagnosis {
		ref := workflows.DiagnosisRef{Tenant: fleet.DefaultTenant, Cluster: d.name, Addresses: []string{d.name}}
		said, err := execute(how{}, workflows.DiagnoseNodes, d.nodes.DiagnoseCluster, ref)
		require.NoError(t, err)
		require.Empty(t, said.Unknown)
		return said.Hosts[d.name]
	}
	finding := func(passes bool, detail string) {
		t.Helper()
		h := dryRun()
		require.Len(t, h.Findings, 1)
		f := h.Findings[0]
		require.Equal(t, []any{containermgr.CordonHeld, true, passes}, []any{f.Cause, f.Blocks, f.Passes})
		require.Contains(t, f.Detail, detail)
	}
	require.NoError(t, d.cordon())
	finding(true, "wait for its end")

	// It ended, and the sweep is at it.
	first := d.op.ID
	d.again(t)
	sweeping := "is still cordoned for operation " + first + ", which has ended"
	finding(true, sweeping)
	require.Contains(t, requireRefused(t, workflows.TypeGaveUp, d.diagnose(soon(), fleet.Drain{})), sweeping)

	// Nobody takes it away any more.
	_, _, err := d.BeginRestore(ctx, first, d.name)
	require.NoError(t, err)
	require.NoError(t, d.CordonRestored(ctx, first, d.name))
	d.again(t)
	finding(false, "remove the annotation commissaire/cordon")
	require.Contains(t, requireRefused(t, "failed", d.diagnose(how{}, fleet.Drain{})), "node marked bears the mark of operation "+first+", which has ended")

	// A container manager that is made anew knows nothing of the host.
	_, err = d.DeleteContainerManager(ctx, d.name, false)
	require.NoError(t, err)
	d.checked(t, d.name, d.cluster(t, d.name, nil))
	d.again(t)
	const lost = "is not registered with container manager marked; bootstrap its host, or leave the node alone (drain.disabled, --no-drain)"
	require.Equal(t, []fleet.Finding{{Cause: containermgr.NodeMissing, Object: "node marked", Blocks: true, Detail: lost}}, dryRun().Findings)
	require.Equal(t, "the node cannot be drained: node marked "+lost, requireRefused(t, "failed", d.diagnose(how{}, fleet.Drain{})))
}

// again puts the host into a slot of another rollout, since a step that has failed is over.
func (d *drained) again(t *testing.T) {
	t.Helper()
	require.NoError(t, d.EndOperation(t.Context(), d.op.ID, fleet.OperationFailed, "x"))
	op, _, err := d.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindRestart, Cluster: d.name})
	require.NoError(t, err)
	c, err := d.Claim(t.Context(), op.ID, 1, 0)
	require.NoError(t, err)
	require.Len(t, c.Assignments, 1)
	require.True(t, c.Assignments[0].Node)
	d.op = op
}
