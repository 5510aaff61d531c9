package api

import (
	"context"

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
	filter := store.OperationFilter{
		Cluster: or(p.Cluster, ""),
		Host:    host,
		Kind:    fleet.OperationKind(or(p.Kind, "")),
		State:   fleet.OperationState(or(p.State, "")),
		Cursor:  or(p.Cursor, ""),
		Limit:   or(p.Limit, store.DefaultPage),
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

func (h *handlers) GetOperation(ctx context.Context, r gen.GetOperationRequestObject) (gen.GetOperationResponseObject, error) {
	op, err := h.Store.Operation(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	return gen.GetOperation200JSONResponse(operation(op)), nil
}

func (h *handlers) ListOperationHosts(ctx context.Context, r gen.ListOperationHostsRequestObject) (gen.ListOperationHostsResponseObject, error) {
	if _, err := h.Store.Operation(ctx, r.Id); err != nil {
		return nil, err
	}
	runs, err := h.Store.HostRuns(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	all := make(gen.ListOperationHosts200JSONResponse, len(runs))
	for i, run := range runs {
		all[i] = gen.HostRun{
			Address:    run.Address,
			State:      string(run.State),
			Reason:     run.Reason,
			BootId:     run.BootID,
			StartedAt:  fleet.FormatTime(run.Started),
			FinishedAt: fleet.FormatTime(run.Finished),
		}
	}
	return all, nil
}

func (h *handlers) ListOperationSteps(ctx context.Context, r gen.ListOperationStepsRequestObject) (gen.ListOperationStepsResponseObject, error) {
	host, err := hostFilter(r.Params.Host)
	if err != nil {
		return nil, err
	}
	if _, err := h.Store.Operation(ctx, r.Id); err != nil {
		return nil, err
	}
	steps, err := h.Store.Steps(ctx, r.Id, host)
	if err != nil {
		return nil, err
	}
	all := make(gen.ListOperationSteps200JSONResponse, len(steps))
	for i, s := range steps {
		all[i] = step(s)
	}
	return all, nil
}

func operation(op fleet.Operation) gen.Operation {
	return gen.Operation{
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
