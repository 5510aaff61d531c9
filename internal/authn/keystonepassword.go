package authn

import (
	"context"
	"net/http"
	"unicode/utf8"
)

// keystonePasswords is the provider of keystonepasswordauth: it sends user and
// password of HTTP Basic to Keystone.
type keystonePasswords struct{ keystone }

func (keystonePasswords) reads() source { return authorization }

// credential leaves tokens of our own alone: they go to nobody else.
func (keystonePasswords) credential(r *http.Request) []string {
	user, password, ok := ParseBasic(r.Header.Get("Authorization"))
	if !ok || looksLikeToken(password) {
		return nil
	}
	return []string{user, password}
}

func (k keystonePasswords) verify(ctx context.Context, credential []string) (identity, error) {
	user, password := credential[0], credential[1]
	if !utf8.ValidString(user) || !utf8.ValidString(password) {
		return identity{}, ErrDenied // JSON would make another text of it
	}
	return k.ask(ctx, keystoneIdentity{
		Methods:  []string{"password"},
		Password: &keystonePassword{User: keystoneUser{Name: user, Password: password, Domain: keystoneDomain{Name: k.domain}}},
	})
}
