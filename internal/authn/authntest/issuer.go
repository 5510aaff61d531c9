package authntest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is an OpenID Connect issuer with discovery and keys. It signs whatever it
// is asked to.
type Issuer struct {
	Server

	mu     sync.Mutex
	made   int
	keys   []issuerKey // the first one signs
	claims string      // issuer that the metadata name, "" for its URL
}

type issuerKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

// NewIssuer starts one with an RSA key; it ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{}
	i.AddKey(t, jose.RS256)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		name := i.URL
		if i.claims != "" {
			name = i.claims
		}
		reply(w, http.StatusOK, map[string]any{
			"issuer": name, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "none", "HS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		// Issuers list keys for other ends and of other kinds, too.
		keys := []any{
			map[string]any{"kty": "oct", "kid": "shared", "k": base64.RawURLEncoding.EncodeToString([]byte("not for here"))},
			map[string]any{"kty": "new", "kid": "unheard of"},
		}
		for _, k := range i.keys {
			keys = append(keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"})
		}
		reply(w, http.StatusOK, map[string]any{"keys": keys})
	})
	i.start(t, mux)
	return i
}

// AddKey adds a key that signs from now on: RS256 or ES256.
func (i *Issuer) AddKey(t testing.TB, a jose.SignatureAlgorithm) {
	t.Helper()
	var private crypto.Signer
	var err error
	if a == jose.ES256 {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatalf("key of the issuer: %v", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.made++
	i.keys = append([]issuerKey{{id: "key" + strconv.Itoa(i.made), algorithm: a, private: private}}, i.keys...)
}

// DropOldKeys leaves the key that signs.
func (i *Issuer) DropOldKeys() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[:1]
}

// ClaimToBe makes the metadata name another issuer.
func (i *Issuer) ClaimToBe(url string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims = url
}

// Claims are good for an hour, for the audience "commissaire" and the subject
// "alice", with changes: a nil value takes a claim away.
func (i *Issuer) Claims(changes map[string]any) map[string]any {
	claims := map[string]any{
		"iss": i.URL, "sub": "alice", "aud": []string{"commissaire"}, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// Token signs Claims with the newest key.
func (i *Issuer) Token(t testing.TB, changes map[string]any) string {
	t.Helper()
	i.mu.Lock()
	k := i.keys[0]
	i.mu.Unlock()
	return sign(t, k.algorithm, jose.JSONWebKey{Key: k.private, KeyID: k.id}, i.Claims(changes))
}

// TokenOfOthers is signed with a key that is not the issuer's, but has its id.
func (i *Issuer) TokenOfOthers(t testing.TB) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	id := i.keys[0].id
	i.mu.Unlock()
	return sign(t, jose.RS256, jose.JSONWebKey{Key: private, KeyID: id}, i.Claims(nil))
}

// TokenByPublicKey is signed by HMAC with the public key as the secret, which
// everybody knows.
func (i *Issuer) TokenByPublicKey(t testing.TB) string {
	t.Helper()
	i.mu.Lock()
	k := i.keys[0]
	i.mu.Unlock()
	public, err := json.Marshal(jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id})
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, jose.HS256, jose.JSONWebKey{Key: public, KeyID: k.id}, i.Claims(nil))
}

// Unsigned has algorithm "none" and no signature.
func (i *Issuer) Unsigned(t testing.TB) string {
	t.Helper()
	claims, err := json.Marshal(i.Claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims) + "."
}

func sign(t testing.TB, a jose.SignatureAlgorithm, key jose.JSONWebKey, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a, Key: key}, nil)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return text
}
