package authn

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
)

// newKey makes a key of this process for macOf.
func newKey() (key [sha256.Size]byte) {
	_, _ = rand.Read(key[:]) // never fails, see crypto/rand
	return key
}

// macOf stands for a credential where the credential itself must not be kept.
func macOf(key [sha256.Size]byte, parts ...string) (sum [sha256.Size]byte) {
	m := hmac.New(sha256.New, key[:])
	for _, p := range parts {
		inner := sha256.Sum256([]byte(p)) // fixed width, so that parts cannot run into each other
		m.Write(inner[:])
	}
	m.Sum(sum[:0])
	return sum
}
