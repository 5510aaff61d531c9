package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/authz"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// Steering of operations that are on record. What is asked for holds from the
// moment it is in the store, also while the workflow service is away: the workflow
// is only told to look.

func (h *handlers) PauseOperation(ctx context.Context, r gen.PauseOperationRequestObject) (gen.PauseOperationResponseObject, error) {
	op, err := h.steer(ctx, r.Id, "pause", r.Params.IdempotencyKey)
	return gen.PauseOperation200JSONResponse(op), err
}

func (h *handlers) ResumeOperation(ctx context.Context, r gen.ResumeOperationRequestObject) (gen.ResumeOperationResponseObject, error) {
	op, err := h.steer(ctx, r.Id, "resume", r.Params.IdempotencyKey)
	return gen.ResumeOperation200JSONResponse(op), err
}

func (h *handlers) ApproveOperation(ctx context.Context, r gen.ApproveOperationRequestObject) (gen.ApproveOperationResponseObject, error) {
	op, err := h.steer(ctx, r.Id, "approve", r.Params.IdempotencyKey)
	return gen.ApproveOperation200JSONResponse(op), err
}

// steer puts on record what somebody decided, and tells the workflow.
func (h *handlers) steer(ctx context.Context, id, action string, key *string) (gen.Operation, error) {
	op, err := h.Store.Steer(ctx, id, store.SteerAction{Action: action, By: callOf(ctx).principal.Name, IdempotencyKey: or(key, "")})
	if err != nil {
		return gen.Operation{}, err
	}
	h.wake(ctx, op)
	return h.detailed(ctx, op)
}

// wake tells a workflow to look at the record. The client may be gone by now, but
// its order stands.
func (h *handlers) wake(ctx context.Context, op fleet.Operation) {
	h.Dispatcher.Wake(context.WithoutCancel(ctx), op)
}

// CancelOperation lets the hosts at work finish, or ends what they run. The
// latter needs the workflow service: without it nothing would reach the hosts, so
// nothing is put on record either. Where it went away since it was asked for its
// health, the operation is cancelled, and the answer is an error all the same.
func (h *handlers) CancelOperation(ctx context.Context, r gen.CancelOperationRequestObject) (gen.CancelOperationResponseObject, error) {
	if r.Body.Force {
		if err := h.dispatcherReady(ctx); err != nil {
			return nil, err
		}
	}
	cancel := store.SteerAction{Action: "cancel", By: callOf(ctx).principal.Name, Force: r.Body.Force, IdempotencyKey: or(r.Params.IdempotencyKey, "")}
	op, err := h.Store.Steer(ctx, r.Id, cancel)
	if err != nil {
		return nil, err
	}
	if r.Body.Force || op.State.Ended() {
		if err := h.Dispatcher.Cancel(context.WithoutCancel(ctx), op); err != nil && !op.State.Ended() {
			return nil, err
		}
	} else {
		h.wake(ctx, op)
	}
	v, err := h.detailed(ctx, op)
	return gen.CancelOperation200JSONResponse(v), err
}

// RetryOperation starts a new operation with what an ended one left undone.
func (h *handlers) RetryOperation(ctx context.Context, r gen.RetryOperationRequestObject) (gen.RetryOperationResponseObject, error) {
	if err := r.Body.Policy.Check("policy"); err != nil {
		return nil, err
	}
	if err := h.mayRetry(ctx, r.Id); err != nil {
		return nil, err
	}
	order := store.NewOperation{RetryOf: r.Id, Policy: r.Body.Policy, IdempotencyKey: or(r.Params.IdempotencyKey, "")}
	var known gen.RetryOperation200JSONResponse
	if or(r.Params.DryRun, false) {
		plan, err := h.plan(ctx, order)
		if err != nil {
			return nil, err
		}
		err = known.FromPlan(*plan)
		return known, err
	}
	op, created, err := h.start(ctx, order)
	if err != nil {
		return nil, err
	}
	if created {
		return gen.RetryOperation201JSONResponse(operation(op)), nil // nothing may fail any more
	}
	v, err := h.detailed(ctx, op)
	if err != nil {
		return nil, err
	}
	err = known.FromOperation(v)
	return known, err
}

// mayRetry refuses to run a command again to whom may not run it.
func (h *handlers) mayRetry(ctx context.Context, id string) error {
	op, err := h.Store.Operation(ctx, id)
	if fleet.KindOf(err) == fleet.NotFound || err == nil && op.Kind != fleet.KindCommand {
		return nil // the store says what is not there
	}
	if err != nil {
		return err
	}
	return authz.Check(callOf(ctx).principal, runCommand)
}
