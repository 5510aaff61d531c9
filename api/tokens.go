package api

import (
	"context"

	"commissaire/api/gen"
)

func (h *handlers) ListTokens(context.Context, gen.ListTokensRequestObject) (gen.ListTokensResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) CreateToken(context.Context, gen.CreateTokenRequestObject) (gen.CreateTokenResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) GetToken(context.Context, gen.GetTokenRequestObject) (gen.GetTokenResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) RevokeToken(context.Context, gen.RevokeTokenRequestObject) (gen.RevokeTokenResponseObject, error) {
	return nil, errNoRoute()
}
