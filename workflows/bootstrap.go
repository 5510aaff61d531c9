package workflows

import (
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Bootstrap makes a host usable: reach it, pin its host key, learn its facts,
// prove that once-only commands work on it, put on it what its profile asks for,
// and make it a node of its cluster's container manager, where that one has nodes.
// It is an operation of its own; every failure ends in the host state failed with a
// reason, and it may be started again.
func Bootstrap(ctx workflow.Context, in HostInput) error {
	r := newHostRun(in, []string{StepInvestigate, StepPrepare})
	return single(ctx, r, func(ctx workflow.Context, taken HostBegun) (HostEnd, error) {
		end := HostEnd{State: fleet.HostRunSucceeded, Event: fleet.HostPrepared}
		if taken.Profile != "" {
			r.names = append(r.names, StepInstall, StepConfigure, StepServices)
		}
		if taken.Registers {
			r.names = append(r.names, StepRegister)
		}
		if err := bootstrapSteps(ctx, r, taken.Profile); err != nil || !taken.Registers {
			return end, err
		}
		return registerStep(ctx, r)
	})
}

// single carries out an operation on one host. work gives the good end.
func single(ctx workflow.Context, r *hostRun, work func(workflow.Context, HostBegun) (HostEnd, error)) error {
	begun, err := BeginOperation.Run(onRecord(ctx, r.in.Timing, "begin"), r.in.OperationRef)
	switch {
	case err != nil:
		return endSingle(ctx, r, HostResult{}, err)
	case begun.Ended:
		return nil
	}
	markState(ctx, fleet.OperationRunning)
	taken, err := r.begin(ctx)
	if err == nil && taken.Ended != "" {
		return endSingle(ctx, r, HostResult{State: taken.Ended, Reason: taken.Reason}, nil)
	}
	var end HostEnd
	if err == nil { // else the host was not to be had
		end, err = work(ctx, taken)
	}
	result, _, err := r.end(ctx, err, end)
	return endSingle(ctx, r, result, err)
}

func bootstrapSteps(ctx workflow.Context, r *hostRun, profile string) error {
	t := r.in.Timing
	if _, err := Investigate.Run(onHost(ctx, t, t.Step, "investigate "+r.in.Address), r.step(ctx, StepInvestigate)); err != nil {
		return err
	}
	_, err := Prepare.Run(onHost(ctx, t, t.Step, "prepare "+r.in.Address), r.step(ctx, StepPrepare))
	if err != nil || profile == "" {
		return err
	}
	for _, step := range []struct {
		name string
		Step[ContentStep, Nothing]
	}{{StepInstall, Install}, {StepConfigure, Configure}, {StepServices, Services}} {
		in := ContentStep{HostStep: r.step(ctx, step.name), Profile: profile}
		if _, err := step.Run(onHost(ctx, t, t.Step, step.name+" "+r.in.Address), in); err != nil {
			return err
		}
	}
	return nil
}

// endSingle ends the operation by what became of its host, or of the record.
func endSingle(ctx workflow.Context, r *hostRun, result HostResult, err error) error {
	end := OperationEnd{OperationRef: r.in.OperationRef, State: fleet.OperationSucceeded}
	switch {
	case err != nil:
		end.State, end.Reason = fleet.OperationFailed, explain(err)
	case result.State == fleet.HostRunFailed:
		end.State, end.Reason = fleet.OperationFailed, "host "+r.in.Address+": "+result.Reason
	case result.Reason != "": // such as a node that was not ready in time
		end.Reason = "host " + r.in.Address + ": " + result.Reason
	}
	if ctx.Err() != nil || temporal.IsCanceledError(err) {
		end.State = fleet.OperationCancelled
	}
	return writeEnd(ctx, r.in.Timing, end)
}

// writeEnd ends the operation in the record. The workflow then ends in the same
// way, so that Temporal's UI shows a failed operation as failed.
func writeEnd(ctx workflow.Context, t Timing, end OperationEnd) error {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if _, err := EndOperation.Run(onRecord(ctx, t, string(end.State)), end); err != nil {
		return err
	}
	markState(ctx, end.State)
	if end.State == fleet.OperationSucceeded {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(end.Reason, string(end.State), nil)
}
