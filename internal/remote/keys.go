package remote

import (
	"crypto/sha256"
	"sync"

	"commissaire/internal/secret"

	"golang.org/x/crypto/ssh"
)

// mostKeys bounds how many parsed keys are kept. A fleet has a handful.
const mostKeys = 64

// keys remembers private keys that were parsed, since most hosts of a fleet share one,
// and to check an RSA key of 3072 bits takes longer than all else of a login together.
type keys struct {
	mu     sync.Mutex
	parsed map[[sha256.Size]byte]func() (ssh.Signer, error)
}

// parse is parseKey, done once for each key by whoever comes first.
func (k *keys) parse(key secret.Text) (ssh.Signer, error) {
	id := sha256.Sum256(key.Reveal())
	k.mu.Lock()
	parse := k.parsed[id]
	if parse == nil {
		if k.parsed == nil || len(k.parsed) >= mostKeys {
			k.parsed = map[[sha256.Size]byte]func() (ssh.Signer, error){}
		}
		parse = sync.OnceValues(func() (ssh.Signer, error) { return parseKey(key) })
		k.parsed[id] = parse
	}
	k.mu.Unlock()
	return parse()
}
