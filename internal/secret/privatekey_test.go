package secret

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/fleet"
)

func openSSH(t testing.TB, key crypto.PrivateKey) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "a comment")
	require.NoError(t, err)
	return pem.EncodeToMemory(block)
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func ed25519Key(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return key
}

func TestCheckPrivateKeyAccepts(t *testing.T) {
	t.Parallel()
	ed, rs, ec := ed25519Key(t), rsaKey(t, 2048), ecdsaKey(t, elliptic.P384())
	ecDER, err := x509.MarshalECPrivateKey(ec)
	require.NoError(t, err)
	for name, text := range map[string][]byte{
		"ed25519 OpenSSH": openSSH(t, ed),
		"ed25519 PKCS8":   pkcs8(t, ed),
		"rsa OpenSSH":     openSSH(t, rs),
		"rsa PKCS1":       pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rs)}),
		"rsa PKCS8":       pkcs8(t, rs),
		"ecdsa OpenSSH":   openSSH(t, ec),
		"ecdsa SEC1":      pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ecDER}),
		"ecdsa P-256":     openSSH(t, ecdsaKey(t, elliptic.P256())),
		"ecdsa P-521":     pkcs8(t, ecdsaKey(t, elliptic.P521())),
		"CRLF":            []byte(strings.ReplaceAll(string(openSSH(t, ed)), "\n", "\r\n")),
	} {
		require.NoError(t, CheckPrivateKey(text), name)
	}
}

func TestCheckPrivateKeyRefuses(t *testing.T) {
	t.Parallel()
	ed := ed25519Key(t)
	public, err := ssh.NewPublicKey(ed.Public())
	require.NoError(t, err)
	publicDER, err := x509.MarshalPKIXPublicKey(ed.Public())
	require.NoError(t, err)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(ed, "", []byte("pw"))
	require.NoError(t, err)
	//nolint:staticcheck // the old PEM encryption is what clients may still have
	oldLocked, err := x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey(t, 2048)), []byte("pw"), x509.PEMCipherAES128)
	require.NoError(t, err)
	good := openSSH(t, ed)

	for _, c := range []struct {
		name string
		text []byte
		want string
	}{
		{"empty", nil, "not a private key"},
		{"junk", []byte(leak), "not a private key"},
		{"public", ssh.MarshalAuthorizedKey(public), "public key"},
		{"public PEM", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}), "public key"},
		{"certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(leak)}), "certificate"},
		{"OpenSSH with passphrase", pem.EncodeToMemory(locked), "passphrase"},
		{"PEM with passphrase", pem.EncodeToMemory(oldLocked), "passphrase"},
		{"PKCS8 with passphrase", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte(leak)}), "passphrase"},
		{"short RSA", pkcs8(t, rsaKey(t, 1024)), "1024 bits; at least 2048"},
		{"P-224", pkcs8(t, ecdsaKey(t, elliptic.P224())), "P-256"},
		{"DSA", pem.EncodeToMemory(&pem.Block{Type: "DSA PRIVATE KEY", Bytes: []byte(leak)}), "not supported"},
		{"cut", good[:len(good)/2], "not a private key"},
		{"damaged", pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte(leak)}), "damaged"},
		{"other PEM", pem.EncodeToMemory(&pem.Block{Type: leak, Bytes: []byte(leak)}), "not supported"},
	} {
		err := CheckPrivateKey(c.text)
		var e *fleet.Error
		require.True(t, errors.As(err, &e), c.name)
		require.Equal(t, fleet.Invalid, e.Kind, c.name)
		require.Len(t, e.Fields, 1, c.name)
		require.Equal(t, "ssh_priv_key", e.Fields[0].Field, c.name)
		require.Contains(t, err.Error(), c.want, c.name)
		requireNoLeak(t, err.Error())
	}
}

func FuzzCheckPrivateKey(f *testing.F) {
	f.Add(openSSH(f, ed25519Key(f)))
	f.Add(pkcs8(f, ecdsaKey(f, elliptic.P256())))
	f.Add([]byte("ssh-ed25519 AAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := CheckPrivateKey(text); err != nil && fleet.KindOf(err) != fleet.Invalid {
			t.Fatalf("not an Invalid error: %v", err)
		}
	})
}
