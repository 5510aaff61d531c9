// Package dispatch carries operations from the record to Temporal. It is the
// only place that knows a workflow id or a Temporal client.
//
// An operation is accepted when its row is in Postgres, in state pending.
// Dispatching it starts its workflow, whose first step moves the row to
// running. Whatever is interrupted in between is repeated by any process that
// runs a Dispatcher: a pending row is started again (the workflow id admits it
// once, and the first step refuses a second beginning), and a running row whose
// workflow is gone, say because somebody terminated it, is ended with that
// reason, so that it does not hold its cluster for ever.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// Store is what the dispatcher needs of the record, over all tenants.
type Store interface {
	PendingOperations(ctx context.Context, olderThan time.Duration, limit int) ([]fleet.Operation, error)
	RunningOperations(ctx context.Context, olderThan time.Duration, limit int) ([]fleet.Operation, error)
	UnseenOperations(ctx context.Context, olderThan time.Duration, limit int) ([]fleet.Operation, error)
	EndOperation(ctx context.Context, tenant, id string, state fleet.OperationState, reason string) error
	// LeftCordons lists hosts whose nodes are cordoned though their part has ended.
	LeftCordons(ctx context.Context, olderThan time.Duration, limit int) ([]workflows.HostRef, error)
}

// Options say where workflows go and which limits they get.
type Options struct {
	TaskQueue string
	Timing    workflows.Timing
}

// Dispatcher starts and cancels the workflows of operations.
type Dispatcher struct {
	client  client.Client
	store   Store
	options Options
	log     *slog.Logger
	kick    chan struct{} // a start that has to be repeated soon

	mu      sync.Mutex
	checked time.Time // when Temporal was last asked whether it is there
	health  error

	letGo map[workflows.HostRef]time.Time // when a node was last to be let go; Run's own
}

// New makes a dispatcher. Run must be called for it to repeat what failed.
func New(c client.Client, store Store, o Options, log *slog.Logger) *Dispatcher {
	return &Dispatcher{client: c, store: store, options: o, log: log, kick: make(chan struct{}, 1), letGo: map[workflows.HostRef]time.Time{}}
}

const (
	callTimeout = 3 * time.Second // one call to Temporal
	healthFor   = time.Second     // how long an answer to Ready is good
	sweepEvery  = 5 * time.Second // pending operations that nobody started
	sweepSoon   = 300 * time.Millisecond
	orphanEvery = 10 * time.Second // running operations without a workflow, whose cordons wait for their end
	orphanAge   = 10 * time.Second
	unseenAge   = 2 * time.Second // a steered rollout looks at the record sooner
	cordonEvery = time.Second     // nodes that are still cordoned for a host run that has ended
	cordonAgain = 15 * time.Second
	cordonTask  = 2 * time.Second // then a worker that took the task and is silent has lost it
	sweepLimit  = 200
	sayEvery    = 30 * time.Second // while it does not work
)

// Ready says whether Temporal answers; the error is fleet.Unavailable.
func (d *Dispatcher) Ready(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.checked) < healthFor {
		return d.health
	}
	// The answer is shared, so a caller that goes away must not spoil it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	d.health = nil
	if _, err := d.client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		d.health = &fleet.Error{Kind: fleet.Unavailable, Detail: "Temporal does not answer, so no operation can be started now; repeat the request later", Err: err}
	}
	d.checked = time.Now()
	return d.health
}

// Start starts an operation's workflow. It cannot fail the caller: the
// operation is on disk, and what does not work now is repeated by Run.
func (d *Dispatcher) Start(ctx context.Context, op fleet.Operation) {
	if err := d.start(ctx, op); err != nil {
		d.log.WarnContext(ctx, "operation is accepted but its workflow could not be started yet; it will be", "operation", op.ID, "kind", op.Kind, "error", err)
		d.soon()
	}
}

// onHost are the workflows of operations on a single host.
var onHost = map[fleet.OperationKind]func(workflow.Context, workflows.HostInput) error{
	fleet.KindBootstrap: workflows.Bootstrap, fleet.KindRegister: workflows.Register, fleet.KindUnregister: workflows.Unregister,
}

// start starts the workflow under the operation's name. Repeating it is safe:
// Temporal refuses a second one while it runs, and one that runs after the
// operation has ended sees that in its first step and ends too.
func (d *Dispatcher) start(ctx context.Context, op fleet.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	options := client.StartWorkflowOptions{
		ID:                                       workflows.WorkflowID(op),
		TaskQueue:                                d.options.TaskQueue,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		Memo:                                     map[string]any{workflows.MemoOperation: op.ID, "requestedBy": op.RequestedBy, "requestId": op.RequestID},
	}
	attributes := []temporal.SearchAttributeUpdate{
		workflows.AttributeKind.ValueSet(string(op.Kind)),
		workflows.AttributeState.ValueSet(string(op.State)),
	}
	ref := workflows.OperationRef{Tenant: op.Tenant, OperationID: op.ID}
	var flow, input any
	switch {
	case onHost[op.Kind] != nil:
		attributes = append(attributes, workflows.AttributeHost.ValueSet(op.Host))
		options.StaticSummary = string(op.Kind) + " " + op.Host
		flow, input = onHost[op.Kind], workflows.HostInput{HostRef: workflows.HostRef{OperationRef: ref, Address: op.Host}, Timing: d.options.Timing}
	case op.Kind == fleet.KindSync:
		options.StaticSummary = "sync of source " + op.Source
		flow, input = workflows.Sync, workflows.SourceInput{OperationRef: ref, Source: op.Source, Timing: d.options.Timing}
	case op.Command != nil:
		attributes = append(attributes, workflows.AttributeCluster.ValueSet(op.Cluster))
		options.StaticSummary = "command on cluster " + op.Cluster
		flow, input = workflows.Command, workflows.CommandInput{OperationRef: ref, Hosts: op.Hosts, AtOnce: op.Command.AtOnce, Timing: d.options.Timing}
	case op.Kind.Rollout():
		attributes = append(attributes, workflows.AttributeCluster.ValueSet(op.Cluster))
		options.StaticSummary = strings.TrimSpace(fmt.Sprintf("%s of cluster %s %s", op.Kind, op.Cluster, op.Version))
		flow, input = workflows.Rollout, workflows.RolloutInput{RolloutRef: workflows.RolloutRef{
			OperationRef: ref, Cluster: op.Cluster, Kind: op.Kind, Version: op.Version, Timing: d.options.Timing,
		}}
	default:
		return fmt.Errorf("operation %s is of unknown kind %q", op.ID, op.Kind)
	}
	options.TypedSearchAttributes = temporal.NewSearchAttributes(attributes...)
	options.StaticDetails = fmt.Sprintf("operation `%s`, requested by %s", op.ID, op.RequestedBy)
	_, err := d.client.ExecuteWorkflow(ctx, options, flow, input)
	return err
}

// Wake tells a rollout that somebody has steered it. It cannot fail the caller:
// what was decided is on disk, and a rollout that is not reached now is told by
// Run.
func (d *Dispatcher) Wake(ctx context.Context, op fleet.Operation) {
	if op.Kind == fleet.KindCommand {
		return // its steps look at the record by themselves
	}
	if err := d.wake(ctx, op); err != nil {
		d.log.WarnContext(ctx, "could not wake the workflow; it will be", "operation", op.ID, "error", err)
	}
}

// wake signals the workflow. Repeating it makes it look at the record once more.
func (d *Dispatcher) wake(ctx context.Context, op fleet.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := d.client.SignalWorkflow(ctx, workflows.WorkflowID(op), "", workflows.SignalWake, nil)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return nil // not begun yet, and then it looks at the record first; or it has ended
	}
	return err
}

// wakeUnseen wakes rollouts that were steered and have not looked since.
func (d *Dispatcher) wakeUnseen(ctx context.Context) error {
	ops, err := d.store.UnseenOperations(ctx, unseenAge, sweepLimit)
	if err != nil {
		return err
	}
	var errs []error
	for _, op := range ops {
		errs = append(errs, d.wake(ctx, op))
	}
	return errors.Join(errs...)
}

// Cancel asks an operation's workflow to end at once: commands that run on hosts
// are ended there. A workflow that is not reached now stops at its next step,
// since the record says so; but what runs on hosts goes on, and nobody repeats
// this. The error says so, and is fleet.Unavailable.
func (d *Dispatcher) Cancel(ctx context.Context, op fleet.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var gone *serviceerror.NotFound
	run, err := d.find(ctx, op)
	for err == nil && run.status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		err = d.client.CancelWorkflow(ctx, workflows.WorkflowID(op), run.id)
		if !errors.As(err, &gone) {
			break
		}
		// It has ended since, or gone on in a fresh history, which is another run.
		run, err = d.find(ctx, op)
	}
	if err == nil || errors.As(err, &gone) {
		return nil
	}
	d.log.WarnContext(ctx, "could not ask the workflow to cancel; it stops at its next step", "operation", op.ID, "error", err)
	return &fleet.Error{
		Kind:   fleet.Unavailable,
		Detail: "the operation is cancelled, but the workflow service (Temporal) did not answer, so what runs on hosts goes on; send the request again",
		Err:    err,
	}
}

// workflowRun is one run of a workflow, by Temporal.
type workflowRun struct {
	id     string
	status enumspb.WorkflowExecutionStatus
}

// find gives the run of an operation's workflow. The workflow's name alone does
// not tell: a host has the same one in each of its operations. A name that runs
// for another operation is NotFound.
func (d *Dispatcher) find(ctx context.Context, op fleet.Operation) (workflowRun, error) {
	info, err := d.client.DescribeWorkflow(ctx, workflows.WorkflowID(op), "")
	if err != nil {
		return workflowRun{}, err
	}
	var operation string
	if p := info.Memo.GetFields()[workflows.MemoOperation]; p != nil {
		if err := converter.GetDefaultDataConverter().FromPayload(p, &operation); err != nil {
			return workflowRun{}, fmt.Errorf("memo of workflow %s: %w", workflows.WorkflowID(op), err)
		}
	}
	if operation != op.ID {
		return workflowRun{}, serviceerror.NewNotFound("workflow " + workflows.WorkflowID(op) + " runs for another operation")
	}
	return workflowRun{id: info.WorkflowExecution.RunID, status: info.Status}, nil
}

// Run repeats what could not be done at once, until ctx ends.
func (d *Dispatcher) Run(ctx context.Context) {
	sweep, cordons, orphans := time.NewTimer(0), time.NewTicker(cordonEvery), time.NewTicker(orphanEvery)
	defer sweep.Stop()
	defer cordons.Stop()
	defer orphans.Stop()
	soon := false // the next sweep comes early; later kicks must not put it off
	var said time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-d.kick:
			if !soon {
				soon = true
				sweep.Reset(sweepSoon)
			}
			continue
		case <-sweep.C:
			soon = false
			err = errors.Join(d.startPending(ctx), d.wakeUnseen(ctx))
			sweep.Reset(sweepEvery)
		case <-cordons.C:
			err = d.uncordonLeft(ctx)
		case <-orphans.C:
			err = d.endOrphans(ctx)
		}
		if err != nil && ctx.Err() == nil && time.Since(said) > sayEvery {
			said = time.Now()
			d.log.WarnContext(ctx, "dispatcher: will try again", "error", err)
		}
	}
}

func (d *Dispatcher) startPending(ctx context.Context) error {
	ops, err := d.store.PendingOperations(ctx, sweepSoon, sweepLimit)
	if err != nil {
		return err
	}
	var errs []error
	started := false
	for _, op := range ops {
		err := d.start(ctx, op)
		if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
			continue // it begins in a moment, or an older one still ends under the same name
		}
		started = started || err == nil
		errs = append(errs, err)
	}
	if started && len(ops) == sweepLimit { // there are more, as after the deletion of a large cluster
		d.soon()
	}
	return errors.Join(errs...)
}

// soon makes the next sweep come early.
func (d *Dispatcher) soon() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// uncordonLeft has nodes let go that are cordoned for a host run that has ended: its own
// workflow could not do it, or was terminated. A workflow that does so goes on by itself, so
// it is looked for now and then only.
func (d *Dispatcher) uncordonLeft(ctx context.Context) error {
	left, err := d.store.LeftCordons(ctx, 0, sweepLimit)
	if err != nil {
		return err
	}
	maps.DeleteFunc(d.letGo, func(_ workflows.HostRef, at time.Time) bool { return time.Since(at) > cordonAgain })
	var errs []error
	for _, host := range left {
		if _, done := d.letGo[host]; done {
			continue
		}
		err := d.uncordon(ctx, host)
		if err == nil {
			d.letGo[host] = time.Now()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// uncordon starts the workflow that lets a node go. Repeating it finds the one that runs,
// which it does for as long as the container manager is away.
func (d *Dispatcher) uncordon(ctx context.Context, host workflows.HostRef) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       workflows.CordonWorkflowID(host),
		TaskQueue:                d.options.TaskQueue,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		Memo:                     map[string]any{workflows.MemoOperation: host.OperationID},
		WorkflowTaskTimeout:      cordonTask,
		StaticSummary:            "uncordon " + host.Address,
		TypedSearchAttributes:    temporal.NewSearchAttributes(workflows.AttributeHost.ValueSet(host.Address)),
	}, workflows.Uncordon, workflows.HostInput{HostRef: host, Timing: d.options.Timing})
	return err
}

// endOrphans ends operations whose workflow does not run any more. A workflow
// always ends its operation first, so such a one was ended from outside.
func (d *Dispatcher) endOrphans(ctx context.Context) error {
	ops, err := d.store.RunningOperations(ctx, orphanAge, sweepLimit)
	if err != nil {
		return err
	}
	var errs []error
	for _, op := range ops {
		how, err := d.workflowEnd(ctx, op)
		var away *serviceerror.Unavailable
		var late *serviceerror.DeadlineExceeded
		if errors.As(err, &away) || errors.As(err, &late) || errors.Is(err, context.DeadlineExceeded) {
			return errors.Join(append(errs, err)...) // the others would wait as long, each
		}
		if err != nil || how == "" {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, d.store.EndOperation(ctx, op.Tenant, op.ID, fleet.OperationFailed, "its workflow in Temporal "+how+"; what runs on a host goes on there; look at the hosts before repeating it"))
	}
	return errors.Join(errs...)
}

// workflowEnd says how the workflow of an operation ended, "" while it runs.
func (d *Dispatcher) workflowEnd(ctx context.Context, op fleet.Operation) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var gone *serviceerror.NotFound
	run, err := d.find(ctx, op)
	switch {
	case errors.As(err, &gone):
		return "is not there any more", nil
	case err != nil:
		return "", err
	case run.status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return "", nil
	case run.status == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return "was terminated", nil
	default:
		return "ended as " + run.status.String() + " without ending the operation", nil
	}
}
