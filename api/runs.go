package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// Restarts of clusters and bootstraps of hosts: the v0 view of operations.

func (h *handlers) RestartCluster(ctx context.Context, r gen.RestartClusterRequestObject) (gen.RestartClusterResponseObject, error) {
	run, created, err := h.start(ctx, store.NewOperation{Kind: fleet.KindRestart, Cluster: r.Name})
	if err != nil {
		return nil, err
	}
	if created {
		return gen.RestartCluster201JSONResponse(run.restart()), nil
	}
	return gen.RestartCluster200JSONResponse(run.restart()), nil
}

func (h *handlers) GetClusterRestart(ctx context.Context, r gen.GetClusterRestartRequestObject) (gen.GetClusterRestartResponseObject, error) {
	run, err := h.latest(ctx, fleet.KindRestart, r.Name, "")
	if err != nil {
		return nil, err
	}
	return gen.GetClusterRestart200JSONResponse(run.restart()), nil
}

func (h *handlers) BootstrapHost(ctx context.Context, r gen.BootstrapHostRequestObject) (gen.BootstrapHostResponseObject, error) {
	run, created, err := h.start(ctx, store.NewOperation{Kind: fleet.KindBootstrap, Host: r.Address})
	if err != nil {
		return nil, err
	}
	if created {
		return gen.BootstrapHost201JSONResponse(run.bootstrap()), nil
	}
	return gen.BootstrapHost200JSONResponse(run.bootstrap()), nil
}

func (h *handlers) GetHostBootstrap(ctx context.Context, r gen.GetHostBootstrapRequestObject) (gen.GetHostBootstrapResponseObject, error) {
	run, err := h.latest(ctx, fleet.KindBootstrap, "", r.Address)
	if err != nil {
		return nil, err
	}
	return gen.GetHostBootstrap200JSONResponse(run.bootstrap()), nil
}

// start stores an order and hands it to the dispatcher, in this order: whoever
// got a 201 has it on disk. While one of the same kind runs, that one is given.
func (h *handlers) start(ctx context.Context, o store.NewOperation) (r run, created bool, err error) {
	if err := h.dispatcherReady(ctx); err != nil {
		return run{}, false, err
	}
	c := callOf(ctx)
	o.RequestedBy, o.RequestID = c.principal.Name, c.id
	op, created, err := h.Store.StartOperation(ctx, o)
	if err != nil {
		return run{}, false, err
	}
	if created {
		h.dispatch(ctx, op)
		return newRun(op, nil), true, nil // no host has begun, and nothing may fail any more
	}
	r, err = h.runOf(ctx, op)
	return r, false, err
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
