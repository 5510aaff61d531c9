package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// RolloutRef names an operation that rolls over the hosts of a cluster, and what
// it does to them: a restart, an upgrade or a deploy.
type RolloutRef struct {
	OperationRef
	Cluster string              `json:"cluster"`
	Kind    fleet.OperationKind `json:"kind"`
	Version string              `json:"version,omitempty"`
	Timing  Timing              `json:"timing"`
}

// RolloutInput starts the workflow of a rollout.
type RolloutInput struct {
	RolloutRef
	Turn int `json:"turn,omitempty"` // the last one that an earlier run of this workflow asked for
}

// SignalWake tells a rollout that somebody has steered it: it asks the record
// what comes next. The signal itself says nothing, so losing or repeating it does
// no harm.
const SignalWake = "wake"

const (
	// manyHosts is from where on a slot is kept by one workflow, host after host,
	// instead of one workflow for each host: a third of the cost, and a bounded
	// number of executions. Fewer hosts have a bar each in Temporal's UI.
	manyHosts = 200
	// gather is how long a large rollout collects slots that are free before it asks
	// who comes next.
	gather = 500 * time.Millisecond
	// longHistory is when a rollout or a command lets the hosts at work end before it
	// asks for others, so that it can go on in a fresh history. Temporal ends a workflow
	// at 51,200 events.
	longHistory = 20_000
)

// Rollout carries out what the record hands out: it asks who comes next, runs
// each host in a child workflow, and ends the operation when the record says that
// nothing is left. Who comes next, pauses and budgets are decided where they are
// written down (fleet.Policy.Next in the store), so that this workflow may ask too
// often, too late, or twice.
func Rollout(ctx workflow.Context, in RolloutInput) error {
	in.Timing = in.Timing.WithDefaults()
	r := &rollout{in: in}
	workflow.Go(ctx, r.listen)
	for {
		planned, err := r.plan(ctx)
		switch {
		case err != nil:
			return r.abort(ctx, err)
		case planned.Ended:
			return r.finish(ctx)
		case planned.End != "":
			return r.end(ctx, planned)
		}
		r.begin(ctx, planned)
		r.show(ctx, planned)
		if planned.More {
			continue
		}
		if err := r.wait(ctx, planned); err != nil {
			return r.abort(ctx, err)
		}
		if long(ctx, r.atWork) {
			if err := workflow.Await(ctx, func() bool { return r.atWork == 0 }); err != nil {
				return r.abort(ctx, err)
			}
			return workflow.NewContinueAsNewError(ctx, Rollout, r.in)
		}
	}
}

// rollout is the state of the workflow between two questions.
type rollout struct {
	in     RolloutInput
	many   bool
	begun  bool
	atWork int  // child workflows that run
	woken  bool // somebody steered, or a child has ended, since the last question
}

func (r *rollout) listen(ctx workflow.Context) {
	wake := workflow.GetSignalChannel(ctx, SignalWake)
	for wake.Receive(ctx, nil) {
		r.woken = true
	}
}

// plan asks the record which hosts come next.
func (r *rollout) plan(ctx workflow.Context) (Planned, error) {
	r.woken = false
	r.in.Turn++
	planned, err := Plan.Run(onRecord(ctx, r.in.Timing, "plan"), PlanInput{OperationRef: r.in.OperationRef, Turn: r.in.Turn, Hold: r.in.Timing.Hold})
	if err == nil && !r.begun {
		r.begun, r.many = true, planned.Progress.Total > manyHosts
		markState(ctx, fleet.OperationRunning)
	}
	return planned, err
}

// begin starts a child workflow for every host that was handed out.
func (r *rollout) begin(ctx workflow.Context, planned Planned) {
	for _, a := range planned.Hosts {
		r.atWork++
		workflow.Go(ctx, func(ctx workflow.Context) {
			r.runSlot(ctx, a, planned.Policy)
			r.atWork--
			r.woken = true
		})
	}
}

// runSlot runs the workflow of a slot to its end. One that was lost, say because
// somebody terminated it, gives its host and its slot back here.
func (r *rollout) runSlot(ctx workflow.Context, a Assignment, policy HostPolicy) {
	in := SlotInput{RolloutRef: r.in.RolloutRef, Assignment: a, Policy: policy, Keep: r.many}
	attributes := []temporal.SearchAttributeUpdate{
		AttributeCluster.ValueSet(in.Cluster), AttributeKind.ValueSet(string(in.Kind)), AttributeState.ValueSet(string(fleet.OperationRunning)),
	}
	summary := fmt.Sprintf("%s slot %d", in.Kind, a.Slot)
	if !in.Keep {
		attributes = append(attributes, AttributeHost.ValueSet(a.Address))
		summary = fmt.Sprintf("%s %s", in.Kind, a.Address)
	}
	if a.Stage {
		summary = "stage " + summary
	}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            slotWorkflowID(in),
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		WaitForCancellation:   true,
		StaticSummary:         summary,
		Memo:                  map[string]any{MemoOperation: in.OperationID},
		TypedSearchAttributes: temporal.NewSearchAttributes(attributes...),
	})
	// The workflow that had the name before may still be about to close.
	wait := 100 * time.Millisecond
	for {
		err := workflow.ExecuteChildWorkflow(child, Slot, in).Get(ctx, nil)
		var failed *temporal.ApplicationError
		switch {
		case err == nil, errors.As(err, &failed) && failed.Type() == hostFailedType:
			return
		case temporal.IsWorkflowExecutionAlreadyStartedError(err) && workflow.Sleep(ctx, wait) == nil:
			wait = min(2*wait, holdMost)
			continue
		}
		r.giveBack(ctx, a, err)
		return
	}
}

func (r *rollout) giveBack(ctx workflow.Context, a Assignment, cause error) {
	reason := "its workflow in Temporal ended without an answer: " + explain(cause) + "; look at the host before repeating it"
	if temporal.IsCanceledError(cause) {
		reason = "cancelled"
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	end := SlotEnd{OperationRef: r.in.OperationRef, Assignment: a, Reason: reason}
	if _, err := EndSlot.Run(onRecord(ctx, r.in.Timing, fmt.Sprintf("give back slot %d", a.Slot)), end); err != nil {
		workflow.GetLogger(ctx).Warn("a slot could not be given back on its own; it is with the end of the operation", "error", err)
	}
}

// wait returns when the record should be asked again.
func (r *rollout) wait(ctx workflow.Context, planned Planned) error {
	woken := func() bool { return r.woken }
	var err error
	if planned.Again.IsZero() {
		err = workflow.Await(ctx, woken)
	} else {
		// At least a moment later, should the clocks of Postgres and Temporal differ.
		_, err = workflow.AwaitWithTimeout(ctx, max(planned.Again.Sub(workflow.Now(ctx)), time.Second), woken)
	}
	if err == nil && r.many {
		err = workflow.Sleep(ctx, gather)
	}
	return err
}

// long says whether the history is to be left behind now, while so much is at work.
func long(ctx workflow.Context, atWork int) bool {
	info := workflow.GetInfo(ctx)
	return info.GetContinueAsNewSuggested() && (atWork == 0 || info.GetCurrentHistoryLength() > longHistory)
}

// abort ends an operation that was cancelled in Temporal, or whose record says no,
// when the hosts at work have ended. In a cancelled one they were told to.
func (r *rollout) abort(ctx workflow.Context, cause error) error {
	end := OperationEnd{OperationRef: r.in.OperationRef, State: fleet.OperationFailed, Reason: explain(cause)}
	if temporal.IsCanceledError(cause) || ctx.Err() != nil {
		end.State, end.Reason = fleet.OperationCancelled, "cancelled"
	}
	if err := r.drain(ctx); err != nil {
		return err
	}
	return writeEnd(ctx, r.in.Timing, end)
}

// end ends the operation as the record decided.
func (r *rollout) end(ctx workflow.Context, planned Planned) error {
	if err := r.drain(ctx); err != nil {
		return err
	}
	r.show(ctx, planned)
	return writeEnd(ctx, r.in.Timing, OperationEnd{OperationRef: r.in.OperationRef, State: planned.End, Reason: planned.Reason})
}

// finish ends a workflow whose operation has ended in the record already.
func (r *rollout) finish(ctx workflow.Context) error { return r.drain(ctx) }

// drain waits for the child workflows. Those of a cancelled workflow have been
// told; the others have nothing left to do but to close.
func (r *rollout) drain(ctx workflow.Context) error {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	return workflow.Await(ctx, func() bool { return r.atWork == 0 })
}
