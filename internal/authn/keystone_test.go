package authn

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/authn/authntest"
)

func TestKeystoneNames(t *testing.T) {
	t.Parallel()
	k := authntest.NewKeystone(t)
	k.SetPassword("Home", "alice", "pw")
	home := map[string]any{"url": k.URL, "domain": "Home"}
	who, err := build(t, "keystonepasswordauth", nil, home).Authenticate(t.Context(), withBasic("alice:pw")(t))
	require.NoError(t, err)
	require.Equal(t, "alice", who.Name)

	hour := time.Now().Add(time.Hour)
	tokens := build(t, "keystonetokenauth", nil, home)
	for domain, want := range map[string]string{"Home": "alice", "Default": "alice@Default", "Elsewhere": "alice@Elsewhere"} {
		who, err := tokens.Authenticate(t.Context(), withAuthToken(k.Token(domain, "alice", hour))(t))
		require.NoError(t, err)
		require.Equal(t, want, who.Name, "nobody is taken for a user of another domain")
	}
	for _, name := range []string{"a\nb", string(make([]byte, 300))} {
		_, err := tokens.Authenticate(t.Context(), withAuthToken(k.Token("Home", name, hour))(t))
		require.ErrorContains(t, err, "not plain text")
	}
}

func TestKeystoneURLs(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"http://k:5000":                        "http://k:5000/v3/auth/tokens",
		"http://k:5000/":                       "http://k:5000/v3/auth/tokens",
		"http://k:5000/v3":                     "http://k:5000/v3/auth/tokens",
		"http://k:5000/v3/":                    "http://k:5000/v3/auth/tokens",
		"http://k:5000/v3/auth/tokens":         "http://k:5000/v3/auth/tokens",
		"http://k:5000/v3/auth/tokens/":        "http://k:5000/v3/auth/tokens",
		"https://cloud.example/identity":       "https://cloud.example/identity/v3/auth/tokens",
		"https://cloud.example/identity/v3///": "https://cloud.example/identity/v3/auth/tokens",
	} {
		u, err := url.Parse(given)
		require.NoError(t, err)
		require.Equal(t, want, newKeystone(nil, u, "Default").url.String())
	}
}

// A wrong URL is the operator's mistake, not the caller's.
func TestKeystoneAtAnotherPath(t *testing.T) {
	t.Parallel()
	k := authntest.NewKeystone(t)
	_, err := build(t, "keystonetokenauth", nil, map[string]any{"url": k.URL + "/identity"}).Authenticate(t.Context(), withAuthToken("x")(t))
	require.ErrorContains(t, err, "answers 404")
	require.NotErrorIs(t, err, ErrDenied)
}

// A token that ends sooner than VerifiedFor is believed no longer than it lives.
func TestKeystoneTokenIsNotBelievedBeyondItsEnd(t *testing.T) {
	t.Parallel()
	k := authntest.NewKeystone(t)
	s := outsider(t, &k.Server, "keystonetokenauth", map[string]any{"url": k.URL})
	token := withAuthToken(k.Token("Default", "alice", time.Now().Add(20*time.Second)))
	_, err := s.plugin.Authenticate(t.Context(), token(t))
	require.NoError(t, err)
	s.pass(21 * time.Second)
	_, err = s.plugin.Authenticate(t.Context(), token(t))
	require.ErrorIs(t, err, ErrDenied)
}

func FuzzKeystoneAnswer(f *testing.F) {
	for _, seed := range []struct {
		status int
		token  string
		body   string
	}{
		{201, "t", `{"token":{"expires_at":"2026-11-21T17:00:00.000000Z","user":{"name":"alice","domain":{"id":"default","name":"Default"}}}}`},
		{201, "", `{"token":{"user":{"name":"alice"}}}`},
		{201, "t", `{"token":{"user":{"name":""}}}`},
		{201, "t", `{"token":{"expires_at":null,"user":{"name":"a","domain":null}}}`},
		{201, "t", `{"token":{"expires_at":"tomorrow","user":{"name":"a"}}}`},
		{201, "t", `[]`}, {200, "t", ``}, {401, "t", `{"error":{"code":401}}`}, {404, "", `{"error":{"code":404}}`}, {404, "", `<html>`},
		{300, "t", `{}`}, {500, "t", `{}`},
	} {
		f.Add(seed.status, seed.token, seed.body)
	}
	k := newKeystone(nil, &url.URL{Scheme: "https", Host: "keystone"}, "Default")
	f.Fuzz(func(t *testing.T, status int, token, body string) {
		header := http.Header{}
		if token != "" {
			header.Set("X-Subject-Token", token)
		}
		id, err := k.read(answer{status: status, header: header, body: []byte(body)})
		if err == nil && (id.name == "" || token == "" || (status != 200 && status != 201)) {
			t.Fatalf("status %d, token %q and %q let in %q", status, token, body, id.name)
		}
		if err != nil && id != (identity{}) {
			t.Fatalf("refused, but gave %v", id)
		}
	})
}
