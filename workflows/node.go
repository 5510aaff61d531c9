package workflows

import (
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Register makes a host that has joined a cluster a node of the cluster's container
// manager. Nothing is done to the host itself: when it cannot be registered it is
// disassociated, and the reason says why.
func Register(ctx workflow.Context, in HostInput) error {
	r := newHostRun(in, []string{StepRegister})
	r.broke = fleet.HostPrepared
	return single(ctx, r, func(ctx workflow.Context, _ HostBegun) (HostEnd, error) { return registerStep(ctx, r) })
}

// registerStep gives the end of the host's part. A node that is not ready in time is
// no failure: the host is not active.
func registerStep(ctx workflow.Context, r *hostRun) (HostEnd, error) {
	end := HostEnd{State: fleet.HostRunSucceeded, Event: fleet.HostPrepared}
	registered, err := RegisterNode.Run(onHost(ctx, r.in.Timing, registerLimit, "register "+r.in.Address), r.step(ctx, StepRegister))
	if registered.Ready {
		end.Event = fleet.HostRegistered
	} else {
		end.Reason = registered.Reason
	}
	return end, err
}

// Unregister removes the node of a host that has left its cluster or is deleted. A
// container manager that does not answer, or does not let us, is asked again for a day.
func Unregister(ctx workflow.Context, in HostInput) error {
	r := newHostRun(in, []string{StepUnregister})
	r.in.Timing.Hold = removeFor
	r.broke = ""
	r.hint = "; nobody tries it again: remove the node yourself, with kubectl delete node " + in.Address
	return single(ctx, r, func(ctx workflow.Context, _ HostBegun) (HostEnd, error) {
		_, err := UnregisterNode.Run(onRemoval(ctx, "unregister "+r.in.Address), r.step(ctx, StepUnregister))
		return HostEnd{State: fleet.HostRunSucceeded}, err
	})
}

// CheckManager asks a container manager that was put whether it will do. It is no
// operation: whoever put it waits for the answer, and decides.
func CheckManager(ctx workflow.Context, in ManagerRef) (ManagerVerdict, error) {
	return AskManager.Run(whileAsked(ctx, AskLimit, "check "+in.Name), in)
}

// ReadNode asks a container manager how the node of a host is, and puts that on
// record, where whoever asked reads it.
func ReadNode(ctx workflow.Context, in NodeRef) error {
	_, err := ReadNodeStatus.Run(whileAsked(ctx, AskLimit, "status of "+in.Address), in)
	return err
}

// DiagnoseCluster asks a container manager what would be in the way of draining nodes.
// It is no operation: whoever asks waits for the answer.
func DiagnoseCluster(ctx workflow.Context, in DiagnosisRef) (Diagnosis, error) {
	return DiagnoseNodes.Run(whileAsked(ctx, DiagnoseLimit, "diagnose cluster "+in.Cluster), in)
}

// Uncordon lets the node of a host go when the host's part in a rollout has ended and
// its own workflow has not done so, or is not there any more.
func Uncordon(ctx workflow.Context, in HostInput) error {
	step := HostStep{HostRef: in.HostRef, Step: StepUncordon, Attempt: AttemptOfSweep}
	_, err := UncordonNode.Run(onCordon(ctx, in.Timing.WithDefaults(), "uncordon "+in.Address), step)
	return err
}
