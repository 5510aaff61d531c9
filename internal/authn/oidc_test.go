package authn

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"commissaire/internal/authn/authntest"
	"commissaire/internal/fleet"
)

func TestOpenIDClaims(t *testing.T) {
	t.Parallel()
	i := authntest.NewIssuer(t)
	byGroup := map[string]any{"ops": "operator", "sre": "admin", "all": "viewer"}
	for name, test := range map[string]struct {
		options map[string]any
		claims  map[string]any
		who     string // "" when refused
		role    fleet.Role
	}{
		"nothing said":               {nil, nil, "alice", fleet.RoleViewer},
		"role of everybody":          {map[string]any{"role": "operator"}, nil, "alice", fleet.RoleOperator},
		"another name":               {map[string]any{"username_claim": "preferred_username"}, map[string]any{"preferred_username": "al"}, "al", fleet.RoleViewer},
		"another name, not there":    {map[string]any{"username_claim": "preferred_username"}, nil, "", ""},
		"mail":                       {map[string]any{"username_claim": "email"}, map[string]any{"email": "a@b.c"}, "a@b.c", fleet.RoleViewer},
		"mail, verified":             {map[string]any{"username_claim": "email"}, map[string]any{"email": "a@b.c", "email_verified": true}, "a@b.c", fleet.RoleViewer},
		"mail, not verified":         {map[string]any{"username_claim": "email"}, map[string]any{"email": "a@b.c", "email_verified": false}, "", ""},
		"mail, verified in words":    {map[string]any{"username_claim": "email"}, map[string]any{"email": "a@b.c", "email_verified": "true"}, "", ""},
		"a role":                     {map[string]any{"roles_claim": "role"}, map[string]any{"role": "admin"}, "alice", fleet.RoleAdmin},
		"the highest of several":     {map[string]any{"roles_claim": "roles"}, map[string]any{"roles": []string{"viewer", "operator", "x"}}, "alice", fleet.RoleOperator},
		"no role of ours":            {map[string]any{"roles_claim": "roles"}, map[string]any{"roles": []any{"root", 7, nil}}, "alice", fleet.RoleViewer},
		"the role of a join token":   {map[string]any{"roles_claim": "roles"}, map[string]any{"roles": "join"}, "alice", fleet.RoleViewer},
		"groups":                     {map[string]any{"roles_claim": "groups", "role_map": byGroup}, map[string]any{"groups": []string{"all", "sre", "ops"}}, "alice", fleet.RoleAdmin},
		"groups, none of them":       {map[string]any{"roles_claim": "groups", "role_map": byGroup}, map[string]any{"groups": []string{"x"}}, "alice", fleet.RoleViewer},
		"a role where groups are":    {map[string]any{"roles_claim": "groups", "role_map": byGroup}, map[string]any{"groups": []string{"admin"}}, "alice", fleet.RoleViewer},
		"a claim in a claim":         {map[string]any{"roles_claim": "realm_access.roles"}, map[string]any{"realm_access": map[string]any{"roles": []string{"admin"}}}, "alice", fleet.RoleAdmin},
		"a claim with dots":          {map[string]any{"roles_claim": "https://a.b/roles"}, map[string]any{"https://a.b/roles": "admin"}, "alice", fleet.RoleAdmin},
		"the operator knows better":  {map[string]any{"roles_claim": "role", "roles": map[string]any{"alice": "viewer"}}, map[string]any{"role": "admin"}, "alice", fleet.RoleViewer},
		"one audience of several":    {nil, map[string]any{"aud": []string{"x", "commissaire"}}, "alice", fleet.RoleViewer},
		"the audience as a text":     {nil, map[string]any{"aud": "commissaire"}, "alice", fleet.RoleViewer},
		"clocks differ a little":     {nil, map[string]any{"nbf": time.Now().Add(time.Minute).Unix()}, "alice", fleet.RoleViewer},
		"a name that cannot be used": {nil, map[string]any{"sub": "a\x00b"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := map[string]any{"issuer": i.URL, "client_id": "commissaire"}
			for k, v := range test.options {
				options[k] = v
			}
			who, err := build(t, "oidc", nil, options).Authenticate(t.Context(), withBearer(i.Token(t, test.claims))(t))
			if test.who == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, Principal{Name: test.who, Role: test.role}, who)
		})
	}
}

func TestOpenIDKeysChange(t *testing.T) {
	t.Parallel()
	i := authntest.NewIssuer(t)
	s := outsider(t, &i.Server, "oidc", map[string]any{"issuer": i.URL, "client_id": "commissaire"})
	token := func() show { return withBearer(i.Token(t, map[string]any{"jti": time.Now().String()})) }
	in := func(shown show) error {
		_, err := s.plugin.Authenticate(t.Context(), shown(t))
		return err
	}
	require.Zero(t, i.Requests(), "it is asked when it is needed")
	old := token()
	require.NoError(t, in(old))
	require.Equal(t, 2, i.Requests(), "the metadata and the keys")
	require.NoError(t, in(token()))
	require.Equal(t, 2, i.Requests(), "keys are kept")

	i.AddKey(t, jose.ES256)
	require.ErrorIs(t, in(token()), ErrDenied, "the keys were read a moment ago")
	require.Equal(t, 2, i.Requests(), "so strangers cannot make us read them with each request")
	s.pass(keysEvery)
	require.NoError(t, in(token()), "a new key is learnt")
	require.Equal(t, 3, i.Requests())
	require.ErrorIs(t, in(withBearer(i.TokenOfOthers(t))), ErrDenied)
	s.pass(keysEvery)
	require.ErrorIs(t, in(withBearer(i.TokenOfOthers(t))), ErrDenied)
	require.Equal(t, 3, i.Requests(), "a key that is known is not read again for a bad signature")

	i.Break(authntest.Down)
	s.pass(keysFor)
	require.NoError(t, in(old), "while the issuer is down, the keys it had are good")
	i.Break(authntest.None)
	i.DropOldKeys()
	s.pass(keysFor)
	require.ErrorIs(t, in(old), ErrDenied, "a key that the issuer has dropped is good for keysFor at most")
	require.NoError(t, in(token()))
}

func TestOpenIDIssuerThatNamesAnother(t *testing.T) {
	t.Parallel()
	i := authntest.NewIssuer(t)
	i.ClaimToBe("https://elsewhere.example")
	_, err := build(t, "oidc", nil, map[string]any{"issuer": i.URL, "client_id": "commissaire"}).Authenticate(t.Context(), withBearer(i.Token(t, nil))(t))
	require.ErrorContains(t, err, "discover")
	require.NotErrorIs(t, err, ErrDenied)
}

// Whoever needs keys while somebody reads them waits for that, also when the reader
// gives up.
func TestOpenIDKeysAreReadOnce(t *testing.T) {
	t.Parallel()
	i := authntest.NewIssuer(t)
	a := build(t, "oidc", nil, map[string]any{"issuer": i.URL, "client_id": "commissaire"})
	var all sync.WaitGroup
	for range 20 {
		r := withBearer(i.Token(t, nil))(t)
		all.Go(func() {
			if _, err := a.Authenticate(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, 2, i.Requests())
}

func FuzzOpenIDClaims(f *testing.F) {
	for _, path := range []string{"", "roles", "a.b", "a..b", "."} {
		f.Add(path, []byte(`{"sub":"alice","roles":["admin"],"a":{"b":"viewer"},"email_verified":false}`))
	}
	f.Add("sub", []byte(`{"sub":{}}`))
	f.Add("x", []byte(`{"sub":"","x":[[["admin"]]]}`))
	f.Fuzz(func(t *testing.T, path string, payload []byte) {
		var said map[string]any
		if json.Unmarshal(payload, &said) != nil {
			return
		}
		id, err := claims{username: "sub", roles: path}.read(said)
		if err == nil && (id.name == "" || (id.role != "" && !fleet.RoleAdmin.Covers(id.role))) {
			t.Fatalf("%s gave %v", payload, id)
		}
	})
}

// Keys are what a stranger would be behind a broken name server.
func FuzzKeys(f *testing.F) {
	for _, seed := range []string{
		`{"keys":[]}`, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, `{"keys":[{"kty":"RSA","n":"","e":""}]}`, `{"keys":[null,7,"x",{}]}`, `{`, `[]`,
		`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := readKeys(body)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys with error %v", len(keys), err)
		}
		for _, k := range keys {
			if !k.IsPublic() {
				t.Fatal("took a key that is no public one")
			}
		}
	})
}
