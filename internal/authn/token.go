package authn

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"strings"

	"commissaire/internal/secret"
)

// The prefixes of tokens, so that people and secret scanners can tell them apart.
const (
	APITokenPrefix  = "cmst"
	JoinTokenPrefix = "cmsj"
)

// A token's text is PREFIX_ID_SECRET. The id is public and names the token in
// lists and logs; it has small letters and digits only. The secret is 256 random
// bits, so one round of SHA-256 keeps it well enough: it cannot be guessed from
// the digest, other than a password.
const (
	tokenIDBytes     = 10 // 16 characters of base32
	tokenSecretBytes = 32 // 43 characters of base64url
)

var tokenIDs = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewToken makes a token: its id, the text to hand out once, and the digest to
// keep.
func NewToken(prefix string) (id string, text secret.Text, digest [sha256.Size]byte) {
	var b [tokenIDBytes + tokenSecretBytes]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	id = tokenIDs.EncodeToString(b[:tokenIDBytes])
	hidden := base64.RawURLEncoding.EncodeToString(b[tokenIDBytes:])
	return id, secret.NewText([]byte(prefix + "_" + id + "_" + hidden)), sha256.Sum256([]byte(hidden))
}

// ParseToken takes the text of a token apart. Whether there is such a token is
// for the store to say.
func ParseToken(text string) (prefix, id string, digest [sha256.Size]byte, ok bool) {
	prefix, rest, _ := strings.Cut(text, "_")
	id, hidden, _ := strings.Cut(rest, "_")
	if !isTokenPrefix(prefix) || len(id) != tokenIDs.EncodedLen(tokenIDBytes) ||
		len(hidden) != base64.RawURLEncoding.EncodedLen(tokenSecretBytes) {
		return "", "", digest, false
	}
	if _, err := tokenIDs.DecodeString(id); err != nil || strings.ContainsAny(id, "\r\n") {
		return "", "", digest, false
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(hidden); err != nil || strings.ContainsAny(hidden, "\r\n") {
		return "", "", digest, false
	}
	return prefix, id, sha256.Sum256([]byte(hidden)), true
}

func isTokenPrefix(s string) bool { return s == APITokenPrefix || s == JoinTokenPrefix }

// looksLikeToken says whether a text is meant as a token of ours, good or not.
// Such a text never goes to anybody else.
func looksLikeToken(text string) bool {
	prefix, _, found := strings.Cut(text, "_")
	return found && isTokenPrefix(prefix)
}
