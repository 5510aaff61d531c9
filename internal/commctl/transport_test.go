package commctl

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
)

// Nobody listens there: a port that was free a moment ago may be another test's by now,
// and these are given to nobody by chance.
const deadEndpoint, deadEndpoint2 = "http://127.0.0.1:1", "http://127.0.0.1:2"

func TestFailover(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{
		"DELETE /api/v0/cluster/a": {200, `[]`}, "DELETE /api/v0/cluster/b": {200, `[]`},
		"DELETE /below/api/v0/cluster/a": {200, `[]`}, "DELETE /below/api/v0/cluster/b": {200, `[]`},
	})
	a := newTestApp(t)
	a.configure(t, map[string]any{"endpoint": []string{deadEndpoint + "/", deadEndpoint2, server.URL + "/below/"}, "token": "cmst_x_y"})
	require.Zero(t, a.Run(t.Context(), []string{"cluster", "delete", "a", "b"}))
	require.Equal(t, fmt.Sprintf("Could not connect to %s. Retrying with %s.\nCould not connect to %s. Retrying with %s/below.\n- Success\n- Success\n",
		deadEndpoint, deadEndpoint2, deadEndpoint2, server.URL), a.out.String(), "the second request goes where the first one went")
	require.Equal(t, []string{"DELETE /below/api/v0/cluster/a", "DELETE /below/api/v0/cluster/b"}, server.lines())
	for _, r := range server.requests() {
		require.Equal(t, "{}", r.body)
		require.Equal(t, "Bearer cmst_x_y", r.header.Get("Authorization"))
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	a := newTestApp(t)
	a.configure(t, map[string]any{"endpoint": []string{deadEndpoint, deadEndpoint2}, "token": "cmst_x_y"})
	require.Equal(t, exitUnreachable, a.Run(t.Context(), []string{"cluster", "list"}))
	require.Equal(t, fmt.Sprintf("Could not connect to %s. Retrying with %s.\nNo servers could be reached. Tried the following:\n- %s\n- %s\nExiting...\n", deadEndpoint, deadEndpoint2, deadEndpoint, deadEndpoint2), a.out.String())
	require.Contains(t, a.errs.String(), "connection refused")
}

func TestAnswersNeverFailOver(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 500, 503} {
		first := newStub(t, map[string]reply{"GET /api/v0/clusters": {status, ``}})
		second := newStub(t, nil)
		a := newTestApp(t)
		a.configure(t, map[string]any{"endpoint": []string{first.URL, second.URL}, "token": "x"})
		a.Run(t.Context(), []string{"cluster", "list"})
		require.Len(t, first.lines(), 1)
		require.Empty(t, second.lines())
	}
}

// A POST that may have arrived is not sent to the next server.
func TestPostIsSentOnce(t *testing.T) {
	t.Parallel()
	var got atomic.Int32
	breaks := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		got.Add(1)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(breaks.Close)
	second := newStub(t, nil)
	a := newTestApp(t)
	a.configure(t, map[string]any{"endpoint": []string{deadEndpoint, breaks.URL, second.URL}, "token": "x"})
	c, err := a.client()
	require.NoError(t, err)
	_, err = c.CreateTokenWithResponse(t.Context(), client.CreateTokenJSONRequestBody{Name: "ci"})
	var dead *unreachableError
	require.ErrorAs(t, err, &dead)
	require.EqualValues(t, 1, got.Load())
	require.Empty(t, second.lines())
	require.Equal(t, exitUnreachable, a.report(nil, err))

	_, err = c.GetOperationWithResponse(t.Context(), "01a")
	require.NoError(t, err)
	require.Equal(t, []string{"GET /api/v0/operations/01a"}, second.lines())
	require.Empty(t, a.out.String(), "new verbs keep standard output for answers")
}

// An act with a key goes to the next server, which knows it from the first.
func TestOrdersAreTheSameOnTheNextServer(t *testing.T) {
	t.Parallel()
	for command, line := range map[string]string{
		"cluster restart start web":    "PUT /api/v0/cluster/web/restart",
		"operations cancel " + testID:  "POST /api/v0/operations/" + testID + "/cancel",
		"operations pause " + testID:   "POST /api/v0/operations/" + testID + "/pause",
		"cluster deploy start web 7.4": "PUT /api/v0/cluster/web/deploy",
	} {
		first := &stubServer{}
		note := first.handler(nil)
		first.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			note.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler) // it has arrived, but nobody hears so
		}))
		t.Cleanup(first.Close)
		second := newStub(t, map[string]reply{line: {201, `{"id":"` + testID + `"}`}})
		a := newTestApp(t)
		a.configure(t, map[string]any{"endpoint": []string{first.URL, second.URL}, "token": "x"})
		require.Zero(t, a.Run(t.Context(), strings.Fields(command)), a.errs.String())
		require.Equal(t, []string{line}, second.lines())
		key := second.requests()[0].header.Get("Idempotency-Key")
		require.Regexp(t, "^commctl-", key)
		for _, r := range first.requests() {
			require.Equal(t, key, r.header.Get("Idempotency-Key"))
		}
	}
}

// What is said about dead endpoints does not get among what a program reads.
func TestNoticesAreNotInAnswers(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"GET /api/v0/clusters": {200, `["web"]`}})
	a := newTestApp(t)
	a.configure(t, map[string]any{"endpoint": []string{deadEndpoint, server.URL}, "token": "x"})
	require.Zero(t, a.Run(t.Context(), []string{"cluster", "list", "-o", "name"}))
	require.Equal(t, "web\n", a.out.String())
	require.Equal(t, "Could not connect to "+deadEndpoint+". Retrying with "+server.URL+".\n", a.errs.String())

	for _, command := range []string{"cluster list -o json", "host ssh 192.0.2.1 true"} {
		a = newTestApp(t)
		a.configure(t, map[string]any{"endpoint": deadEndpoint, "token": "x"})
		require.Equal(t, exitUnreachable, a.Run(t.Context(), strings.Fields(command)))
		require.Empty(t, a.out.String(), command)
	}
}

// Ctrl-C ends a command that waits for somebody to type.
func TestReadingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	silent, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	for _, command := range []string{"host create 192.0.2.1 -", "passhash -f -", "cluster policy set web --policy -"} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		a := appFor(t, "http://127.0.0.1:1")
		a.In = silent
		require.Equal(t, exitInterrupted, a.Run(ctx, strings.Fields(command)), command)
	}
}

func TestTokenIsTidied(t *testing.T) {
	t.Parallel()
	server := newStub(t, nil)
	a := newTestApp(t)
	a.configure(t, map[string]any{"endpoint": server.URL, "token": " cmst_x\n"})
	require.Zero(t, a.Run(t.Context(), []string{"cluster", "list"}))
	require.Equal(t, "Bearer cmst_x", server.requests()[0].header.Get("Authorization"))
	a = newTestApp(t)
	a.configure(t, map[string]any{"endpoint": server.URL, "token": "cmst_x\ny"})
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"cluster", "list"}))
	require.Contains(t, a.errs.String(), "the token has a control character in it")
	require.NotContains(t, a.errs.String(), "cmst_")
}

func TestRedirectsDoNotGetTheCredentials(t *testing.T) {
	t.Parallel()
	thief := newStub(t, nil)
	server := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	require.Equal(t, exitUsage, appFor(t, server.URL).Run(t.Context(), []string{"cluster", "list"}))
	require.Empty(t, thief.lines())
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:pw"))
	for name, c := range map[string]struct {
		file    string // "" for none
		answers map[string]string
		want    string // Authorization
		asked   []string
	}{
		"all of it":          {`{"endpoint":"URL","username":"alice","password":"pw"}`, nil, basic, nil},
		"list":               {`{"endpoint":["URL"],"username":"alice","password":"pw"}`, nil, basic, nil},
		"no password":        {`{"endpoint":"URL","username":"alice"}`, map[string]string{"Password: ": "pw"}, basic, []string{"Password: "}},
		"nothing":            {``, map[string]string{"Endpoint: ": "URL", "Username: ": "alice", "Password: ": "pw"}, basic, []string{"Endpoint: ", "Username: ", "Password: "}},
		"token":              {`{"endpoint":"URL","token":"cmst_a_b"}`, nil, "Bearer cmst_a_b", nil},
		"token wins":         {`{"endpoint":"URL","token":"cmst_a_b","username":"alice","password":"pw"}`, nil, "Bearer cmst_a_b", nil},
		"members of nothing": {`{"endpoint":"URL","token":"cmst_a_b","passwort":1}`, nil, "Bearer cmst_a_b", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newStub(t, nil)
			a := newTestApp(t)
			var asked []string
			a.Ask = func(question string, hidden bool) (string, error) {
				require.Equal(t, question == "Password: ", hidden)
				asked = append(asked, question)
				return strings.Replace(c.answers[question], "URL", server.URL, 1), nil
			}
			if c.file != "" {
				a.env["COMMCTL_CONFIG"] = filepath.Join(t.TempDir(), "c.json")
				require.NoError(t, os.WriteFile(a.env["COMMCTL_CONFIG"], []byte(strings.Replace(c.file, "URL", server.URL, 1)), 0o600))
			}
			require.Zero(t, a.Run(t.Context(), []string{"cluster", "list"}), a.errs.String())
			require.Equal(t, c.asked, asked)
			require.Equal(t, strings.Contains(c.file, "passwort"), strings.Contains(a.errs.String(), "unknown members are ignored: passwort"), a.errs.String())
			if c.file != "" {
				require.Equal(t, c.want, server.requests()[0].header.Get("Authorization"))
			}
		})
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		`{"endpoint":`:                "configuration file",
		`[]`:                          "configuration file",
		`{"endpoint":7,"token":"x"}`:  "endpoint must be a URL or a list",
		`{"endpoint":[],"token":"x"}`: "no endpoint",
		`{"endpoint":"commissaire:8000","token":"x"}`:                       "an endpoint is not a URL",
		`{"endpoint":"http://u:hunter2@h","token":"x"}`:                     "an endpoint is not a URL",
		`{"endpoint":"http://h"}`:                                           "no username",
		`{"endpoint":"http://h","username":"a"}`:                            "no password",
		`{"endpoint":"http://h","kubeconfig":"/no/such"}`:                   "kubeconfig: open /no/such",
		`{"endpoint":"http://h","token":"x","cafile":"/no/such"}`:           "cafile: open /no/such",
		`{"endpoint":"http://h","clientcert":"/no/such","insecure":"true"}`: "insecure",
		`{"endpoint":"http://h","clientcert":"/no/such"}`:                   "clientcert: open /no/such",
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			a := newTestApp(t)
			path := filepath.Join(t.TempDir(), "c.json")
			require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
			require.Equal(t, exitUsage, a.Run(t.Context(), []string{"--config", path, "cluster", "list"}))
			require.Contains(t, a.errs.String(), want)
			require.Contains(t, a.errs.String(), "usage: ")
			require.NotContains(t, a.errs.String(), "hunter2")
		})
	}
	a := newTestApp(t)
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"--config", "/no/such", "cluster", "list"}), "a file that is named must be there")
}

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	const frame = `
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: k, cluster: {server: "https://192.0.2.1:6443"}}]
contexts:
- {name: other, context: {cluster: k, user: bob}}
- {name: here, context: {cluster: k, user: alice}}
users:
- {name: bob, user: {token: bobs}}
- name: alice
  user: `
	for user, want := range map[string]string{
		`{token: abc}`:                                 "Bearer abc",
		`{tokenFile: token}`:                           "Bearer from-file",
		`{token: abc, tokenFile: token}`:               "Bearer from-file",
		`{token: abc, tokenFile: gone}`:                "Bearer abc",
		`{username: alice, password: "p:w"}`:           "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:p:w")),
		`{token: abc, username: alice, password: "p"}`: "Bearer abc",
	} {
		server := newStub(t, nil)
		a := newTestApp(t)
		require.NoError(t, os.WriteFile(filepath.Join(a.env["HOME"], "token"), []byte("from-file\n"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(a.env["HOME"], "kube"), []byte(frame+user), 0o600))
		a.configure(t, map[string]any{"endpoint": server.URL, "username": "no", "password": "no", "kubeconfig": "~/kube"})
		require.Zero(t, a.Run(t.Context(), []string{"cluster", "list"}), a.errs.String())
		require.Equal(t, want, server.requests()[0].header.Get("Authorization"), user)
	}
	for text, want := range map[string]string{
		frame + `{}`:                     "neither a token",
		frame + `{exec: {command: aws}}`: "a program makes the credentials",
		strings.Replace(frame, "here\n", "there\n", 1) + `{token: x}`:    `no context "there"`,
		strings.Replace(frame, "user: alice", "user: c", 1) + `{}`:       `no user "c"`,
		strings.Replace(frame, "current-context: here", "", 1) + `{}`:    "current-context is not set",
		frame + `{client-certificate-data: "!"}`:                         "client-certificate: illegal base64",
		frame + `{client-certificate: gone}`:                             "client-certificate: open",
		frame + `{client-certificate-data: eA==, client-key-data: eA==}`: "client-certificate: tls",
		"users: 7": "is not a kubeconfig",
	} {
		a := newTestApp(t)
		require.NoError(t, os.WriteFile(filepath.Join(a.env["HOME"], "kube"), []byte(text), 0o600))
		a.configure(t, map[string]any{"endpoint": "http://127.0.0.1:1", "kubeconfig": "~/kube"})
		require.Equal(t, exitUsage, a.Run(t.Context(), []string{"cluster", "list"}))
		require.Contains(t, a.errs.String(), want)
	}
}

// A client certificate is shown, from the configuration as from a kubeconfig.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	certificate, key := clientCertificate(t)
	server := &stubServer{}
	shown := make(chan string, 10)
	server.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown <- r.TLS.PeerCertificates[0].Subject.CommonName
		_, _ = w.Write([]byte(`["web"]`))
	}))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	home := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, text := range map[string][]byte{"c.pem": certificate, "k.pem": key, "both.pem": append(append([]byte{}, certificate...), key...), "ca.pem": ca, "not.pem": []byte("x")} {
		require.NoError(t, os.WriteFile(filepath.Join(home, name), text, 0o600))
	}
	kube := func(user string) {
		require.NoError(t, os.WriteFile(filepath.Join(home, "kube"), []byte("current-context: c\ncontexts: [{name: c, context: {user: u}}]\nusers: [{name: u, user: "+user+"}]\n"), 0o600))
	}
	b64 := base64.StdEncoding.EncodeToString
	for _, c := range []struct {
		user    string
		members map[string]any
		code    int
	}{
		{"", map[string]any{"clientcert": "~/c.pem", "clientkey": "~/k.pem", "cafile": "~/ca.pem"}, 0},
		{"", map[string]any{"clientcert": "~/both.pem", "cafile": "~/ca.pem"}, 0},
		{"", map[string]any{"clientcert": "~/both.pem", "insecure": true}, 0},
		{"{client-certificate: c.pem, client-key: k.pem}", map[string]any{"kubeconfig": "~/kube", "cafile": "~/ca.pem"}, 0},
		{fmt.Sprintf("{client-certificate-data: %s, client-key-data: %s}", b64(certificate), b64(key)), map[string]any{"kubeconfig": "~/kube", "cafile": "~/ca.pem"}, 0},
		{"", map[string]any{"clientcert": "~/both.pem"}, exitUnreachable},
		{"", map[string]any{"token": "x", "cafile": "~/ca.pem"}, exitUnreachable},
		{"", map[string]any{"token": "x", "cafile": "~/not.pem"}, exitUsage},
	} {
		a := newTestApp(t)
		a.env["HOME"] = home
		c.members["endpoint"] = server.URL
		a.configure(t, c.members)
		kube(c.user)
		require.Equal(t, c.code, a.Run(t.Context(), []string{"cluster", "list"}), "%v %s", c.members, a.errs.String())
		if c.code == 0 {
			require.Equal(t, "alice", <-shown)
			require.Equal(t, "- web\n", a.out.String())
		}
	}
}

func clientCertificate(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alice"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// An endpoint that begins with http:// where TLS is spoken is found out: servers of Go
// answer, others send an alert.
func TestPlainHTTPToTLS(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_, _ = conn.Write([]byte{21, 3, 1, 0, 2, 2, 70}) // protocol_version
			_ = conn.Close()
		}
	}()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	for address, code := range map[string]int{server.Listener.Addr().String(): exitUsage, listener.Addr().String(): exitUnreachable} {
		for _, command := range []string{"cluster list", "whoami"} {
			a := appFor(t, "http://"+address)
			require.Equal(t, code, a.Run(t.Context(), strings.Fields(command)), a.errs.String())
			require.Contains(t, a.errs.String(), speaksTLS)
		}
	}
}
