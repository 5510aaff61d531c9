package api

import (
	"context"

	"commissaire/api/gen"
)

func (h *handlers) Whoami(ctx context.Context, _ gen.WhoamiRequestObject) (gen.WhoamiResponseObject, error) {
	c := callOf(ctx)
	return gen.Whoami200JSONResponse{Name: c.principal.Name, Method: c.principal.Method, Role: string(c.principal.Role), Address: c.address}, nil
}
