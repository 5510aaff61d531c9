package workflows

import (
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// SlotInput starts the workflow that works on the host of a slot.
type SlotInput struct {
	RolloutRef
	Assignment
	Policy HostPolicy `json:"policy"`
	Keep   bool       `json:"keep,omitempty"` // go on with the next host when one is done
}

// Slot carries out an operation on one host, or, when it keeps the slot, on one
// host after the other until the record has no other for it.
func Slot(ctx workflow.Context, in SlotInput) (HostResult, error) {
	for {
		r := newHostRun(HostInput{HostRef: HostRef{OperationRef: in.OperationRef, Address: in.Address, Turn: in.Turn}, Timing: in.timing()}, in.steps())
		r.keep, r.rolls = in.Keep, true
		result, ended, err := r.run(ctx, in.success(), func(ctx workflow.Context) error {
			return within(ctx, in.Policy.HostTimeout, func(ctx workflow.Context) error { return rollSteps(ctx, r, in) })
		})
		switch {
		case err != nil:
			return result, err
		case !in.Keep:
			return result, showFailure(result)
		case ended.Next == nil:
			state := fleet.OperationSucceeded
			if ctx.Err() != nil {
				state = fleet.OperationCancelled
			}
			markState(ctx, state)
			return result, nil
		}
		in.Assignment, in.Policy = *ended.Next, ended.Policy
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return HostResult{}, workflow.NewContinueAsNewError(ctx, Slot, in)
		}
	}
}

func (in SlotInput) timing() Timing {
	t := in.Timing
	if in.Policy.StepTimeout > 0 {
		t.Step = in.Policy.StepTimeout
	}
	return t.WithDefaults()
}

// success is the good end of a host's part.
func (in SlotInput) success() HostEnd {
	if in.Stage {
		return HostEnd{State: fleet.HostRunStaged}
	}
	return HostEnd{State: fleet.HostRunSucceeded, Event: fleet.HostRecovered}
}

// steps are the names of the steps that a host of this operation may go through.
func (in SlotInput) steps() []string {
	var names []string
	switch {
	case in.Stage:
		return []string{StepStage}
	case in.Kind == fleet.KindRestart:
		names = []string{StepCheck, StepReboot, StepWait, StepVerify}
	case in.Kind == fleet.KindUpgrade:
		names = []string{StepCheck, StepStage, StepUpgrade, StepVerifyPackages, StepRebootNeeded, StepReboot, StepWait, StepVerify}
	default:
		names = []string{StepCheck, StepStage, StepRebootNeeded, StepReboot, StepWait, StepVerify}
	}
	if in.Policy.MinReady > 0 {
		names = append(names, StepSettle)
	}
	return names
}

// rollSteps takes one host through its part.
func rollSteps(ctx workflow.Context, r *hostRun, in SlotInput) error {
	t, host := r.in.Timing, r.in.Address
	change := func(name string) ChangeStep {
		return ChangeStep{HostStep: r.step(ctx, name), Kind: in.Kind, Version: in.Version, Reboot: in.Policy.Reboot}
	}
	if in.Stage {
		_, err := Stage.Run(onHost(ctx, t, t.Step, "stage "+host), change(StepStage))
		return err
	}
	before, err := Check.Run(onHost(ctx, t, t.Step, "check "+host), change(StepCheck))
	if err != nil {
		return err
	}
	reboot := in.Kind == fleet.KindRestart
	if !reboot {
		if reboot, err = changeSteps(ctx, r, in, before, change); err != nil {
			return err
		}
	}
	step := func(name string) RebootStep {
		return RebootStep{HostStep: r.step(ctx, name), BootID: before.BootID, Rebooted: reboot}
	}
	if r.reboots = reboot; reboot {
		if _, err := Reboot.Run(onHost(ctx, t, t.Reboot, "reboot "+host), step(StepReboot)); err != nil {
			return err
		}
		if _, err := AwaitBoot.Run(onHost(ctx, t, t.Reboot, "wait for "+host), step(StepWait)); err != nil {
			return err
		}
	}
	if _, err := Verify.Run(onHost(ctx, t, t.Step, "verify "+host), step(StepVerify)); err != nil {
		return err
	}
	if in.Policy.MinReady <= 0 {
		return nil
	}
	settle := step(StepSettle)
	if err := workflow.Sleep(ctx, in.Policy.MinReady); err != nil {
		return err
	}
	_, err = Settle.Run(onHost(ctx, t, t.Step, "settle "+host), settle)
	return err
}

// changeSteps puts the change on the host and says whether it must be rebooted.
func changeSteps(ctx workflow.Context, r *hostRun, in SlotInput, before Checked, change func(string) ChangeStep) (reboot bool, err error) {
	t, host := r.in.Timing, r.in.Address
	if before.Stages {
		// Staged before, usually, and then the record answers at once.
		if _, err := Stage.Run(onHost(ctx, t, t.Step, "stage "+host), change(StepStage)); err != nil {
			return false, err
		}
	} else {
		if _, err := Upgrade.Run(onHost(ctx, t, t.Step, "upgrade "+host), change(StepUpgrade)); err != nil {
			return false, err
		}
		if _, err := VerifyPackages.Run(onHost(ctx, t, t.Step, "verify packages of "+host), change(StepVerifyPackages)); err != nil {
			return false, err
		}
	}
	verdict, err := RebootNeeded.Run(onHost(ctx, t, t.Step, "ask "+host+" whether to reboot"), change(StepRebootNeeded))
	if err != nil {
		return false, err
	}
	switch in.Policy.Reboot {
	case fleet.RebootNever:
		return false, nil
	case fleet.RebootAlways:
		return true, nil
	}
	return verdict.Needed, nil
}
