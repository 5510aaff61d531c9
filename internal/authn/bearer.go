package authn

import (
	"strings"
)

// maxBearer bounds a bearer token, in bytes. Tokens that carry many groups have
// a few thousand.
const maxBearer = 16 << 10

// ParseBearer takes the token out of an Authorization header (RFC 6750). The
// scheme's case does not matter. Only what the RFC lets a token consist of is
// taken, so it can be sent on as it is.
func ParseBearer(header string) (token string, ok bool) {
	scheme, rest, found := strings.Cut(header, " ")
	if !found || !strings.EqualFold(scheme, "bearer") || len(rest) > maxBearer {
		return "", false
	}
	token = strings.Trim(rest, " ")
	// b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
	body := strings.TrimRight(token, "=")
	if body == "" || strings.ContainsFunc(body, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-._~+/", c))
	}) {
		return "", false
	}
	return token, true
}
