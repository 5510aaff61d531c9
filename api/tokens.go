package api

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"commissaire/api/gen"
	"commissaire/internal/authn"
	"commissaire/internal/authz"
	"commissaire/internal/fleet"
)

// making is the one operation that no token can be limited to: it makes none.
const making = "createToken"

func (h *handlers) ListTokens(ctx context.Context, _ gen.ListTokensRequestObject) (gen.ListTokensResponseObject, error) {
	who := callOf(ctx).principal
	owner := who.Name
	if who.Role == fleet.RoleAdmin {
		owner = "" // everybody's
	}
	tokens, err := h.Store.Tokens(ctx, owner)
	if err != nil {
		return nil, err
	}
	all := make(gen.ListTokens200JSONResponse, len(tokens))
	for i, t := range tokens {
		all[i] = token(t)
	}
	return all, nil
}

func (h *handlers) GetToken(ctx context.Context, r gen.GetTokenRequestObject) (gen.GetTokenResponseObject, error) {
	t, err := h.tokenOf(ctx, r.Token)
	if err != nil {
		return nil, err
	}
	return gen.GetToken200JSONResponse(token(t)), nil
}

func (h *handlers) RevokeToken(ctx context.Context, r gen.RevokeTokenRequestObject) (gen.RevokeTokenResponseObject, error) {
	t, err := h.tokenOf(ctx, r.Token)
	if err != nil {
		return nil, err
	}
	// Else a weak token that leaks could stop all that its owner runs.
	if who := callOf(ctx).principal; who.TokenID != "" && who.TokenID != t.ID && who.Role != fleet.RoleAdmin {
		return nil, fleet.Errorf(fleet.Forbidden, "a token revokes itself only; ask with the credentials of a user")
	}
	if err := h.Store.RevokeToken(ctx, r.Token); err != nil {
		return nil, err
	}
	return gen.RevokeToken200JSONResponse(list[string](nil)), nil
}

// tokenOf gives a token that the caller may see: their own, and any for an admin.
// Those of others do not exist for them.
func (h *handlers) tokenOf(ctx context.Context, id string) (fleet.Token, error) {
	who := callOf(ctx).principal
	t, err := h.Store.Token(ctx, id)
	if err == nil && t.Owner != who.Name && who.Role != fleet.RoleAdmin {
		return t, fleet.Errorf(fleet.NotFound, "token %q does not exist, or is not yours", id)
	}
	return t, err
}

func (h *handlers) CreateToken(ctx context.Context, r gen.CreateTokenRequestObject) (gen.CreateTokenResponseObject, error) {
	who := callOf(ctx).principal
	wanted, err := newToken(who, *r.Body)
	if err != nil {
		return nil, err
	}
	id, text, digest := authn.NewToken(authn.APITokenPrefix)
	wanted.ID = id
	t, err := h.Store.CreateToken(ctx, wanted, digest)
	if err != nil {
		return nil, err
	}
	callOf(ctx).subject = t.ID
	shown := token(t)
	return gen.CreateToken201JSONResponse{
		Token: string(text.Reveal()), Id: shown.Id, Name: shown.Name, Owner: shown.Owner, Role: shown.Role,
		Operations: shown.Operations, CreatedAt: shown.CreatedAt, ExpiresAt: shown.ExpiresAt,
	}, nil
}

// newToken checks what somebody wants of a new token: no more than they can do
// themselves. Who shows a token, or nothing, gets none, else a token that leaks
// could live on in its children.
func newToken(who authn.Principal, body gen.TokenPost) (fleet.Token, error) {
	t := fleet.Token{Name: body.Name, Owner: who.Name, Role: who.Role, Operations: body.Operations}
	switch {
	case who.TokenID != "":
		return t, fleet.Errorf(fleet.Forbidden, "a token makes no tokens; ask with the credentials of a user")
	case who.Method == anonymous.Method:
		return t, fleet.Errorf(fleet.Forbidden, "a token needs an owner, and self-auths lets everybody in; ask with credentials")
	case strings.ContainsFunc(body.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return t, fleet.InvalidField("name", "must be of characters that can be printed")
	}
	if body.Role != "" {
		t.Role = fleet.Role(body.Role)
	}
	if !who.Role.Covers(t.Role) {
		return t, fleet.Errorf(fleet.Forbidden, "a token can do no more than its maker; you are %s with role %s", who.Name, who.Role)
	}
	for i, operation := range t.Operations {
		field := fmt.Sprintf("operations[%d]", i)
		switch {
		case !authz.Known(operation):
			return t, fleet.InvalidField(field, "is no operationId of the API document that needs credentials")
		case operation == making:
			return t, fleet.InvalidField(field, "is nothing for a token, which makes no tokens")
		case authz.Check(authn.Principal{Role: t.Role}, operation) != nil:
			return t, fleet.InvalidField(field, "is more than role %s may do", t.Role)
		}
	}
	life, err := tokenLife(body.ExpiresIn, fleet.DefaultTokenLife, fleet.MaxTokenLife)
	t.Expires = time.Now().Add(life)
	return t, err
}

// tokenLife is how long a new token is good.
func tokenLife(given *fleet.Duration, otherwise, most time.Duration) (time.Duration, error) {
	life := time.Duration(or(given, fleet.Duration(otherwise)))
	if life < fleet.MinTokenLife || life > most {
		return 0, fleet.InvalidField("expires_in", "must be between %s and %d days", fleet.MinTokenLife, most/(24*time.Hour))
	}
	return life, nil
}

func token(t fleet.Token) gen.Token {
	return gen.Token{
		Id: t.ID, Name: t.Name, Owner: t.Owner, Role: gen.Role(t.Role), Operations: list(t.Operations),
		CreatedAt: fleet.FormatTime(t.Created), ExpiresAt: fleet.FormatTime(t.Expires),
		RevokedAt: fleet.FormatTime(t.Revoked), LastUsedAt: fleet.FormatTime(t.LastUsed),
	}
}
