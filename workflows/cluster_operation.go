package workflows

import (
	"errors"
	"fmt"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// ClusterInput starts the workflow of an operation on a cluster.
type ClusterInput struct {
	OperationRef
	Cluster string              `json:"cluster"`
	Kind    fleet.OperationKind `json:"kind"`
	Timing  Timing              `json:"timing"`
	Done    int                 `json:"done,omitempty"` // hosts that earlier runs of this workflow finished
}

// rollCluster takes the hosts of an operation one after another, each in a
// child workflow, and stops at the first that fails. Which host comes next is
// asked of the record each time, so a host removed meanwhile is left out and a
// deleted cluster stops the operation. self is the workflow that calls it, to
// go on in a fresh history before this one grows too long.
func rollCluster(ctx workflow.Context, in ClusterInput, self func(workflow.Context, ClusterInput) error, host func(workflow.Context, HostInput) (HostResult, error)) error {
	in.Timing = in.Timing.WithDefaults()
	begun, err := BeginOperation.Run(onRecord(ctx, in.Timing, "begin"), in.OperationRef)
	switch {
	case err != nil:
		return endOperation(ctx, in.OperationRef, in.Timing, HostResult{}, "", err)
	case begun.Ended:
		return nil
	}
	markState(ctx, fleet.OperationRunning)
	p := progress{cluster: in.Cluster, kind: in.Kind, total: begun.Hosts, done: in.Done}

	for n := 0; ; n++ {
		if n == hostsPerRun || workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			in.Done = p.done
			return workflow.NewContinueAsNewError(ctx, self, in)
		}
		p.show(ctx)
		next, err := NextHost.Run(onRecord(ctx, in.Timing, "next host"), in.OperationRef)
		switch {
		case err != nil:
			return endOperation(ctx, in.OperationRef, in.Timing, HostResult{}, "", err)
		case next.Stop != "":
			return endCluster(ctx, in, OperationEnd{OperationRef: in.OperationRef, State: fleet.OperationCancelled, Reason: next.Stop}, &p)
		case next.Address == "":
			return endCluster(ctx, in, OperationEnd{OperationRef: in.OperationRef, State: fleet.OperationSucceeded}, &p)
		}
		p.running = next.Address
		p.show(ctx)
		result, err := runChild(ctx, in, next.Address, host)
		p.running = ""
		if err != nil || result.State == fleet.HostRunFailed {
			p.failed = next.Address
			p.show(ctx)
			return endOperation(ctx, in.OperationRef, in.Timing, result, next.Address, err)
		}
		p.done++
	}
}

// runChild runs one host's workflow. While another workflow holds the host, it
// waits.
func runChild(ctx workflow.Context, in ClusterInput, address string, host func(workflow.Context, HostInput) (HostResult, error)) (HostResult, error) {
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:          HostWorkflowID(in.Tenant, address),
		ParentClosePolicy:   enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		WaitForCancellation: true,
		StaticSummary:       fmt.Sprintf("%s %s", in.Kind, address),
		Memo:                map[string]any{MemoOperation: in.OperationID},
		TypedSearchAttributes: temporal.NewSearchAttributes(
			AttributeCluster.ValueSet(in.Cluster), AttributeHost.ValueSet(address), AttributeKind.ValueSet(string(in.Kind)), AttributeState.ValueSet(string(fleet.OperationRunning))),
	})
	input := HostInput{HostRef: HostRef{OperationRef: in.OperationRef, Address: address}, Timing: in.Timing}
	deadline, wait := workflow.Now(ctx).Add(in.Timing.Hold), holdFirst
	for {
		var result HostResult
		err := workflow.ExecuteChildWorkflow(ctx, host, input).Get(ctx, &result)
		var failed *temporal.ApplicationError
		switch {
		case errors.As(err, &failed) && failed.Type() == hostFailedType:
			return HostResult{State: fleet.HostRunFailed, Reason: failed.Message()}, nil
		case !temporal.IsWorkflowExecutionAlreadyStartedError(err):
			return result, err
		}
		if workflow.Now(ctx).After(deadline) {
			return result, held("another operation", in.Timing.Hold)
		}
		if err := workflow.Sleep(ctx, wait); err != nil {
			return result, err
		}
		wait = min(2*wait, holdMost)
	}
}

// endOperation ends an operation by what became of a host: nothing went wrong,
// the host failed, or its workflow itself broke (then the host's part is ended
// here too).
func endOperation(ctx workflow.Context, ref OperationRef, t Timing, result HostResult, address string, err error) error {
	end := OperationEnd{OperationRef: ref, State: fleet.OperationSucceeded}
	switch {
	case err != nil && temporal.IsCanceledError(err):
		end.State, end.Reason = fleet.OperationCancelled, "cancelled"
	case err != nil:
		end.State, end.Reason = fleet.OperationFailed, explain(err)
	case result.State == fleet.HostRunFailed:
		end.State, end.Reason = fleet.OperationFailed, result.Reason
	}
	if ctx.Err() != nil {
		end.State = fleet.OperationCancelled
	}
	if address != "" && end.Reason != "" {
		end.Reason = "host " + address + ": " + end.Reason
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if err != nil && address != "" {
		broke := HostEnd{HostRef: HostRef{OperationRef: ref, Address: address}, State: fleet.HostRunFailed, Reason: end.Reason, Event: fleet.HostBroke}
		if isHeld(err) {
			broke.Event = ""
		}
		if _, err := EndHost.Run(onRecord(ctx, t, "end host"), broke); err != nil {
			workflow.GetLogger(ctx).Warn("the host's part could not be ended on its own; it ends with the operation", "error", err)
		}
	}
	return writeEnd(ctx, t, end)
}

func endCluster(ctx workflow.Context, in ClusterInput, end OperationEnd, p *progress) error {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	p.ended = end.State
	p.show(ctx)
	return writeEnd(ctx, in.Timing, end)
}

// writeEnd ends the operation in the record. The workflow then ends in the same
// way, so that Temporal's UI shows a failed operation as failed.
func writeEnd(ctx workflow.Context, t Timing, end OperationEnd) error {
	if _, err := EndOperation.Run(onRecord(ctx, t, string(end.State)), end); err != nil {
		return err
	}
	markState(ctx, end.State)
	if end.State == fleet.OperationSucceeded {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(end.Reason, string(end.State), nil)
}

// markState lets the Temporal UI be searched by the operation's state. It is a
// convenience: the record in Postgres is the truth.
func markState(ctx workflow.Context, s fleet.OperationState) {
	_ = workflow.UpsertTypedSearchAttributes(ctx, AttributeState.ValueSet(string(s)))
}

// progress is what the Temporal UI shows of an operation on a cluster.
type progress struct {
	cluster string
	kind    fleet.OperationKind
	total   int
	done    int
	running string
	failed  string
	ended   fleet.OperationState
}

func (p *progress) show(ctx workflow.Context) {
	const width = 30
	full := 0
	if p.total > 0 {
		full = width * p.done / p.total
	}
	state := p.ended
	switch {
	case p.failed != "":
		state = fleet.OperationFailed
	case state == "":
		state = fleet.OperationRunning
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### %s of cluster %s: %s\n\n", p.kind, cell(p.cluster), state)
	fmt.Fprintf(&b, "`[%s%s]` **%d of %d** hosts done\n\n", strings.Repeat("#", full), strings.Repeat(".", width-full), p.done, p.total)
	waiting, skipped := p.total-p.done, 0
	if p.running != "" || p.failed != "" {
		waiting--
	}
	if p.ended != "" {
		waiting, skipped = 0, waiting
	}
	b.WriteString("| done | running | waiting | failed | skipped |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| %d | %s | %d | %s | %d |\n", p.done, cell(p.running), max(waiting, 0), cell(p.failed), max(skipped, 0))
	workflow.SetCurrentDetails(ctx, b.String())
}
