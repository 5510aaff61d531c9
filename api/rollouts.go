package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// Restarts, upgrades and deploys of clusters: orders with a policy, answered with
// the v0 record.

func (h *handlers) RestartCluster(ctx context.Context, r gen.RestartClusterRequestObject) (gen.RestartClusterResponseObject, error) {
	order := store.NewOperation{Kind: fleet.KindRestart, Cluster: r.Name, Policy: r.Body.Policy, IdempotencyKey: or(r.Params.IdempotencyKey, "")}
	done, err := h.roll(ctx, order, r.Body.Name, r.Params.DryRun)
	if err != nil {
		return nil, err
	}
	if done.created {
		return gen.RestartCluster201JSONResponse(done.run.restart()), nil
	}
	var known gen.RestartCluster200JSONResponse
	if done.plan != nil {
		err = known.FromPlan(*done.plan)
	} else {
		err = known.FromClusterRestart(done.run.restart())
	}
	return known, err
}

func (h *handlers) UpgradeCluster(ctx context.Context, r gen.UpgradeClusterRequestObject) (gen.UpgradeClusterResponseObject, error) {
	order := store.NewOperation{Kind: fleet.KindUpgrade, Cluster: r.Name, Policy: r.Body.Policy, IdempotencyKey: or(r.Params.IdempotencyKey, "")}
	done, err := h.roll(ctx, order, r.Body.Name, r.Params.DryRun)
	if err != nil {
		return nil, err
	}
	if done.created {
		return gen.UpgradeCluster201JSONResponse(done.run.upgrade()), nil
	}
	var known gen.UpgradeCluster200JSONResponse
	if done.plan != nil {
		err = known.FromPlan(*done.plan)
	} else {
		err = known.FromClusterUpgrade(done.run.upgrade())
	}
	return known, err
}

func (h *handlers) DeployCluster(ctx context.Context, r gen.DeployClusterRequestObject) (gen.DeployClusterResponseObject, error) {
	version, err := fleet.ParseVersion(r.Body.Version)
	if err != nil {
		return nil, err
	}
	order := store.NewOperation{Kind: fleet.KindDeploy, Cluster: r.Name, Version: version, Policy: r.Body.Policy, IdempotencyKey: or(r.Params.IdempotencyKey, "")}
	done, err := h.roll(ctx, order, r.Body.Name, r.Params.DryRun)
	if err != nil {
		return nil, err
	}
	if done.created {
		return gen.DeployCluster201JSONResponse(done.run.deploy()), nil
	}
	var known gen.DeployCluster200JSONResponse
	if done.plan != nil {
		err = known.FromPlan(*done.plan)
	} else {
		err = known.FromClusterDeploy(done.run.deploy())
	}
	return known, err
}

func (h *handlers) GetClusterRestart(ctx context.Context, r gen.GetClusterRestartRequestObject) (gen.GetClusterRestartResponseObject, error) {
	run, err := h.latest(ctx, fleet.KindRestart, r.Name, "")
	return gen.GetClusterRestart200JSONResponse(run.restart()), err
}

func (h *handlers) GetClusterUpgrade(ctx context.Context, r gen.GetClusterUpgradeRequestObject) (gen.GetClusterUpgradeResponseObject, error) {
	run, err := h.latest(ctx, fleet.KindUpgrade, r.Name, "")
	return gen.GetClusterUpgrade200JSONResponse(run.upgrade()), err
}

func (h *handlers) GetClusterDeploy(ctx context.Context, r gen.GetClusterDeployRequestObject) (gen.GetClusterDeployResponseObject, error) {
	run, err := h.latest(ctx, fleet.KindDeploy, r.Name, "")
	return gen.GetClusterDeploy200JSONResponse(run.deploy()), err
}

// rolled is what came of an order: a plan of what would be done, or a record.
type rolled struct {
	plan    *gen.Plan // for a dry run
	run     run
	created bool
}

// roll carries out an order over a cluster, or says what it would do. named is the
// cluster's name in the body, "" when it is not there.
func (h *handlers) roll(ctx context.Context, o store.NewOperation, named string, dryRun *bool) (done rolled, err error) {
	if err := sameName("name", named, o.Cluster); err != nil {
		return done, err
	}
	if err := o.Policy.Check("policy"); err != nil {
		return done, err
	}
	if or(dryRun, false) {
		done.plan, err = h.plan(ctx, o)
		return done, err
	}
	op, created, err := h.start(ctx, o)
	if err != nil {
		return done, err
	}
	if created { // no host has begun, and nothing may fail any more
		return rolled{run: newRun(op, nil), created: true}, nil
	}
	done.run, err = h.runOf(ctx, op)
	return done, err
}
