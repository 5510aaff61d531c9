package secret

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func TestNewKeyPair(t *testing.T) {
	t.Parallel()
	private, public, err := NewKeyPair()
	require.NoError(t, err)
	require.NoError(t, CheckPrivateKey(private.Reveal()), "it can log in")
	signer, err := ssh.ParsePrivateKey(private.Reveal())
	require.NoError(t, err)
	key, comment, _, rest, err := ssh.ParseAuthorizedKey([]byte(public))
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, "commissaire", comment)
	require.Equal(t, key.Marshal(), signer.PublicKey().Marshal(), "the halves belong together")
	_, other, err := NewKeyPair()
	require.NoError(t, err)
	require.NotEqual(t, public, other)
}
