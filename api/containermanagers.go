package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/containermgr/options"
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
	want := fleet.ContainerManager{Name: r.Name, Type: kind, Options: object(r.Body.Options)}
	put := h.Store.PutContainerManager
	if r.Params.Replace { // checked with what stays of the old ones
		put = func(ctx context.Context, m fleet.ContainerManager) (fleet.ContainerManager, string, error) {
			return h.Store.ReplaceContainerManager(ctx, m, checkOptions)
		}
	} else if err := checkOptions(want); err != nil {
		return nil, err
	}
	if kind.HasNodes() {
		if err := h.dispatcherReady(ctx); err != nil {
			return nil, err
		}
	}
	m, check, err := put(ctx, want)
	if err == nil && check != "" {
		err = h.checkManager(ctx, r.Name, check)
	}
	if err != nil {
		return nil, err
	}
	return gen.PutContainerManager201JSONResponse(containerManager(m)), nil
}

// checkOptions says what is wrong with options before anybody is asked.
func checkOptions(m fleet.ContainerManager) error {
	if !m.Type.HasNodes() {
		return nil
	}
	o, err := options.Parse(m.Options)
	if err == nil && o.Kubelet && m.Type != fleet.ContainerManagerKubernetes {
		err = fleet.InvalidField(options.Field(options.Kubelet), "is for container managers of type %s", fleet.ContainerManagerKubernetes)
	}
	return err
}

func (h *handlers) DeleteContainerManager(ctx context.Context, r gen.DeleteContainerManagerRequestObject) (gen.DeleteContainerManagerResponseObject, error) {
	ended, err := h.Store.DeleteContainerManager(ctx, r.Name, r.Params.Force)
	if err != nil {
		return nil, err
	}
	h.cancelled(ctx, ended)
	return gen.DeleteContainerManager200JSONResponse(list[string](nil)), nil
}

// checkManager keeps a container manager that was put, or its new options, if it answers
// as it should, and forgets them otherwise. What a crash leaves in between is nothing to anybody, and the
// next PUT overwrites it.
func (h *handlers) checkManager(ctx context.Context, name, check string) error {
	err := h.Dispatcher.CheckManager(ctx, fleet.DefaultTenant, name, check)
	// The client may be gone, but what it began is brought to an end.
	ctx = context.WithoutCancel(ctx)
	if err == nil {
		return h.Store.ContainerManagerChecked(ctx, name, check)
	}
	if forget := h.Store.ContainerManagerRefused(ctx, name, check); forget != nil {
		h.Logger.WarnContext(ctx, "a container manager that was refused is still stored; nobody sees it", "container_manager", name, "error", forget)
	}
	return err
}

func containerManager(m fleet.ContainerManager) gen.ContainerManager {
	return gen.ContainerManager{Name: m.Name, Type: gen.ContainerManagerType(m.Type), Options: object(m.Options)}
}
