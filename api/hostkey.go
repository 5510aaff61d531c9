package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

func (h *handlers) GetHostKey(ctx context.Context, r gen.GetHostKeyRequestObject) (gen.GetHostKeyResponseObject, error) {
	one, err := h.Store.Host(ctx, r.Address)
	if err != nil {
		return nil, err
	}
	if one.HostKey == nil {
		return nil, fleet.Errorf(fleet.NotFound, "no host key of %s is pinned yet; its bootstrap pins the first one it sees", r.Address)
	}
	return gen.GetHostKey200JSONResponse(hostKey(r.Address, *one.HostKey)), nil
}

func (h *handlers) AcceptHostKey(ctx context.Context, r gen.AcceptHostKeyRequestObject) (gen.AcceptHostKeyResponseObject, error) {
	pinned, err := h.Store.AcceptHostKey(ctx, r.Address, r.Body.Key)
	if err != nil {
		return nil, blame(err, "key")
	}
	return gen.AcceptHostKey201JSONResponse(hostKey(r.Address, pinned)), nil
}
