package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

func (h *handlers) ListSources(ctx context.Context, _ gen.ListSourcesRequestObject) (gen.ListSourcesResponseObject, error) {
	var names []string
	for _, s := range h.Sources {
		names = append(names, s.Name)
	}
	hosts, last, err := h.Store.SourceUse(ctx, names)
	if err != nil {
		return nil, err
	}
	all := gen.ListSources200JSONResponse{}
	for _, s := range h.Sources {
		v := gen.Source{Name: s.Name, Type: s.Type, Hosts: hosts[s.Name]}
		if s.Refresh > 0 {
			v.Refresh = s.Refresh.String()
		}
		if op, ok := last[s.Name]; ok {
			shown := operation(op)
			v.LastSync = &shown
		}
		all = append(all, v)
	}
	return all, nil
}

func (h *handlers) SyncSource(ctx context.Context, r gen.SyncSourceRequestObject) (gen.SyncSourceResponseObject, error) {
	if !h.hasSource(r.Name) {
		return nil, fleet.Errorf(fleet.NotFound, "source %q does not exist; sources stand in the setting host-sources", r.Name)
	}
	op, created, err := h.start(ctx, store.NewOperation{Kind: fleet.KindSync, Source: r.Name, DryRun: or(r.Params.DryRun, false)})
	switch {
	case err != nil:
		return nil, err
	case created:
		return gen.SyncSource201JSONResponse(operation(op)), nil
	}
	return gen.SyncSource200JSONResponse(operation(op)), nil
}

func (h *handlers) PutHostSource(ctx context.Context, r gen.PutHostSourceRequestObject) (gen.PutHostSourceResponseObject, error) {
	if err := h.knownSource(r.Body.Source); err != nil {
		return nil, err
	}
	if err := h.Store.PutHostSource(ctx, r.Address, r.Body.Source); err != nil {
		return nil, err
	}
	return gen.PutHostSource201JSONResponse(*r.Body), nil
}

// knownSource refuses a source that the settings do not have; "" is none.
func (h *handlers) knownSource(name string) error {
	if name == "" || h.hasSource(name) {
		return nil
	}
	return fleet.InvalidField("source", "does not exist; sources stand in the setting host-sources")
}

func (h *handlers) hasSource(name string) bool {
	for _, s := range h.Sources {
		if s.Name == name {
			return true
		}
	}
	return false
}
