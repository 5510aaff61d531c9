package api

import (
	"context"
	"time"

	"commissaire/api/gen"
	"commissaire/internal/authn"
	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

func (h *handlers) ListJoinTokens(ctx context.Context, _ gen.ListJoinTokensRequestObject) (gen.ListJoinTokensResponseObject, error) {
	tokens, err := h.Store.JoinTokens(ctx)
	if err != nil {
		return nil, err
	}
	all := make(gen.ListJoinTokens200JSONResponse, len(tokens))
	for i, t := range tokens {
		all[i] = gen.JoinToken{
			Id: t.ID, Cluster: t.Cluster, RemoteUser: t.RemoteUser, CreatedBy: t.CreatedBy,
			CreatedAt: fleet.FormatTime(t.Created), ExpiresAt: fleet.FormatTime(t.Expires), RevokedAt: fleet.FormatTime(t.Revoked),
			UsedAt: fleet.FormatTime(t.Used), UsedBy: t.UsedBy,
		}
	}
	return all, nil
}

// CreateJoinToken makes a key pair with the token. The private half goes from
// here into the store, sealed, and nowhere else.
func (h *handlers) CreateJoinToken(ctx context.Context, r gen.CreateJoinTokenRequestObject) (gen.CreateJoinTokenResponseObject, error) {
	user, err := fleet.ParseRemoteUser(r.Body.RemoteUser)
	if err != nil {
		return nil, err
	}
	life, err := tokenLife(r.Body.ExpiresIn, fleet.DefaultJoinTokenLife, fleet.MaxJoinTokenLife)
	if err != nil {
		return nil, err
	}
	private, public, err := secret.NewKeyPair()
	if err != nil {
		return nil, err
	}
	id, text, digest := authn.NewToken(authn.JoinTokenPrefix)
	t, err := h.Store.CreateJoinToken(ctx, fleet.JoinToken{
		ID: id, Cluster: r.Body.Cluster, RemoteUser: user, PublicKey: public,
		CreatedBy: callOf(ctx).principal.Name, Expires: time.Now().Add(life),
	}, digest, private)
	if err != nil {
		return nil, err
	}
	callOf(ctx).subject = t.ID
	return gen.CreateJoinToken201JSONResponse{
		Token: string(text.Reveal()), Id: t.ID, PublicKey: t.PublicKey, Cluster: t.Cluster, RemoteUser: t.RemoteUser,
		CreatedAt: fleet.FormatTime(t.Created), ExpiresAt: fleet.FormatTime(t.Expires),
	}, nil
}

func (h *handlers) RevokeJoinToken(ctx context.Context, r gen.RevokeJoinTokenRequestObject) (gen.RevokeJoinTokenResponseObject, error) {
	if err := h.Store.RevokeJoinToken(ctx, r.Token); err != nil {
		return nil, err
	}
	return gen.RevokeJoinToken200JSONResponse(list[string](nil)), nil
}
