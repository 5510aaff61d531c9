package api

import (
	"context"

	"commissaire/api/gen"
)

func (h *handlers) Whoami(context.Context, gen.WhoamiRequestObject) (gen.WhoamiResponseObject, error) {
	return nil, errNoRoute()
}

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

func (h *handlers) ListJoinTokens(context.Context, gen.ListJoinTokensRequestObject) (gen.ListJoinTokensResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) CreateJoinToken(context.Context, gen.CreateJoinTokenRequestObject) (gen.CreateJoinTokenResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) RevokeJoinToken(context.Context, gen.RevokeJoinTokenRequestObject) (gen.RevokeJoinTokenResponseObject, error) {
	return nil, errNoRoute()
}

func (h *handlers) ListAudit(context.Context, gen.ListAuditRequestObject) (gen.ListAuditResponseObject, error) {
	return nil, errNoRoute()
}

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
