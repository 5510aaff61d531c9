package remote

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"testing"
	"testing/synctest"
	"time"

	"commissaire/internal/secret"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func sealed(t testing.TB, key any) secret.Text {
	block, err := ssh.MarshalPrivateKey(key, "")
	require.NoError(t, err)
	return secret.NewText(pem.EncodeToMemory(block))
}

func TestKeysAreParsedOnce(t *testing.T) {
	t.Parallel()
	var k keys
	first, err := k.parse(secret.NewText([]byte("no key")))
	require.Error(t, err)
	require.Nil(t, first)
	var texts []secret.Text
	for range mostKeys + 1 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		texts = append(texts, sealed(t, key))
	}
	for _, text := range texts {
		a, err := k.parse(text)
		require.NoError(t, err)
		b, err := k.parse(secret.NewText(text.Reveal()))
		require.NoError(t, err)
		require.Same(t, a, b)
		require.LessOrEqual(t, len(k.parsed), mostKeys)
	}
	a, err := k.parse(texts[0])
	require.NoError(t, err)
	b, err := k.parse(texts[1])
	require.NoError(t, err)
	require.NotEqual(t, a.PublicKey().Marshal(), b.PublicKey().Marshal())
}

func TestKeysAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k keys
		var texts []secret.Text
		for range 2 {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			require.NoError(t, err)
			texts = append(texts, sealed(t, key))
		}
		first, err := k.parse(texts[0])
		require.NoError(t, err)
		_, err = k.parse(texts[1])
		require.NoError(t, err)
		for range 3 {
			time.Sleep(keyIdle / 2)
			again, err := k.parse(texts[0])
			require.NoError(t, err)
			require.Same(t, first, again, "it is in use")
		}
		require.Len(t, k.parsed, 1)
	})
}

func BenchmarkParseKey(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	require.NoError(b, err)
	text := sealed(b, key)
	b.Run("each time", func(b *testing.B) {
		for b.Loop() {
			_, err := parseKey(text)
			require.NoError(b, err)
		}
	})
	b.Run("kept", func(b *testing.B) {
		var k keys
		for b.Loop() {
			_, err := k.parse(text)
			require.NoError(b, err)
		}
	})
}
