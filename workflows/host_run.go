package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// HostInput starts the workflow on one host.
type HostInput struct {
	HostRef
	Timing Timing `json:"timing"`
}

// HostResult is how one host's part ended.
type HostResult struct {
	State  fleet.HostRunState `json:"state"`
	Reason string             `json:"reason,omitempty"`
}

// hostRun is one host's part in an operation while it is under way.
type hostRun struct {
	in    HostInput
	names []string // the steps it may go through, in order
	keep  bool     // hand the slot on at the end
	at    string   // the step under way
	done  []string

	broke   fleet.HostEvent // what a failure means for the host
	hint    string          // what is to be done about a failure
	rolls   bool            // it is part of a rollout
	reboots bool            // it goes away
	cordons bool            // its node may be cordoned for it
}

func newHostRun(in HostInput, names []string) *hostRun {
	in.Timing = in.Timing.WithDefaults()
	return &hostRun{in: in, names: names, broke: fleet.HostBroke}
}

// run carries out the steps and writes down how the host's part ended, whatever
// happened in between. success is the good end.
func (r *hostRun) run(ctx workflow.Context, success HostEnd, steps func(workflow.Context) error) (HostResult, HostEnded, error) {
	return r.end(ctx, steps(ctx), success)
}

// begin takes the host for this operation, waiting while another holds it.
func (r *hostRun) begin(ctx workflow.Context) (HostBegun, error) {
	deadline, wait := workflow.Now(ctx).Add(r.in.Timing.Hold), holdFirst
	for {
		begun, err := BeginHost.Run(onRecord(ctx, r.in.Timing, "take "+r.in.Address), r.in.HostRef)
		if err != nil || begun.HeldBy == "" {
			return begun, err
		}
		if workflow.Now(ctx).After(deadline) {
			return begun, held(fmt.Sprintf("operation %s", begun.HeldBy), r.in.Timing.Hold)
		}
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("waiting: operation `%s` holds %s", begun.HeldBy, r.in.Address))
		if err := workflow.Sleep(ctx, wait); err != nil {
			return begun, err
		}
		wait = min(2*wait, holdMost)
	}
}

// end writes down how the host's part ended. It runs also when the workflow
// was cancelled, so that no host is left in limbo, no command behind and no node
// cordoned.
func (r *hostRun) end(ctx workflow.Context, failure error, success HostEnd) (HostResult, HostEnded, error) {
	if isType(failure, TypeGivenBack) {
		return HostResult{State: fleet.HostRunPending}, HostEnded{}, nil // it waits for its turn again
	}
	end, asked := success, ctx
	cancelled := temporal.IsCanceledError(failure) || ctx.Err() != nil && temporal.IsTimeoutError(failure)
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if failure != nil {
		why := explain(failure)
		if cancelled {
			why = "cancelled"
		}
		if cancelled || isType(failure, TypeGaveUp) || temporal.IsTimeoutError(failure) {
			why += r.stop(ctx, why, isType(failure, TypeGaveUp))
		}
		end.State, end.Reason, end.Event = fleet.HostRunFailed, r.sentence(why), r.meaning(failure, cancelled)
		if !cancelled {
			end.Reason += r.hint
		}
		end.Down = r.away() || isType(failure, TypeGaveUp) && !r.isAt(beforeAway...)
		r.at = "" // it is not done
	}
	if r.cordons {
		if err := r.uncordon(ctx); err != nil {
			end.Down = true // no pod can come to it
			if failure == nil {
				failure = err
				end.State, end.Reason = fleet.HostRunFailed, r.sentence(explain(err)+"; it is tried again until it works")
			}
			r.at = ""
		}
	}
	end.HostRef, end.Next = r.in.HostRef, r.keep && asked.Err() == nil
	result := HostResult{State: end.State, Reason: end.Reason}
	ended, err := EndHost.Run(onRecord(ctx, r.in.Timing, fmt.Sprintf("%s %s", r.in.Address, end.State)), end)
	if r.at != "" {
		r.done, r.at = append(r.done, r.at), ""
	}
	if !r.keep {
		state := fleet.OperationSucceeded
		if failure != nil {
			state = fleet.OperationFailed
		}
		markState(ctx, state)
	}
	workflow.SetCurrentDetails(ctx, r.table(result))
	return result, ended, err
}

// stop ends the command that the step under way may have on the host, when nobody
// waits for it any more: the worker that did may be dead. tried says that patience
// with the host is over already. It gives what is to be added to the reason.
func (r *hostRun) stop(ctx workflow.Context, why string, tried bool) string {
	if !r.isAt(StepPrepare, StepInstall, StepStage, StepUpgrade, StepReboot) {
		return ""
	}
	t := r.in.Timing
	if tried {
		t.Unreachable = min(t.Unreachable, stopTried)
	}
	in := StopStep{HostStep: HostStep{HostRef: r.in.HostRef, Step: r.at, Attempt: 1, Unreachable: t.Unreachable}, Reason: why}
	if _, err := Stop.Run(onHost(ctx, t, t.Unreachable+stopLimit, "stop "+r.in.Address), in); err != nil {
		return "; whether its command still runs on the host is not known"
	}
	return ""
}

// uncordon lets the host's node go, whatever became of the steps before. Where it does
// not work, the record has the cordon as out, and others go on with it.
func (r *hostRun) uncordon(ctx workflow.Context) error {
	_, err := UncordonNode.Run(onCordon(ctx, r.in.Timing, "uncordon "+r.in.Address), r.step(ctx, StepUncordon))
	return err
}

// beforeAway are the steps that empty the node. They do nothing to the host itself.
var beforeAway = []string{StepDiagnose, StepCordon, StepDrain}

// meaning is what a failure means for the host's state. A host that nothing was
// done to works as before, or will when it is in reach again.
func (r *hostRun) meaning(failure error, cancelled bool) fleet.HostEvent {
	untouched := r.rolls && r.isAt("", StepCheck, StepStage)
	switch {
	case isType(failure, heldType): // the host was never ours
		return ""
	case r.isAt(beforeAway...):
		return ""
	case untouched && cancelled, r.rolls && r.at == StepStage && !isType(failure, TypeGaveUp):
		return ""
	case untouched:
		return fleet.HostLost
	}
	return r.broke
}

// away says whether the step under way has taken the host away, or found its node to be.
func (r *hostRun) away() bool {
	return r.reboots && r.isAt(StepReboot, StepWait, StepVerify, StepSettle) || r.isAt(StepNodeReady, StepNodeSettle)
}

// isAt says whether one of these steps is under way.
func (r *hostRun) isAt(steps ...string) bool { return slices.Contains(steps, r.at) }

// sentence puts the step in front of what happened.
func (r *hostRun) sentence(what string) string {
	if r.at == "" {
		return what
	}
	return "step " + r.at + ": " + what
}

// step enters a step: the UI shows it and errors will name it.
func (r *hostRun) step(ctx workflow.Context, name string) HostStep {
	if r.at != "" {
		r.done = append(r.done, r.at)
	}
	r.at = name
	workflow.SetCurrentDetails(ctx, r.table(HostResult{State: fleet.HostRunRunning}))
	return HostStep{HostRef: r.in.HostRef, Step: name, Attempt: 1, Unreachable: r.in.Timing.Unreachable}
}

// within runs f and cancels it when it takes longer than limit; 0 is no limit.
func within(ctx workflow.Context, limit time.Duration, f func(workflow.Context) error) error {
	if limit <= 0 {
		return f(ctx)
	}
	work, stop := workflow.WithCancel(ctx)
	defer stop()
	late := false
	workflow.Go(work, func(ctx workflow.Context) {
		if workflow.NewTimer(ctx, limit).Get(ctx, nil) == nil {
			late = true
			stop()
		}
	})
	err := f(work)
	if late && temporal.IsCanceledError(err) {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("the host was not done within its deadline of %s (host_timeout)", limit), TypeGaveUp, nil)
	}
	return err
}

// Types of the errors by which steps and workflows say why there is no use in
// going on.
const (
	// TypeGaveUp is a judgement, not a fact: patience is over.
	TypeGaveUp = "gave-up"
	// TypeGivenBack says that the host waits for its turn again.
	TypeGivenBack  = "given-back"
	hostFailedType = "host-failed"
	heldType       = "held"
)

// showFailure makes the workflow of a host that failed end as failed, so that
// Temporal's UI shows it so.
func showFailure(result HostResult) error {
	if result.State == fleet.HostRunFailed {
		return temporal.NewNonRetryableApplicationError(result.Reason, hostFailedType, nil)
	}
	return nil
}

// held says that a host was not given up by another operation in time.
func held(by string, limit time.Duration) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("%s held the host for more than %s; repeat this operation when it has ended", by, limit), heldType, nil)
}

func isType(err error, name string) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == name
}

// explain turns what a step returned into one sentence for the operator.
func explain(err error) string {
	var app *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	var terminated *temporal.TerminatedError
	switch {
	case errors.As(err, &timeout):
		last := ""
		if cause := errors.Unwrap(timeout); cause != nil {
			last = "; last: " + explain(cause)
		}
		return "no result within its deadline" + last
	case errors.As(err, &app):
		return app.Message()
	case errors.As(err, &terminated):
		return "somebody terminated it"
	default:
		return err.Error()
	}
}
