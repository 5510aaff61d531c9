package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

func (h *handlers) GetHostLabels(ctx context.Context, r gen.GetHostLabelsRequestObject) (gen.GetHostLabelsResponseObject, error) {
	labels, err := h.Store.HostLabels(ctx, r.Address)
	return gen.GetHostLabels200JSONResponse(some(labels)), err
}

func (h *handlers) PutHostLabels(ctx context.Context, r gen.PutHostLabelsRequestObject) (gen.PutHostLabelsResponseObject, error) {
	if err := fleet.CheckLabels(*r.Body); err != nil {
		return nil, within("labels", err)
	}
	if err := h.Store.PutHostLabels(ctx, r.Address, *r.Body); err != nil {
		return nil, err
	}
	return gen.PutHostLabels201JSONResponse(some(*r.Body)), nil
}

// some gives labels that are not null in JSON.
func some(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}
