package api

import (
	"context"

	"commissaire/api/gen"
)

func (h *handlers) ListContainerManagers(context.Context, gen.ListContainerManagersRequestObject) (gen.ListContainerManagersResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) GetContainerManager(context.Context, gen.GetContainerManagerRequestObject) (gen.GetContainerManagerResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) PutContainerManager(context.Context, gen.PutContainerManagerRequestObject) (gen.PutContainerManagerResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) DeleteContainerManager(context.Context, gen.DeleteContainerManagerRequestObject) (gen.DeleteContainerManagerResponseObject, error) {
	return nil, errNoRoute()
}
