package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

func (h *handlers) PutHostBastion(ctx context.Context, r gen.PutHostBastionRequestObject) (gen.PutHostBastionResponseObject, error) {
	bastion, err := parseBastion(r.Body.Bastion)
	if err != nil {
		return nil, err
	}
	if err := h.Store.PutHostBastion(ctx, r.Address, bastion); err != nil {
		return nil, err
	}
	return gen.PutHostBastion201JSONResponse{Bastion: bastion}, nil
}

// parseBastion accepts the address of a host; "" is none.
func parseBastion(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	address, err := fleet.ParseAddress(s)
	if err != nil {
		return "", blame(err, "bastion")
	}
	return address, nil
}
