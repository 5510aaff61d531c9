package authn

import (
	"context"
	"net/http"
	"slices"

	"commissaire/internal/fleet"
)

// APIToken is the plug-in for tokens of our own: API tokens as a bearer token
// (RFC 6750) or as the password of HTTP Basic with any user, for clients that
// know nothing else, and join tokens as a bearer token. They are looked up with
// every request, so that a revoked one is refused at once.
type APIToken struct {
	tokens Tokens
}

// NewAPIToken makes the plug-in.
func NewAPIToken(tokens Tokens) *APIToken { return &APIToken{tokens: tokens} }

// Name is "apitoken".
func (*APIToken) Name() string { return "apitoken" }

// Authenticate checks the token of a request.
func (a *APIToken) Authenticate(ctx context.Context, r *http.Request) (Principal, error) {
	prefix, id, digest, ok := tokenOf(r)
	if !ok {
		return Principal{}, errAbsent
	}
	if prefix == JoinTokenPrefix {
		t, err := a.tokens.VerifyJoinToken(ctx, id, digest)
		if err != nil {
			return Principal{}, deniedWhenNotFound(err)
		}
		return Principal{Name: "jointoken:" + t.ID, Role: fleet.RoleJoin, TokenID: t.ID}, nil
	}
	t, err := a.tokens.VerifyToken(ctx, id, digest)
	if err != nil {
		return Principal{}, deniedWhenNotFound(err)
	}
	return Principal{Name: t.Owner, Role: t.Role, Operations: slices.Clone(t.Operations), TokenID: t.ID}, nil
}

// tokenOf finds a well-formed token of ours in a request.
func tokenOf(r *http.Request) (prefix, id string, digest [32]byte, ok bool) {
	header := r.Header.Get("Authorization")
	if text, found := ParseBearer(header); found {
		return ParseToken(text)
	}
	if _, password, found := ParseBasic(header); found {
		if prefix, id, digest, ok = ParseToken(password); prefix == APITokenPrefix {
			return prefix, id, digest, ok
		}
	}
	return "", "", digest, false
}

func deniedWhenNotFound(err error) error {
	if fleet.KindOf(err) == fleet.NotFound {
		return ErrDenied
	}
	return err
}
