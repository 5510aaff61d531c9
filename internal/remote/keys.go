package remote

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"commissaire/internal/secret"

	"golang.org/x/crypto/ssh"
)

// Parsed keys that are kept. A fleet has a handful; those of hosts that are gone, or that
// were replaced, need not be in memory for as long as the process lives.
const (
	mostKeys = 64
	keyIdle  = time.Hour // after which one that nobody used is forgotten, by the next login
)

// keys remembers private keys that were parsed, since most hosts of a fleet share one,
// and to check an RSA key of 3072 bits takes longer than all else of a login together.
type keys struct {
	mu     sync.Mutex
	parsed map[[sha256.Size]byte]parsedKey
}

type parsedKey struct {
	get  func() (ssh.Signer, error)
	used time.Time // last
}

// parse is parseKey, done once for each key by whoever comes first.
func (k *keys) parse(key secret.Text) (ssh.Signer, error) {
	id := sha256.Sum256(key.Reveal())
	now := time.Now()
	k.mu.Lock()
	maps.DeleteFunc(k.parsed, func(_ [sha256.Size]byte, p parsedKey) bool { return now.Sub(p.used) > keyIdle })
	p, kept := k.parsed[id]
	if !kept {
		if k.parsed == nil || len(k.parsed) >= mostKeys {
			k.parsed = map[[sha256.Size]byte]parsedKey{}
		}
		p.get = sync.OnceValues(func() (ssh.Signer, error) { return parseKey(key) })
	}
	p.used = now
	k.parsed[id] = p
	k.mu.Unlock()
	return p.get()
}
