package api

import (
	"context"

	"commissaire/api/gen"
)

func (h *handlers) ListJoinTokens(context.Context, gen.ListJoinTokensRequestObject) (gen.ListJoinTokensResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) CreateJoinToken(context.Context, gen.CreateJoinTokenRequestObject) (gen.CreateJoinTokenResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) RevokeJoinToken(context.Context, gen.RevokeJoinTokenRequestObject) (gen.RevokeJoinTokenResponseObject, error) {
	return nil, errNoRoute()
}
