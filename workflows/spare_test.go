package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// The record knows by these names whether anything was done to a host that was lost.
func TestStepsThatSpareAHost(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		workflows.StepCheck, workflows.StepStage, workflows.StepRebootNeeded,
		workflows.StepDiagnose, workflows.StepCordon, workflows.StepDrain, workflows.StepUncordon,
	}, fleet.StepsThatSpare)
}
