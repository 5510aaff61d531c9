package secret

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"strings"

	"golang.org/x/crypto/ssh"

	"commissaire/internal/fleet"
)

// MinRSABits is the smallest RSA key that is accepted (NIST SP 800-131A).
const MinRSABits = 2048

// privateKeyField is the request member that carries the key.
const privateKeyField = "ssh_priv_key"

// CheckPrivateKey says whether text is a private key that can log in to hosts
// without asking anybody: ed25519, ECDSA (P-256, P-384, P-521) or RSA of at least 2048
// bits, in OpenSSH or PEM form, without a passphrase. The error is
// *fleet.Error of kind Invalid and never repeats any of the text.
func CheckPrivateKey(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil {
		if looksPublic(text) {
			return fleet.InvalidField(privateKeyField, "is a public key; send the private key that belongs to it")
		}
		return fleet.InvalidField(privateKeyField, "is not a private key in OpenSSH or PEM form")
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		return errPassphrase()
	}
	if strings.Contains(block.Type, "PUBLIC KEY") || strings.Contains(block.Type, "CERTIFICATE") {
		return fleet.InvalidField(privateKeyField, "is a public key or a certificate; send the private key that belongs to it")
	}
	key, err := ssh.ParseRawPrivateKey(text)
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) {
		return errPassphrase()
	}
	if err != nil {
		return fleet.InvalidField(privateKeyField, "is damaged or of a kind that is not supported; use ed25519, ECDSA or RSA in OpenSSH or PEM form")
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < MinRSABits {
			return fleet.InvalidField(privateKeyField, "is an RSA key of %d bits; at least %d are needed", k.N.BitLen(), MinRSABits)
		}
	case *ecdsa.PrivateKey, *ed25519.PrivateKey, ed25519.PrivateKey:
	default:
		return fleet.InvalidField(privateKeyField, "is of a kind that is not supported; use ed25519, ECDSA or RSA")
	}
	if _, err := ssh.NewSignerFromKey(key); err != nil {
		return fleet.InvalidField(privateKeyField, "cannot be used for SSH; use ed25519, ECDSA (P-256, P-384, P-521) or RSA")
	}
	return nil
}

func errPassphrase() error {
	return fleet.InvalidField(privateKeyField, "is protected by a passphrase, which nobody can type later; send a key without one (ssh-keygen -p -N '' -f FILE)")
}

func looksPublic(text []byte) bool {
	_, _, _, _, err := ssh.ParseAuthorizedKey(bytes.TrimSpace(text))
	return err == nil
}
