package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// Bootstraps of hosts, and what they share with rollouts: the v0 view of
// operations.

func (h *handlers) BootstrapHost(ctx context.Context, r gen.BootstrapHostRequestObject) (gen.BootstrapHostResponseObject, error) {
	op, created, err := h.start(ctx, store.NewOperation{Kind: fleet.KindBootstrap, Host: r.Address})
	if err != nil {
		return nil, err
	}
	if created {
		return gen.BootstrapHost201JSONResponse(newRun(op, nil).bootstrap()), nil
	}
	run, err := h.runOf(ctx, op)
	return gen.BootstrapHost200JSONResponse(run.bootstrap()), err
}

func (h *handlers) GetHostBootstrap(ctx context.Context, r gen.GetHostBootstrapRequestObject) (gen.GetHostBootstrapResponseObject, error) {
	run, err := h.latest(ctx, fleet.KindBootstrap, "", r.Address)
	return gen.GetHostBootstrap200JSONResponse(run.bootstrap()), err
}

// start stores an order and hands it to the dispatcher, in this order: whoever
// got a 201 has it on disk. While one of the same kind runs, that one is given.
func (h *handlers) start(ctx context.Context, o store.NewOperation) (op fleet.Operation, created bool, err error) {
	if err := h.dispatcherReady(ctx); err != nil {
		return op, false, err
	}
	c := callOf(ctx)
	o.RequestedBy, o.RequestID = c.principal.Name, c.id
	op, created, err = h.Store.StartOperation(ctx, o)
	// With an Idempotency-Key that was sent before, the answer is that of the first
	// request, whose operation it is.
	created = created && op.RequestID == c.id && op.State == fleet.OperationPending
	if created {
		h.dispatch(ctx, op)
	}
	return op, created, err
}

func (h *handlers) latest(ctx context.Context, kind fleet.OperationKind, cluster, host string) (run, error) {
	op, err := h.Store.LatestOperation(ctx, kind, cluster, host)
	if err != nil {
		return run{}, err
	}
	return h.runOf(ctx, op)
}

func (h *handlers) runOf(ctx context.Context, op fleet.Operation) (run, error) {
	hosts, err := h.Store.HostRuns(ctx, op.ID)
	if err != nil {
		return run{}, err
	}
	return newRun(op, hosts), nil
}
