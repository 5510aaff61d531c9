package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

func (h *handlers) ListContainerManagers(ctx context.Context, _ gen.ListContainerManagersRequestObject) (gen.ListContainerManagersResponseObject, error) {
	names, err := h.Store.ContainerManagers(ctx)
	if err != nil {
		return nil, err
	}
	return gen.ListContainerManagers200JSONResponse(list(names)), nil
}

func (h *handlers) GetContainerManager(ctx context.Context, r gen.GetContainerManagerRequestObject) (gen.GetContainerManagerResponseObject, error) {
	m, err := h.Store.ContainerManager(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	return gen.GetContainerManager200JSONResponse(containerManager(m)), nil
}

func (h *handlers) PutContainerManager(ctx context.Context, r gen.PutContainerManagerRequestObject) (gen.PutContainerManagerResponseObject, error) {
	if err := sameName("name", r.Body.Name, r.Name); err != nil {
		return nil, err
	}
	kind, err := fleet.ParseContainerManagerType(string(r.Body.Type))
	if err != nil {
		return nil, err
	}
	m, err := h.Store.PutContainerManager(ctx, fleet.ContainerManager{Name: r.Name, Type: kind, Options: object(r.Body.Options)})
	if err != nil {
		return nil, err
	}
	return gen.PutContainerManager201JSONResponse(containerManager(m)), nil
}

func (h *handlers) DeleteContainerManager(ctx context.Context, r gen.DeleteContainerManagerRequestObject) (gen.DeleteContainerManagerResponseObject, error) {
	if err := h.Store.DeleteContainerManager(ctx, r.Name); err != nil {
		return nil, err
	}
	return gen.DeleteContainerManager200JSONResponse(list[string](nil)), nil
}

func containerManager(m fleet.ContainerManager) gen.ContainerManager {
	return gen.ContainerManager{Name: m.Name, Type: gen.ContainerManagerType(m.Type), Options: object(m.Options)}
}
