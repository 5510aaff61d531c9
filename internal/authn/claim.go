package authn

import (
	"crypto/sha256"
	"net/http"
)

// source is where a plug-in finds what proves who asks: a header, or none.
type source string

const (
	authorization source = "Authorization"
	authToken     source = "X-Auth-Token"
	certificate   source = "" // the TLS handshake: nothing that could be guessed
)

// sourceOf gives that of a plug-in; most read Authorization.
func sourceOf(p Authenticator) source {
	if s, ok := p.(interface{ source() source }); ok {
		return s.source()
	}
	return authorization
}

// claimOf gives whom a request claims to come from, and what shows it: the user of
// HTTP Basic, the id of a token of ours, and for other credentials, which hold
// their name hidden or not at all, the credential itself.
func claimOf(r *http.Request) (c claim, shown source) {
	if _, id, _, ok := tokenOf(r); ok {
		return claimed("token", id), authorization
	}
	header := r.Header.Get(string(authorization))
	if user, _, ok := ParseBasic(header); ok {
		return claimed("user", user), authorization
	}
	if header != "" {
		return claimed("authorization", header), authorization
	}
	if header := r.Header.Get(string(authToken)); header != "" {
		return claimed("token elsewhere", header), authToken
	}
	return claim{}, certificate
}

func claimed(kind, name string) claim { return sha256.Sum256([]byte(kind + "\x00" + name)) }
