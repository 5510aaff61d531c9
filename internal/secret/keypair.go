package secret

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// keyComment says on a host whose key it is.
const keyComment = "commissaire"

// NewKeyPair makes an ed25519 key pair for logging in by SSH: the private half in
// OpenSSH form without a passphrase, the public one as a line of authorized_keys.
func NewKeyPair() (private Text, public string, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Text{}, "", fmt.Errorf("make a key pair: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, keyComment)
	if err != nil {
		return Text{}, "", fmt.Errorf("make a key pair: %w", err)
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		return Text{}, "", fmt.Errorf("make a key pair: %w", err)
	}
	public = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line))) + " " + keyComment
	return NewText(pem.EncodeToMemory(block)), public, nil
}
