package workflows

import (
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Names of the steps of a bootstrap, as the record shows them.
const (
	StepInvestigate = "investigate"
	StepPrepare     = "prepare"
)

// Bootstrap makes a host usable: reach it, pin its host key, learn its facts,
// and prove that once-only commands work on it. It is an operation of its own;
// every failure ends in the host state failed with a reason, and it may be
// started again.
func Bootstrap(ctx workflow.Context, in HostInput) error {
	in.Timing = in.Timing.WithDefaults()
	begun, err := BeginOperation.Run(onRecord(ctx, in.Timing, "begin"), in.OperationRef)
	switch {
	case err != nil:
		return endOperation(ctx, in.OperationRef, in.Timing, HostResult{}, "", err)
	case begun.Ended:
		return nil
	}
	markState(ctx, fleet.OperationRunning)
	result, err := runHost(ctx, in, []string{StepInvestigate, StepPrepare}, fleet.HostPrepared, bootstrapSteps)
	return endOperation(ctx, in.OperationRef, in.Timing, result, in.Address, err)
}

func bootstrapSteps(ctx workflow.Context, r *hostRun) error {
	t := r.in.Timing
	if _, err := Investigate.Run(onHost(ctx, t, t.Step, "investigate "+r.in.Address), r.step(ctx, StepInvestigate)); err != nil {
		return err
	}
	_, err := Prepare.Run(onHost(ctx, t, t.Step, "prepare "+r.in.Address), r.step(ctx, StepPrepare))
	return err
}
