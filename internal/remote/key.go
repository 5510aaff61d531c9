package remote

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// Key names one run. The same key is never run twice on a host.
type Key struct {
	Operation, Host, Step string
	Attempt               int
}

// name is the key's directory on the host: a hash, which keeps keys apart, then
// what a person on the host can read. The hash comes first so that no name is the
// beginning of another one.
func (k Key) name() string {
	parts := []string{k.Operation, k.Host, k.Step, strconv.Itoa(k.Attempt)}
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '_'
	}, strings.Join(parts, "."))
	if len(readable) > 150 {
		readable = readable[:150] // with the hash below the 255 of every file system
	}
	return digest(parts)[:32] + "-" + readable
}

// digest is a SHA-256 over words that keeps their bounds.
func digest(words []string) string {
	h := sha256.New()
	for _, w := range words {
		_ = binary.Write(h, binary.BigEndian, uint64(len(w)))
		h.Write([]byte(w))
	}
	return hex.EncodeToString(h.Sum(nil))
}
