package authn

import (
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/authn/authntest"
	"commissaire/internal/fleet"
)

func TestBuildOrder(t *testing.T) {
	t.Parallel()
	names := func(specs ...Spec) []string {
		_, tokens := openStore(t)
		c, err := Build(t.Context(), specs, tokens, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		var names []string
		for _, p := range c.plugins {
			names = append(names, p.Name())
		}
		return names
	}
	basic := Spec{Name: "commissaire_http.authentication.httpbasicauth", Options: map[string]any{"users": map[string]any{}}}
	cert := Spec{Name: "httpauthclientcert"}
	kube := Spec{Name: "commissaire_http.authentication.kubeauth", Options: map[string]any{"server-url": "https://kube:6443"}}
	require.Equal(t, []string{"httpbasicauth", "httpauthclientcert", "kubernetesbearertokenauth", "apitoken"}, names(basic, cert, kube))
	require.Equal(t, []string{"apitoken", "httpauthclientcert", "httpbasicauth"}, names(Spec{Name: "apitoken"}, cert, basic))
	require.Empty(t, names(), "nobody is let in without a plug-in")

	_, tokens := openStore(t)
	_, err := Build(t.Context(), []Spec{{Name: "apitoken", Options: map[string]any{"role": "admin"}}}, tokens, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "option role is not known", "a token has its own")
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "ca.pem")
	write(t, broken, "no certificate")
	hash := "$2b$04$" + strings.Repeat("x", 53)
	for name, test := range map[string]struct {
		plugin  string
		options map[string]any
		want    []string // of the error
	}{
		"unknown plug-in":           {"httpbasicaut", nil, []string{"authentication plug-in 1, httpbasicaut", "did you mean httpbasicauth?", "keystonetokenauth"}},
		"empty plug-in":             {"", nil, []string{"no such plug-in"}},
		"unknown option":            {"httpbasicauth", map[string]any{"file_path": "x"}, []string{"option file_path is not known, did you mean filepath?"}},
		"option of another plug-in": {"httpauthclientcert", map[string]any{"url": "x"}, []string{"option url is not known"}},
		"tokens that nobody keeps":  {"apitoken", nil, []string{"nothing here that keeps tokens"}},
		"option twice":              {"oidc", map[string]any{"client_id": "a", "client-id": "b"}, []string{"option client_id is given twice"}},
		"two names of one option":   {"kubeauth", map[string]any{"url": "https://a", "server_url": "https://b"}, []string{"option server_url is the same as url"}},
		"no users at all":           {"httpbasicauth", nil, []string{"option filepath or users is needed"}},
		"a number for a text":       {"httpauthclientcert", map[string]any{"cn": 7}, []string{"option cn must be text"}},
		"users in a list":           {"httpbasicauth", map[string]any{"users": []any{"a"}}, []string{"option users must be an object"}},
		"users that are no JSON":    {"httpbasicauth", map[string]any{"users": "{a"}, []string{"option users must be an object"}},
		"user without a hash":       {"httpbasicauth", map[string]any{"users": map[string]any{"a": map[string]any{}}}, []string{`option users is wrong: user "a"`, "not bcrypt"}},
		"user that is a text":       {"httpbasicauth", map[string]any{"users": map[string]any{"a": "hidden"}}, []string{`user "a" must be an object`}},
		"user with other members":   {"httpbasicauth", map[string]any{"users": map[string]any{"a": map[string]any{"hsah": "hidden"}}}, []string{`"hsah" is not known, did you mean hash?`}},
		"user with another role":    {"httpbasicauth", map[string]any{"users": map[string]any{"a": map[string]any{"hash": hash, "role": "root"}}}, []string{"the role must be"}},
		"unknown role":              {"httpauthclientcert", map[string]any{"role": "root"}, []string{"option role must be viewer, operator or admin"}},
		"unknown role of somebody":  {"httpauthclientcert", map[string]any{"roles": map[string]any{"a": "join"}}, []string{`option roles must give viewer, operator or admin to "a"`}},
		"no URL":                    {"keystonetokenauth", nil, []string{"option url is needed"}},
		"an empty URL":              {"keystonetokenauth", map[string]any{"url": ""}, []string{"option url is needed"}},
		"another scheme":            {"keystonepasswordauth", map[string]any{"url": "ftp://a"}, []string{"option url must be a URL like https://"}},
		"a path":                    {"keystonepasswordauth", map[string]any{"url": "/v3"}, []string{"option url must be a URL like https://"}},
		"a password in the URL":     {"keystonepasswordauth", map[string]any{"url": "https://u:hidden@a"}, []string{"without user"}},
		"a query":                   {"openshiftbearertokenauth", map[string]any{"openshift_endpoint": "https://a/?x=hidden"}, []string{"option openshift_endpoint", "query"}},
		"not to be parsed":          {"oidc", map[string]any{"issuer": "https://a b\x00", "client_id": "x"}, []string{"option issuer is no URL"}},
		"no audience":               {"oidc", map[string]any{"issuer": "https://a"}, []string{"option client_id is needed"}},
		"a map for no claim":        {"oidc", map[string]any{"issuer": "https://a", "client_id": "x", "role_map": map[string]any{"a": "admin"}}, []string{"option roles_claim is needed for role_map"}},
		"no such CA file":           {"kubeauth", map[string]any{"url": "https://a", "ca_file": broken + "x"}, []string{"option ca_file cannot be read"}},
		"broken CA file":            {"kubeauth", map[string]any{"url": "https://a", "ca_file": broken}, []string{"option ca_file holds no certificate"}},
		"a timeout of no unit":      {"kubeauth", map[string]any{"url": "https://a", "timeout": "5"}, []string{"option timeout must be a time like 5s"}},
		"a timeout of an hour":      {"kubeauth", map[string]any{"url": "https://a", "timeout": "1h"}, []string{"option timeout must be a time like 5s"}},
		"several at once":           {"oidc", map[string]any{"isuer": "https://a", "role": 7}, []string{"option isuer is not known, did you mean issuer?", "option issuer is needed", "option client_id is needed", "option role must be text"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Build(t.Context(), []Spec{{test.plugin, test.options}}, nil, slog.New(slog.DiscardHandler))
			require.Error(t, err)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "hidden", "no value is repeated")
		})
	}
}

// Flags and environment variables give texts only.
func TestBuildTakesObjectsAsText(t *testing.T) {
	t.Parallel()
	b := build(t, "httpbasicauth", nil, map[string]any{
		"users": `{"alice":{"hash":"` + hashOf(t, "pw", "$2a$") + `","role":"operator"},"bob":{"hash":"` + hashOf(t, "pw", "$2a$") + `"}}`,
		"roles": `{"carol":"admin"}`, "role": "viewer", "filepath": nil,
	})
	for name, want := range map[string]fleet.Role{"alice": fleet.RoleOperator, "bob": fleet.RoleViewer} {
		who, err := b.Authenticate(t.Context(), withBasic(name+":pw")(t))
		require.NoError(t, err)
		require.Equal(t, want, who.Role, name)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	hash := hashOf(t, "pw", "$2a$")
	users := map[string]User{"old": {Hash: hash}, "given": {Hash: hash, Role: fleet.RoleViewer}, "won": {Hash: hash, Role: fleet.RoleViewer}}
	roles := map[string]fleet.Role{"won": fleet.RoleOperator}
	for name, want := range map[string]fleet.Role{"old": fleet.RoleAdmin, "given": fleet.RoleViewer, "won": fleet.RoleOperator} {
		who, err := setup(t, BasicOptions{Users: users, Roles: roles}).basic.Authenticate(t.Context(), withBasic(name+":pw")(t))
		require.NoError(t, err)
		require.Equal(t, want, who.Role, name)
	}
	k := authntest.NewKeystone(t)
	k.SetPassword("Default", "alice", "pw")
	k.SetPassword("Default", "bob", "pw")
	a := build(t, "keystonepasswordauth", nil, map[string]any{"url": k.URL, "role": "viewer", "roles": map[string]any{"bob": "operator"}})
	for name, want := range map[string]fleet.Role{"alice": fleet.RoleViewer, "bob": fleet.RoleOperator} {
		who, err := a.Authenticate(t.Context(), withBasic(name+":pw")(t))
		require.NoError(t, err)
		require.Equal(t, want, who.Role, name)
	}
}

func TestBuildWarnsOfCredentialsInClearText(t *testing.T) {
	t.Parallel()
	for url, warned := range map[string]bool{
		"http://keystone:5000": true, "http://192.0.2.1": true, "http://[2001:db8::1]:5000/v3": true,
		"https://keystone": false, "http://localhost:5000": false, "http://127.0.0.1": false, "http://[::1]": false,
	} {
		var log syncBuffer
		_, err := Build(t.Context(), []Spec{{"keystonetokenauth", map[string]any{"url": url}}}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.Equal(t, warned, strings.Contains(log.String(), "clear text"), url)
	}
}

// A server with a certificate of its own authority is trusted by ca_file only.
func TestCAFile(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, ca.serverPEM())
	try := func(options map[string]any) (err error) {
		options["url"] = ca.server.URL
		a := build(t, "kubeauth", nil, options)
		for range 20 { // a handshake has 10 s, which may be over on a busy machine
			if _, err = a.Authenticate(t.Context(), withBearer("x")(t)); err == nil || !strings.Contains(err.Error(), "handshake timeout") {
				break
			}
		}
		return err
	}
	require.ErrorContains(t, try(map[string]any{}), "certificate")
	require.ErrorContains(t, try(map[string]any{"ca_file": file}), "is a success but not of the form", "asked, and answered with nothing")
}

// What is documented is what there is.
func TestPluginsAreDescribed(t *testing.T) {
	t.Parallel()
	for _, p := range Plugins() {
		require.NotEmpty(t, p.Usage, p.Name)
		for _, o := range p.Options {
			require.Regexp(t, regexp.MustCompile(`^[a-z_]+$`), o.Name)
			require.NotEmpty(t, o.Usage, "%s: %s", p.Name, o.Name)
		}
	}
	who, err := build(t, "oidc", nil, map[string]any{"issuer": "https://127.0.0.1:1", "client_id": "x", "timeout": "100ms"}).
		Authenticate(t.Context(), get(t, "Authorization", "Bearer a"))
	require.ErrorIs(t, err, errAbsent)
	require.Zero(t, who)
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"192.0.2.1":            "192.0.2.1",
		"::ffff:192.0.2.1":     "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0":         "fe80::/64",
		"@":                    "@",
		"":                     "192.0.2.7",
	} {
		r := get(t)
		r.RemoteAddr = "192.0.2.7:1234"
		require.Equal(t, want, addressOf(WithAddress(t.Context(), given), r), given)
	}
	r := get(t)
	r.RemoteAddr = "[2001:db8::7]:1234"
	require.Equal(t, "2001:db8::/64", addressOf(t.Context(), r))
}
