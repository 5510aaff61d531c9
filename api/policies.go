package api

import (
	"context"
	"errors"
	"strings"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

// Policies: the defaults of a cluster, and the one that an operation follows.

func (h *handlers) GetClusterPolicy(ctx context.Context, r gen.GetClusterPolicyRequestObject) (gen.GetClusterPolicyResponseObject, error) {
	p, err := h.Store.ClusterPolicy(ctx, r.Name)
	return gen.GetClusterPolicy200JSONResponse(p), err
}

func (h *handlers) PutClusterPolicy(ctx context.Context, r gen.PutClusterPolicyRequestObject) (gen.PutClusterPolicyResponseObject, error) {
	if err := r.Body.Check("policy"); err != nil {
		return nil, within("policy", err)
	}
	if err := h.Store.PutClusterPolicy(ctx, r.Name, *r.Body); err != nil {
		return nil, err
	}
	return gen.PutClusterPolicy201JSONResponse(*r.Body), nil
}

func (h *handlers) DeleteClusterPolicy(ctx context.Context, r gen.DeleteClusterPolicyRequestObject) (gen.DeleteClusterPolicyResponseObject, error) {
	if err := h.Store.PutClusterPolicy(ctx, r.Name, fleet.Policy{}); err != nil {
		return nil, err
	}
	return gen.DeleteClusterPolicy200JSONResponse(list[string](nil)), nil
}

func (h *handlers) GetOperationPolicy(ctx context.Context, r gen.GetOperationPolicyRequestObject) (gen.GetOperationPolicyResponseObject, error) {
	op, err := h.Store.Operation(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	if !op.Kind.Rollout() {
		return nil, fleet.Errorf(fleet.NotFound, "operation %s is a %s, which follows no policy", op.ID, op.Kind)
	}
	return gen.GetOperationPolicy200JSONResponse(op.Policy), nil
}

func (h *handlers) PutOperationPolicy(ctx context.Context, r gen.PutOperationPolicyRequestObject) (gen.PutOperationPolicyResponseObject, error) {
	if err := r.Body.Check("policy"); err != nil {
		return nil, within("policy", err)
	}
	op, err := h.Store.SetOperationPolicy(ctx, r.Id, *r.Body, callOf(ctx).principal.Name, or(r.Params.IdempotencyKey, ""))
	if err != nil {
		return nil, within("policy", err)
	}
	h.wake(ctx, op)
	return gen.PutOperationPolicy201JSONResponse(op.Policy), nil
}

// within gives an Invalid error the names that members have in a request whose
// whole body is what the error calls outer.
func within(outer string, err error) error {
	var e *fleet.Error
	if !errors.As(err, &e) || e.Kind != fleet.Invalid || len(e.Fields) == 0 {
		return err
	}
	fields := make([]fleet.FieldError, len(e.Fields))
	for i, f := range e.Fields {
		if f.Field == outer {
			f.Field = "body"
		}
		f.Field = strings.TrimPrefix(f.Field, outer+".")
		fields[i] = f
	}
	return &fleet.Error{Kind: fleet.Invalid, Detail: fields[0].Field + " " + fields[0].Detail, Fields: fields, Err: e.Err}
}
