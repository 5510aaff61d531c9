package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

func (h *handlers) ListNetworks(ctx context.Context, _ gen.ListNetworksRequestObject) (gen.ListNetworksResponseObject, error) {
	names, err := h.Store.Networks(ctx)
	if err != nil {
		return nil, err
	}
	return gen.ListNetworks200JSONResponse(list(names)), nil
}

func (h *handlers) GetNetwork(ctx context.Context, r gen.GetNetworkRequestObject) (gen.GetNetworkResponseObject, error) {
	n, err := h.Store.Network(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	return gen.GetNetwork200JSONResponse(network(n)), nil
}

func (h *handlers) PutNetwork(ctx context.Context, r gen.PutNetworkRequestObject) (gen.PutNetworkResponseObject, error) {
	if err := sameName("name", r.Body.Name, r.Name); err != nil {
		return nil, err
	}
	kind, err := fleet.ParseNetworkType(string(r.Body.Type))
	if err != nil {
		return nil, err
	}
	n, err := h.Store.PutNetwork(ctx, fleet.Network{Name: r.Name, Type: kind, Options: object(r.Body.Options)})
	if err != nil {
		return nil, err
	}
	return gen.PutNetwork201JSONResponse(network(n)), nil
}

func (h *handlers) DeleteNetwork(ctx context.Context, r gen.DeleteNetworkRequestObject) (gen.DeleteNetworkResponseObject, error) {
	if err := h.Store.DeleteNetwork(ctx, r.Name); err != nil {
		return nil, err
	}
	return gen.DeleteNetwork200JSONResponse(list[string](nil)), nil
}
