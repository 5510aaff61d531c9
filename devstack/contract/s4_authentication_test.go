package contract

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"commissaire/internal/authn/authntest"
)

// hashOf gives a bcrypt hash with that prefix. The three name one algorithm.
func hashOf(t *testing.T, prefix, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return prefix + strings.TrimPrefix(string(hash), "$2a$")
}

func login(user, password string) change {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func bearer(token string) change { return header("Authorization", "Bearer "+token) }

// plugins is a configuration file with these plug-ins.
func plugins(t *testing.T, list ...M) string {
	t.Helper()
	return jsonOf(t, M{"authentication-plugins": list})
}

// keystone knows olga by a password and by a token.
func keystone(t *testing.T) (url, token string) {
	t.Helper()
	k := authntest.NewKeystone(t)
	k.SetPassword("Default", "olga", "key stone")
	return k.URL, k.Token("Default", "olga", time.Now().Add(time.Hour))
}

// kubernetes knows a service account by the token kube-token.
func kubernetes(t *testing.T) (url string) {
	t.Helper()
	k := authntest.NewKubernetes(t)
	k.AddToken("kube-token", "system:serviceaccount:ops:deployer", true, time.Now().Add(time.Hour))
	return k.URL
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	basicAuth := M{"name": "httpbasicauth", "users": M{"a": M{"hash": hashOf(t, "$2a$", "a")}}}

	fact(t, "4-1 4-7 4-9", func(t *testing.T) {
		file := put(t, "users.json", []byte(jsonOf(t, M{
			"two-b": M{"hash": hashOf(t, "$2b$", "b")}, "two-y": M{"hash": hashOf(t, "$2y$", "y")}, "both": M{"hash": hashOf(t, "$2a$", "of the file")},
		})))
		d := s.serve(t, serving{file: plugins(t, M{"name": "commissaire_http.authentication.httpbasicauth", "filepath": file, "users": M{
			"inline": M{"hash": hashOf(t, "$2a$", "in")}, "both": M{"hash": hashOf(t, "$2a$", "inline")},
		}})})
		for user, password := range map[string]string{"two-b": "b", "two-y": "y", "inline": "in", "both": "of the file"} {
			d.get(t, "clusters", login(user, password)).status(http.StatusOK)
			d.get(t, "clusters", login(user, password+"!")).problem(http.StatusForbidden)
		}
		d.get(t, "clusters", login("both", "inline")).problem(http.StatusForbidden)
		d.get(t, "clusters", login("nobody", "")).problem(http.StatusForbidden)
		d.get(t, "clusters", anonymous).problem(http.StatusForbidden)
		// A user without a role may do everything, as all could.
		require.Equal(t, "admin", d.get(t, "whoami", login("two-b", "b")).object()["role"])
		key := s.addName(t, "a1.example", "")
		require.Equal(t, key, d.get(t, "host/a1.example/creds", login("two-b", "b")).object()["ssh_priv_key"])
	})
	fact(t, "4-3 4-14", func(t *testing.T) {
		url, token := keystone(t)
		d := s.serve(t, serving{file: plugins(t, M{"name": "keystonepasswordauth", "url": url})})
		a := d.get(t, "whoami", login("olga", "key stone")).status(http.StatusOK)
		require.Equal(t, "olga", a.object()["name"])
		require.Empty(t, a.header.Get("X-Subject-Token"))
		d.get(t, "clusters", login("olga", "wrong")).problem(http.StatusForbidden)
		d.get(t, "clusters", header("X-Auth-Token", token), anonymous).problem(http.StatusForbidden)
	})
	fact(t, "4-4", func(t *testing.T) {
		url, token := keystone(t)
		d := s.serve(t, serving{file: plugins(t, M{"name": "keystonetokenauth", "url": url + "/v3/auth/tokens"})})
		d.get(t, "clusters", anonymous, header("X-Auth-Token", token)).status(http.StatusOK)
		d.get(t, "clusters", anonymous, header("X-Auth-Token", token+"x")).problem(http.StatusForbidden)
		d.get(t, "clusters", login("olga", "key stone")).problem(http.StatusForbidden)
	})
	fact(t, "4-5 9-11", func(t *testing.T) {
		d := s.serve(t, serving{file: plugins(t, M{"name": "openshiftbearertokenauth", "openshift_endpoint": kubernetes(t) + "/apis/user.openshift.io/v1/users/~"})})
		d.get(t, "clusters", bearer("kube-token")).status(http.StatusOK)
		d.get(t, "clusters", bearer("other")).problem(http.StatusForbidden)
		d.get(t, "clusters", anonymous).problem(http.StatusForbidden)
	})
	fact(t, "4-6", func(t *testing.T) {
		for _, o := range []M{{"name": "kubeauth"}, {"name": "kubernetesbearertokenauth", "resource": "/namespaces"}} {
			o["server_url"] = kubernetes(t)
			d := s.serve(t, serving{file: plugins(t, o)})
			d.get(t, "clusters", bearer("kube-token")).status(http.StatusOK)
			d.get(t, "clusters", bearer("other")).problem(http.StatusForbidden)
			require.Equal(t, "system:serviceaccount:ops:deployer", d.get(t, "whoami", bearer("kube-token")).object()["name"])
		}
	})
	fact(t, "4-8", func(t *testing.T) {
		for _, file := range []string{"/nowhere/users.json", put(t, "users.json", []byte("{"))} {
			d := s.serve(t, serving{file: plugins(t, M{"name": "httpbasicauth", "filepath": file})})
			d.get(t, "clusters").problem(http.StatusForbidden)
			d.said(t, file)
		}
	})
	fact(t, "4-10", func(t *testing.T) {
		d := s.serve(t, serving{file: plugins(t, M{"name": "httpbasicauth", "users": M{"a": M{"hash": hashOf(t, "$2a$", "a:b:c")}}})})
		for _, scheme := range []string{"Basic", "basic", "BASIC"} {
			d.get(t, "clusters", header("Authorization", scheme+" YTphOmI6Yw==")).status(http.StatusOK) // a:a:b:c
		}
		for _, value := range []string{"Basic YWI=", "Basic ====", "Basic", "Basic ", "Basic /w==", "YTphOmI6Yw==", "Digest YTphOmI6Yw==", "Basic YTphOmI6Yw== x"} {
			d.get(t, "clusters", header("Authorization", value)).problem(http.StatusForbidden)
		}
	})
	fact(t, "4-11", func(t *testing.T) {
		d := s.serve(t, serving{})
		d.get(t, "clusters", login("None", "None")).problem(http.StatusForbidden)
		d.ask(t, http.MethodPut, "cluster/a11", "", login("None", "None")).problem(http.StatusForbidden)
		s.get(t, "cluster/a11").problem(http.StatusNotFound)
	})
	fact(t, "4-12", func(t *testing.T) {
		// Both know a: the first one in the list says who it is.
		viewer := M{"name": "httpbasicauth", "role": "viewer", "users": M{"a": M{"hash": hashOf(t, "$2a$", "a")}, "v": M{"hash": hashOf(t, "$2a$", "v")}}}
		url, token := keystone(t)
		first := s.serve(t, serving{file: plugins(t, basicAuth, viewer, M{"name": "keystonetokenauth", "url": url})})
		require.Equal(t, "admin", first.get(t, "whoami", login("a", "a")).object()["role"])
		require.Equal(t, "viewer", first.get(t, "whoami", login("v", "v")).object()["role"])
		first.get(t, "clusters", anonymous, header("X-Auth-Token", token)).status(http.StatusOK)
		first.get(t, "clusters", login("w", "w")).problem(http.StatusForbidden)
		second := s.serve(t, serving{file: plugins(t, viewer, basicAuth)})
		require.Equal(t, "viewer", second.get(t, "whoami", login("a", "a")).object()["role"])
	})
	fact(t, "4-13", func(t *testing.T) {
		d := s.serve(t, serving{file: "{}"})
		d.get(t, "clusters").problem(http.StatusForbidden)
		d.said(t, "no authentication plug-in is configured")
	})
	fact(t, "4-15", func(t *testing.T) {
		d := s.serve(t, serving{file: jsonOf(t, M{"authentication-plugins": []M{basicAuth}, "self-auths": []string{"/api/v0/clusters", "/api/v0/secrets", "/api/v0/host/a15.example/creds"}})})
		d.get(t, "clusters", anonymous).status(http.StatusOK)
		d.get(t, "clusters/", anonymous).problem(http.StatusForbidden)
		d.get(t, "clusters?x=1", anonymous).problem(http.StatusBadRequest)
		d.get(t, "secrets", anonymous).problem(http.StatusNotFound)
		d.get(t, "hosts", anonymous).problem(http.StatusForbidden)
		s.addName(t, "a15.example", "")
		d.get(t, "host/a15.example/creds", anonymous).problem(http.StatusForbidden)
		d.get(t, "host/a15.example/creds", login("a", "a")).status(http.StatusOK)
	})
	fact(t, "4-2 4-16", func(t *testing.T) {
		ours, foreign := newAuthority(t), newAuthority(t)
		cert, key := ours.issue(t, "server")
		d := s.serve(t, serving{scheme: "https", client: ours.client(t, ours, "ops"), file: jsonOf(t, M{
			"tls-pemfile": put(t, "server.pem", cert, key), "tls-clientverifyfile": put(t, "ca.pem", ours.pem()),
			"authentication-plugins": []M{{"name": "httpauthclientcert", "cn": "ops"}},
		})})
		as := func(client *http.Client) *server { return &server{url: d.url, client: client} }
		d.get(t, "clusters", anonymous).status(http.StatusOK)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			only := func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version }
			as(ours.client(t, ours, "ops", only)).get(t, "clusters", anonymous).status(http.StatusOK)
		}
		as(ours.client(t, ours, "other")).get(t, "clusters", anonymous).problem(http.StatusForbidden)
		for name, client := range map[string]*http.Client{
			"foreign CA": ours.client(t, foreign, "ops"), "no certificate": ours.client(t, nil, ""),
			"TLS 1.1": ours.client(t, ours, "ops", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }),
		} {
			_, err := client.Get(d.url + "/api/v0/clusters")
			require.Error(t, err, name)
		}

		anyone := s.serve(t, serving{scheme: "https", client: ours.client(t, ours, "whoever"), file: jsonOf(t, M{
			"tls-pemfile": put(t, "server.pem", cert, key), "tls-clientverifyfile": put(t, "ca.pem", ours.pem()),
			"authentication-plugins": []M{{"name": "httpauthclientcert"}},
		})})
		require.Equal(t, "whoever", anyone.get(t, "whoami", anonymous).object()["name"])
	})
}
