package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

func (h *handlers) ListClusters(ctx context.Context, _ gen.ListClustersRequestObject) (gen.ListClustersResponseObject, error) {
	names, err := h.Store.Clusters(ctx)
	if err != nil {
		return nil, err
	}
	return gen.ListClusters200JSONResponse(list(names)), nil
}

func (h *handlers) GetCluster(ctx context.Context, r gen.GetClusterRequestObject) (gen.GetClusterResponseObject, error) {
	c, err := h.Store.Cluster(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	return gen.GetCluster200JSONResponse(clusterDetail(c)), nil
}

func (h *handlers) PutCluster(ctx context.Context, r gen.PutClusterRequestObject) (gen.PutClusterResponseObject, error) {
	if err := sameName("name", r.Body.Name, r.Name); err != nil {
		return nil, err
	}
	put := store.ClusterPut{Name: r.Name, Network: r.Body.Network, ContainerManager: r.Body.ContainerManager, Profile: r.Body.Profile}
	if r.Body.Bastion != nil {
		bastion, err := parseBastion(*r.Body.Bastion)
		if err != nil {
			return nil, err
		}
		put.Bastion = &bastion
	}
	c, err := h.Store.PutCluster(ctx, put)
	if err != nil {
		return nil, err
	}
	return gen.PutCluster201JSONResponse{Name: c.Name, Network: c.Network, ContainerManager: c.ContainerManager, Profile: c.Profile, Bastion: c.Bastion}, nil
}

func (h *handlers) DeleteCluster(ctx context.Context, r gen.DeleteClusterRequestObject) (gen.DeleteClusterResponseObject, error) {
	ops, err := h.Store.DeleteCluster(ctx, r.Name, requester(ctx))
	if err != nil {
		return nil, err
	}
	h.ordered(ctx, ops)
	return gen.DeleteCluster200JSONResponse(list[string](nil)), nil
}

// sameName refuses a body that contradicts the URL.
func sameName(field, given, want string) error {
	if given != "" && given != want {
		return fleet.InvalidField(field, "contradicts the URL; leave it out")
	}
	return nil
}
