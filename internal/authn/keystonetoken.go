package authn

import (
	"context"
	"net/http"
	"strings"
)

// keystoneTokens is the provider of keystonetokenauth: it sends the X-Auth-Token
// of the request to Keystone.
type keystoneTokens struct{ keystone }

func (keystoneTokens) reads() source { return authToken }

func (keystoneTokens) credential(r *http.Request) []string {
	token := r.Header.Get("X-Auth-Token")
	if token == "" || len(token) > maxBearer || looksLikeToken(token) {
		return nil
	}
	return []string{token}
}

func (k keystoneTokens) verify(ctx context.Context, credential []string) (identity, error) {
	token := credential[0]
	if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return identity{}, ErrDenied // Keystone makes no such tokens
	}
	return k.ask(ctx, keystoneIdentity{Methods: []string{"token"}, Token: &keystoneToken{ID: token}})
}
