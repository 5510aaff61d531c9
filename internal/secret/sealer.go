package secret

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Sealer seals and opens secrets with the keys of one key file. It is safe for
// concurrent use.
type Sealer struct {
	aead    tink.AEAD
	primary uint32
	ids     []uint32
}

func newSealer(keys *keyset.Handle) (*Sealer, error) {
	primary, err := keys.Primary()
	if err != nil {
		return nil, fmt.Errorf("no key in use: %w", err)
	}
	a, err := aead.New(keys)
	if err != nil {
		return nil, fmt.Errorf("not a key set for sealing: %w", err)
	}
	s := &Sealer{aead: a, primary: primary.KeyID()}
	for i := range keys.Len() {
		key, err := keys.Entry(i)
		if err != nil {
			return nil, err
		}
		s.ids = append(s.ids, key.KeyID())
	}
	return s, nil
}

// Row names the place a sealed value stands in, for Seal and Open. Different
// places give different names, whatever characters the parts hold.
func Row(tenant, table, row string) string {
	return fmt.Sprintf("%q/%q/%q", tenant, table, row)
}

// Seal encrypts plaintext for one place (see Row) with the key in use.
func (s *Sealer) Seal(plaintext Text, row string) ([]byte, error) {
	sealed, err := s.aead.Encrypt(plaintext.Reveal(), []byte(row))
	if err != nil {
		return nil, fmt.Errorf("seal a secret of %s: %w", row, err)
	}
	return sealed, nil
}

// Open decrypts what Seal made for the same place. It fails when a bit was
// changed, when the value was moved to another row, and when its key is not in
// the key file any more.
func (s *Sealer) Open(sealed []byte, row string) (Text, error) {
	plain, err := s.aead.Decrypt(sealed, []byte(row))
	if err != nil {
		return Text{}, fmt.Errorf("open the sealed secret of %s: it was changed, moved from another row, or its key is missing in the key file", row)
	}
	return NewText(plain), nil
}

// Reseal opens sealed and seals it with the key in use. changed is false, and
// the value the same, when that key sealed it already.
func (s *Sealer) Reseal(sealed []byte, row string) (out []byte, changed bool, err error) {
	id, err := KeyID(sealed)
	if err != nil {
		return nil, false, err
	}
	plain, err := s.Open(sealed, row)
	if err != nil {
		return nil, false, err
	}
	if id == s.primary {
		return sealed, false, nil
	}
	out, err = s.Seal(plain, row)
	return out, err == nil, err
}

// PrimaryKeyID is the id of the key that seals now.
func (s *Sealer) PrimaryKeyID() uint32 { return s.primary }

// KeyIDs are the ids of all keys, in the order of the key file: any of them
// opens, one seals.
func (s *Sealer) KeyIDs() []uint32 { return slices.Clone(s.ids) }

// Tink's prefix of a sealed value: one version byte, then the id of the key,
// big endian (https://developers.google.com/tink/wire-format).
const (
	tinkPrefixVersion = 1
	tinkPrefixSize    = 5
)

// KeyID reads from a sealed value which key sealed it.
func KeyID(sealed []byte) (uint32, error) {
	if len(sealed) < tinkPrefixSize || sealed[0] != tinkPrefixVersion {
		return 0, errors.New("not a sealed secret: the key id is missing at its start")
	}
	return binary.BigEndian.Uint32(sealed[1:tinkPrefixSize]), nil
}
