package workflows

import (
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Names of the steps of a restart, as the record shows them.
const (
	StepCheck  = "check"
	StepReboot = "reboot"
	StepWait   = "wait"
	StepVerify = "verify"
)

// Restart reboots the hosts of a cluster, one after another in the order they
// joined, and stops at the first that fails.
func Restart(ctx workflow.Context, in ClusterInput) error {
	return rollCluster(ctx, in, Restart, RestartHost)
}

// RestartHost reboots one host exactly once and proves it: the host must come
// back with another boot id than the one it had when this began.
func RestartHost(ctx workflow.Context, in HostInput) (HostResult, error) {
	result, err := runHost(ctx, in, []string{StepCheck, StepReboot, StepWait, StepVerify}, fleet.HostRecovered, restartSteps)
	return result, showFailure(result, err)
}

func restartSteps(ctx workflow.Context, r *hostRun) error {
	t, host := r.in.Timing, r.in.Address
	before, err := Check.Run(onHost(ctx, t, t.Step, "check "+host), r.step(ctx, StepCheck))
	if err != nil {
		return err
	}
	step := func(name string) RebootStep { return RebootStep{HostStep: r.step(ctx, name), BootID: before.BootID} }

	if _, err := Reboot.Run(onHost(ctx, t, t.Reboot, "reboot "+host), step(StepReboot)); err != nil {
		return err
	}
	if _, err := AwaitBoot.Run(onHost(ctx, t, t.Reboot, "wait for "+host), step(StepWait)); err != nil {
		return err
	}
	_, err = Verify.Run(onHost(ctx, t, t.Step, "verify "+host), step(StepVerify))
	return err
}
