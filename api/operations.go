package api

import (
	"context"
	"time"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

func (h *handlers) ListOperations(ctx context.Context, r gen.ListOperationsRequestObject) (gen.ListOperationsResponseObject, error) {
	p := r.Params
	host, err := hostFilter(p.Host)
	if err != nil {
		return nil, err
	}
	since, err := moment("since", p.Since)
	if err != nil {
		return nil, err
	}
	until, err := moment("until", p.Until)
	if err != nil {
		return nil, err
	}
	filter := store.OperationFilter{
		Cluster:     or(p.Cluster, ""),
		Host:        host,
		Kind:        fleet.OperationKind(or(p.Kind, "")),
		State:       fleet.OperationState(or(p.State, "")),
		RequestedBy: or(p.RequestedBy, ""),
		Since:       since,
		Until:       until,
		Cursor:      or(p.Cursor, ""),
		Limit:       or(p.Limit, store.DefaultPage),
	}
	ops, next, err := h.Store.Operations(ctx, filter)
	if err != nil {
		return nil, err
	}
	page := gen.ListOperations200JSONResponse{Operations: make([]gen.Operation, len(ops)), Next: next}
	for i, op := range ops {
		page.Operations[i] = operation(op)
	}
	return page, nil
}

// or gives the value of an optional parameter.
func or[T any](given *T, otherwise T) T {
	if given == nil {
		return otherwise
	}
	return *given
}

// hostFilter gives the canonical form of an address in a query; "" means all.
func hostFilter(given *string) (string, error) {
	if given == nil {
		return "", nil
	}
	address, err := fleet.ParseAddress(*given)
	if err != nil {
		return "", blame(err, "host")
	}
	return address, nil
}

// moment reads a time in a query, as the API writes times or as RFC 3339 does;
// zero when it is not given.
func moment(field string, given *string) (time.Time, error) {
	if given == nil {
		return time.Time{}, nil
	}
	for _, layout := range []string{fleet.TimeFormat, time.RFC3339} {
		if t, err := time.Parse(layout, *given); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fleet.InvalidField(field, "must be a time such as 2026-11-20T14:03:00Z (a + is written %%2B) or 2026-11-20T14:03:00.000000")
}

func (h *handlers) GetOperation(ctx context.Context, r gen.GetOperationRequestObject) (gen.GetOperationResponseObject, error) {
	op, err := h.Store.Operation(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	v, err := h.detailed(ctx, op)
	return gen.GetOperation200JSONResponse(v), err
}

// detailed shows an operation with how far it is.
func (h *handlers) detailed(ctx context.Context, op fleet.Operation) (gen.Operation, error) {
	v := operation(op)
	if !op.Kind.Counted() {
		return v, nil
	}
	p, err := h.Store.Progress(ctx, op.ID)
	if err != nil {
		return v, err
	}
	v.Progress = &gen.Progress{
		Total: p.Total, Pending: p.Pending, Staging: p.Staging, Staged: p.Staged,
		Running: p.Running, Succeeded: p.Succeeded, Failed: p.Failed, Skipped: p.Skipped,
	}
	v.ExpectedEnd = fleet.FormatTime(p.ExpectedEnd)
	return v, nil
}

func (h *handlers) ListOperationHosts(ctx context.Context, r gen.ListOperationHostsRequestObject) (gen.ListOperationHostsResponseObject, error) {
	runs, next, err := h.Store.HostRunsPage(ctx, r.Id, store.HostRunFilter{
		State:  fleet.HostRunState(or(r.Params.State, "")),
		Cursor: or(r.Params.Cursor, ""),
		Limit:  or(r.Params.Limit, entriesPage),
	})
	if err != nil {
		return nil, err
	}
	page := gen.ListOperationHosts200JSONResponse{Hosts: make([]gen.HostRun, len(runs)), Next: next}
	for i, run := range runs {
		page.Hosts[i] = hostRun(run)
	}
	return page, nil
}

// entriesPage is how many hosts or steps of an operation an answer has when the
// request does not say.
const entriesPage = 200

func (h *handlers) ListOperationSteps(ctx context.Context, r gen.ListOperationStepsRequestObject) (gen.ListOperationStepsResponseObject, error) {
	host, err := hostFilter(r.Params.Host)
	if err != nil {
		return nil, err
	}
	steps, next, err := h.Store.StepsPage(ctx, r.Id, store.StepFilter{Host: host, Cursor: or(r.Params.Cursor, ""), Limit: or(r.Params.Limit, entriesPage)})
	if err != nil {
		return nil, err
	}
	page := gen.ListOperationSteps200JSONResponse{Steps: make([]gen.Step, len(steps)), Next: next}
	for i, s := range steps {
		page.Steps[i] = step(s)
	}
	return page, nil
}

func operation(op fleet.Operation) gen.Operation {
	v := gen.Operation{
		Id:          op.ID,
		Kind:        gen.OperationKind(op.Kind),
		Cluster:     op.Cluster,
		Host:        op.Host,
		State:       gen.OperationState(op.State),
		Reason:      op.Reason,
		RequestedBy: op.RequestedBy,
		RequestId:   op.RequestID,
		CreatedAt:   fleet.FormatTime(op.Created),
		StartedAt:   fleet.FormatTime(op.Started),
		FinishedAt:  fleet.FormatTime(op.Finished),
		Version:     op.Version,
		RetryOf:     op.RetryOf,
		Waiting:     op.Waiting,
		Paused:      !op.Paused.IsZero(),
		PausedAt:    fleet.FormatTime(op.Paused),
		PausedBy:    op.PausedBy,
		ApprovedAt:  fleet.FormatTime(op.Approved),
		ApprovedBy:  op.ApprovedBy,

		CancelRequestedAt: fleet.FormatTime(op.Cancelled),
		CancelRequestedBy: op.CancelledBy,

		Source: op.Source,
		DryRun: op.DryRun,
		Sync:   op.Sync,
	}
	if op.Kind.Rollout() {
		policy := op.Policy // alone, or all of op would be kept
		v.Policy = &policy
	}
	if c := op.Command; c != nil {
		v.Argv, v.Timeout, v.AtOnce = c.Argv, c.Timeout.String(), c.AtOnce
		v.Selector = c.Selector
	}
	return v
}

func hostRun(run fleet.HostRun) gen.HostRun {
	return gen.HostRun{
		Address:    run.Address,
		State:      string(run.State),
		Reason:     run.Reason,
		BootId:     run.BootID,
		StartedAt:  fleet.FormatTime(run.Started),
		FinishedAt: fleet.FormatTime(run.Finished),
		Canary:     run.Canary,
		Slot:       run.Slot,
		Target:     run.Target,
		Waiting:    run.Waiting,
	}
}

func step(s fleet.Step) gen.Step {
	return gen.Step{
		Address:      s.Address,
		Name:         s.Name,
		Attempt:      s.Attempt,
		State:        string(s.State),
		Reason:       s.Reason,
		ExitCode:     s.ExitCode,
		OutputSize:   s.OutputSize,
		OutputStored: s.Stored,
		StartedAt:    fleet.FormatTime(s.Started),
		FinishedAt:   fleet.FormatTime(s.Finished),
	}
}
