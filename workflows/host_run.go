package workflows

import (
	"errors"
	"fmt"
	"strings"
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

// hostRun is the state of one host's part in an operation.
type hostRun struct {
	in    HostInput
	names []string // its steps in order
	at    string   // the step under way
	done  []string
}

// runHost is the frame of every workflow on a host: take the host, run the
// steps, and write down how it ended, whatever happened in between. success is
// what a good end means for the host's state.
func runHost(ctx workflow.Context, in HostInput, names []string, success fleet.HostEvent, steps func(workflow.Context, *hostRun) error) (HostResult, error) {
	in.Timing = in.Timing.WithDefaults()
	r := &hostRun{in: in, names: names}

	begun, err := r.begin(ctx)
	if err != nil {
		return r.end(ctx, err, success)
	}
	if begun.Ended != "" {
		return HostResult{State: begun.Ended, Reason: begun.Reason}, nil
	}
	return r.end(ctx, steps(ctx, r), success)
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
// was cancelled, so that no host is left in limbo.
func (r *hostRun) end(ctx workflow.Context, failure error, success fleet.HostEvent) (HostResult, error) {
	result, event := HostResult{State: fleet.HostRunSucceeded}, success
	switch {
	case failure == nil:
	case temporal.IsCanceledError(failure):
		result, event = HostResult{State: fleet.HostRunFailed, Reason: r.sentence("cancelled")}, fleet.HostBroke
	default:
		result, event = HostResult{State: fleet.HostRunFailed, Reason: r.sentence(explain(failure))}, fleet.HostBroke
	}
	if isHeld(failure) {
		event = "" // the host was never ours
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	_, err := EndHost.Run(onRecord(ctx, r.in.Timing, string(result.State)), HostEnd{HostRef: r.in.HostRef, State: result.State, Reason: result.Reason, Event: event})
	r.at = ""
	markState(ctx, fleet.OperationState(result.State)) // hosts share the names of good and bad ends with operations
	workflow.SetCurrentDetails(ctx, r.table(result))
	return result, err
}

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

// table is what the Temporal UI shows of this host.
func (r *hostRun) table(result HostResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: %s\n\n", cell(r.in.Address), result.State)
	if result.Reason != "" {
		fmt.Fprintf(&b, "%s\n\n", cell(result.Reason))
	}
	b.WriteString("| step | |\n|---|---|\n")
	done := map[string]bool{}
	for _, name := range r.done {
		done[name] = true
	}
	for _, name := range r.names {
		mark := ""
		switch {
		case done[name] || result.State == fleet.HostRunSucceeded:
			mark = "done"
		case name == r.at:
			mark = "running"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, mark)
	}
	return b.String()
}

const hostFailedType = "host-failed"

// showFailure makes the workflow of a host that failed end as failed, so that
// Temporal's UI shows it so.
func showFailure(result HostResult, err error) error {
	if err == nil && result.State == fleet.HostRunFailed {
		return temporal.NewNonRetryableApplicationError(result.Reason, hostFailedType, nil)
	}
	return err
}

const heldType = "Held"

// held says that a host was not given up by another operation in time.
func held(by string, limit time.Duration) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("%s held the host for more than %s; repeat this operation when it has ended", by, limit), heldType, nil)
}

func isHeld(err error) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == heldType
}

// explain turns what a step returned into one sentence for the operator.
func explain(err error) string {
	var app *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	switch {
	case errors.As(err, &timeout):
		last := ""
		if cause := errors.Unwrap(timeout); cause != nil {
			last = "; last: " + explain(cause)
		}
		return "no result within its deadline" + last
	case errors.As(err, &app):
		return app.Message()
	default:
		return err.Error()
	}
}
