package api

import (
	"context"

	"commissaire/api/gen"
)

func (h *handlers) Whoami(context.Context, gen.WhoamiRequestObject) (gen.WhoamiResponseObject, error) {
	return nil, errNoRoute()
}
