package workflows

import (
	"time"

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

// drains says whether the host's node is to be emptied before the host goes away.
func (in SlotInput) drains() bool { return in.Node && !in.Stage && in.Policy.Drain != nil }

// steps are the names of the steps that a host of this operation may go through.
func (in SlotInput) steps() []string {
	if in.Stage {
		return []string{StepStage}
	}
	var names []string
	add := func(when bool, more ...string) {
		if when {
			names = append(names, more...)
		}
	}
	change, drains, watches := in.Kind != fleet.KindRestart, in.drains(), in.Policy.MinReady > 0
	add(true, StepCheck)
	add(drains, StepDiagnose)
	add(change, StepStage)
	add(drains, StepCordon, StepDrain)
	add(in.Kind == fleet.KindUpgrade, StepUpgrade, StepVerifyPackages)
	add(change, StepRebootNeeded)
	add(true, StepReboot, StepWait, StepVerify)
	add(drains, StepNodeReady)
	add(watches, StepSettle)
	add(watches && drains, StepNodeSettle)
	add(drains, StepUncordon)
	return names
}

// rollSteps takes one host through its part. Its end lets the node go.
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
	reboot, err := changeSteps(ctx, r, in, before, change)
	if err != nil {
		return err
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
	if r.cordons {
		if _, err := AwaitNode.Run(onHost(ctx, t, registerLimit, "wait for node "+host), step(StepNodeReady)); err != nil {
			return err
		}
	}
	if in.Policy.MinReady <= 0 {
		return nil
	}
	settle := step(StepSettle)
	if err := workflow.Sleep(ctx, in.Policy.MinReady); err != nil {
		return err
	}
	if _, err = Settle.Run(onHost(ctx, t, t.Step, "settle "+host), settle); err != nil || !r.cordons {
		return err
	}
	_, err = AwaitNode.Run(onHost(ctx, t, nodeSettleLimit, "settle node "+host), step(StepNodeSettle))
	return err
}

// changeSteps puts the change on the host, if it has any, and says whether the host must
// be rebooted. The node is emptied before packages are upgraded, which restarts their
// services. What is staged for the next boot disturbs nobody, so there the node is left
// alone unless the host does reboot.
func changeSteps(ctx workflow.Context, r *hostRun, in SlotInput, before Checked, change func(string) ChangeStep) (reboot bool, err error) {
	restarts := in.Kind == fleet.KindRestart
	stages := !restarts && before.Stages
	drains := in.drains() && !(stages && in.Policy.Reboot == fleet.RebootNever)
	if reboot = restarts; drains {
		if err := diagnose(ctx, r, in); err != nil {
			return false, err
		}
	}
	if stages {
		if reboot, err = stageSteps(ctx, r, in, change); err != nil {
			return false, err
		}
	}
	if drains && (reboot || !stages) {
		if err := drainSteps(ctx, r, in); err != nil {
			return false, err
		}
	}
	if restarts || stages {
		return reboot, nil
	}
	return upgradeSteps(ctx, r, in, change)
}

func stageSteps(ctx workflow.Context, r *hostRun, in SlotInput, change func(string) ChangeStep) (reboot bool, err error) {
	t, host := r.in.Timing, r.in.Address
	// Staged before, usually, and then the record answers at once.
	if _, err := Stage.Run(onHost(ctx, t, t.Step, "stage "+host), change(StepStage)); err != nil {
		return false, err
	}
	return rebootStep(ctx, r, in, change)
}

func upgradeSteps(ctx workflow.Context, r *hostRun, in SlotInput, change func(string) ChangeStep) (reboot bool, err error) {
	t, host := r.in.Timing, r.in.Address
	if _, err := Upgrade.Run(onHost(ctx, t, t.Step, "upgrade "+host), change(StepUpgrade)); err != nil {
		return false, err
	}
	if _, err := VerifyPackages.Run(onHost(ctx, t, t.Step, "verify packages of "+host), change(StepVerifyPackages)); err != nil {
		return false, err
	}
	return rebootStep(ctx, r, in, change)
}

// rebootStep says whether the host must be rebooted, by what it says and by the policy.
func rebootStep(ctx workflow.Context, r *hostRun, in SlotInput, change func(string) ChangeStep) (reboot bool, err error) {
	t, host := r.in.Timing, r.in.Address
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

// diagnose names what would be in the way of the drain, before anything is touched, and
// waits for what may pass.
func diagnose(ctx workflow.Context, r *hostRun, in SlotInput) error {
	_, err := DiagnoseNode.Run(onNode(ctx, r, in, "diagnose node "), DrainStep{HostStep: r.step(ctx, StepDiagnose), Policy: *in.Policy.Drain})
	return err
}

// drainSteps closes the node and empties it. From the first of them on the node may be
// closed, whatever comes of it.
func drainSteps(ctx workflow.Context, r *hostRun, in SlotInput) error {
	r.cordons = true
	if _, err := CordonNode.Run(onNode(ctx, r, in, "cordon node "), r.step(ctx, StepCordon)); err != nil {
		return err
	}
	_, err := DrainNode.Run(onNode(ctx, r, in, "drain node "), DrainStep{HostStep: r.step(ctx, StepDrain), Policy: *in.Policy.Drain})
	return err
}

// onNode is for steps that empty the node. Each has the time of the drain's policy.
func onNode(ctx workflow.Context, r *hostRun, in SlotInput, what string) workflow.Context {
	limit := time.Duration(in.Policy.Drain.Timeout)
	if limit == 0 {
		limit = fleet.DefaultDrainTimeout
	}
	return onHost(ctx, r.in.Timing, limit, what+r.in.Address)
}
