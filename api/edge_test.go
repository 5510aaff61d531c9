package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"commissaire/internal/authn"
)

func TestAuthenticationComesBeforeRouting(t *testing.T) {
	t.Parallel()
	b := setup(t, loopbackIsAProxy)
	callers := netip.MustParseAddr("198.51.100.1") // another one each time: who is refused too often gets 429
	for _, path := range []string{"/api/v0/clusters", "/api/v0/nothing", "/nothing", "/api/v0/host/a;b", "/docsx", "/healthz/x"} {
		for name, creds := range map[string]string{
			"none": "", "garbage": "Basic !", "no colon": "Basic YQ==", "anonymous": "Basic Tm9uZTpOb25l", "bearer": "Bearer x", "wrong": "Basic YWxpY2U6cHc=",
		} {
			for _, method := range []string{"GET", "PUT", "DELETE", "POST", "OPTIONS", "HEAD"} {
				r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, nil)
				require.NoError(t, err)
				r.Header.Set("Authorization", creds)
				callers = callers.Next()
				r.Header.Set("X-Forwarded-For", callers.String())
				a := b.send(t, r)
				require.Equal(t, 403, a.status, "%s %s, %s", method, path, name)
				require.Empty(t, a.header.Get("WWW-Authenticate"))
			}
		}
	}
	a := b.do(t, "GET", "/api/v0/nothing", "")
	require.Equal(t, 404, a.status)
}

func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	for _, method := range []string{"POST", "PATCH", "OPTIONS", "HEAD", "TRACE", "DELETE", "PUT", "BREW"} {
		a := b.do(t, method, "/api/v0/clusters", "")
		require.Equal(t, 404, a.status, method)
		require.Empty(t, a.header.Get("Allow"))
	}
	for path, status := range map[string]int{
		"/api/v0/clusters/": 200, "/api/v0/cluster/c/": 200, "/api/v0/cluster/c/hosts/": 200, "/api/v0/hosts/": 200, "/api/v0/networks/": 200,
		"/api/v0/operations/": 200, "/healthz/": 200,
		"/api/v0": 404, "/api/v0/": 404, "/api": 404, "/api/v1/clusters": 404, "/api/v0/cluster": 404, "/api/v0/cluster/": 404,
		"//api/v0/clusters": 404, "/api/v0//clusters": 404, "/api/v0/clusters//": 404, "/API/v0/clusters": 404,
		"/api/v0/x/../clusters": 404, "/api/v0/./clusters": 404, "/docs/../api/v0/clusters": 404, "/docs/..;/api/v0/clusters": 404,
		"/api/v0/cluster%2fc": 404, "/api/v0/cluster/c%2Fhosts": 404, "/api/v0/cluster/%2e%2e": 404, "/api/v0/cluster/c%00": 404,
		"/api/v0/cluster/c%0a": 404, "/api/v0/cluster/%ff": 404, "/api/v0/cluster/%5c": 404, "/api/v0/cluster/c%252fhosts": 404,
		"/api/v0/%63lusters": 200, "/api/v0/cluster/%63": 200,
	} {
		require.Equal(t, status, b.do(t, "GET", path, "").status, path)
	}
}

// FuzzPlainPath: a path that is let through means the same to everybody.
func FuzzPlainPath(f *testing.F) {
	for _, target := range []string{
		"/", "/api/v0/clusters/", "/api/v0/cluster%2fc", "/api/v0/x/../clusters", "//x", "/a%5cb", "/a\\b", "/%00", "/%ff", "/a;b", "/api/v0/%63lusters", "*", "/a?b",
	} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !plainPath(&http.Request{URL: u}) {
			return
		}
		if clean := path.Clean(u.Path); clean != u.Path && clean+"/" != u.Path {
			t.Fatalf("%q is let through and is %q to others", target, clean)
		}
		if strings.Count(u.EscapedPath(), "/") != strings.Count(u.Path, "/") || strings.ContainsAny(u.Path, "\\\x00\r\n") {
			t.Fatalf("%q is let through", target)
		}
	})
}

func TestPathsOutsideThePattern(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := b.rows(t)
	for _, value := range []string{"a;rm -rf", "$(id)", "`id`", "a|b", "a&b", "a b", "a'b", `a"b`, "..;", "a<b", "-rf", ".hidden", "a..b", "ü", strings.Repeat("a", 254), "1:2"} {
		for _, put := range []string{"", "/creds", "/bootstrap"} {
			a := b.do(t, "PUT", "/api/v0/host/"+url.PathEscape(value)+put, `{"ssh_priv_key":"`+key64(t)+`"}`)
			require.Equal(t, 404, a.status, value)
			require.Equal(t, []string{"address"}, blamed(t, a), value)
		}
	}
	for _, value := range []string{"a;rm", "$(id)", "a.b", "a b", "a:b", strings.Repeat("a", 129)} {
		for _, path := range []string{"/cluster/%s", "/cluster/%s/hosts/h", "/cluster/%s/restart", "/network/%s"} {
			a := b.do(t, "PUT", "/api/v0"+fmt.Sprintf(path, url.PathEscape(value)), "")
			require.Equal(t, 404, a.status, value)
			require.Equal(t, []string{"name"}, blamed(t, a), value)
		}
	}
	require.Equal(t, before, b.rows(t))
	require.Zero(t, b.dispatcher.starts())
}

func TestWrongInputStoresAndStartsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	before, key := b.rows(t), key64(t)
	for name, test := range map[string]struct {
		request, body string
		status        int
		blame         string // "" when no member is to blame
	}{
		"unknown field":             {"PUT /host/h", `{"ssh_priv_key":"` + key + `","ssh_key":"x"}`, 400, "ssh_key"},
		"unknown field in capitals": {"PUT /host/h", `{"SSH_PRIV_KEY":"` + key + `"}`, 400, "SSH_PRIV_KEY"},
		"bad JSON":                  {"PUT /host/h", `{"ssh_priv_key":`, 400, "ssh_priv_key"},
		"a list":                    {"PUT /host/h", `[]`, 400, "body"},
		"null key":                  {"PUT /host/h", `{"ssh_priv_key":null}`, 400, "ssh_priv_key"},
		"key twice":                 {"PUT /host/h", `{"ssh_priv_key":"` + key + `","ssh_priv_key":"` + key + `"}`, 400, "ssh_priv_key"},
		"bad user":                  {"PUT /host/h", `{"ssh_priv_key":"` + key + `","remote_user":"root;id"}`, 400, "remote_user"},
		"option as user":            {"PUT /host/h", `{"ssh_priv_key":"` + key + `","remote_user":"-oProxyCommand=id"}`, 400, "remote_user"},
		"port as text":              {"PUT /host/h", `{"ssh_priv_key":"` + key + `","port":"22"}`, 400, "port"},
		"port 0":                    {"PUT /host/h", `{"ssh_priv_key":"` + key + `","port":0}`, 400, "port"},
		"port 65536":                {"PUT /host/h", `{"ssh_priv_key":"` + key + `","port":65536}`, 400, "port"},
		"port 1.5":                  {"PUT /host/h", `{"ssh_priv_key":"` + key + `","port":1.5}`, 400, "port"},
		"cpus 1.5":                  {"PUT /host/h", `{"ssh_priv_key":"` + key + `","cpus":1.5}`, 400, "cpus"},
		"cpus true":                 {"PUT /host/h", `{"ssh_priv_key":"` + key + `","cpus":true}`, 400, "cpus"},
		"cpus of 30 digits":         {"PUT /host/h", `{"ssh_priv_key":"` + key + `","cpus":1e30}`, 400, "cpus"},
		"other address":             {"PUT /host/h", `{"ssh_priv_key":"` + key + `","address":"i"}`, 400, "address"},
		"cluster outside pattern":   {"PUT /host/h", `{"ssh_priv_key":"` + key + `","cluster":"a b"}`, 400, "cluster"},
		"unknown cluster":           {"PUT /host/h", `{"ssh_priv_key":"` + key + `","cluster":"nowhere"}`, 409, "cluster"},
		"restart unknown cluster":   {"PUT /cluster/nowhere/restart", ``, 404, ""},
		"10 MB":                     {"PUT /host/h", `{"ssh_priv_key":"` + strings.Repeat("A", 10<<20) + `"}`, 413, "body"},
		"10 MB of spaces":           {"PUT /cluster/d", strings.Repeat(" ", 10<<20), 413, "body"},
		"10 MB, ignored body":       {"PUT /cluster/c/restart", strings.Repeat(" ", 10<<20), 413, "body"},
	} {
		a := b.v0(t, test.request, test.body, test.status, "")
		if test.blame != "" {
			require.Equal(t, []string{test.blame}, blamed(t, a), name)
		}
		require.NotContains(t, a.body, key[:40], name)
	}
	require.Equal(t, before, b.rows(t), "nothing is stored")
	require.Zero(t, b.dispatcher.starts(), "nothing is started")
	require.NotContains(t, b.log.String(), key[:40], "no key is logged")
}

func TestBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	put := func(body io.Reader, header map[string]string) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, b.url+"/api/v0/cluster/c", body)
		require.NoError(t, err)
		r.Header.Set("Authorization", b.creds)
		for k, v := range header {
			r.Header.Set(k, v)
		}
		return b.send(t, r)
	}
	for _, kind := range []string{"application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "not a type", "application/json; charset=utf-8"} {
		require.Equal(t, 201, put(strings.NewReader(`{"network":"default"}`), map[string]string{"Content-Type": kind}).status, kind)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(bytes.Repeat([]byte(" "), 64<<20))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.Equal(t, 415, put(&zipped, map[string]string{"Content-Encoding": "gzip"}).status)
	require.Equal(t, 415, put(strings.NewReader(`{}`), map[string]string{"Content-Encoding": "identity"}).status)
	chunked := struct{ io.Reader }{strings.NewReader(`{"network":"default"}`)}
	require.Equal(t, 201, put(chunked, nil).status, "a body without a length")
	endless := struct{ io.Reader }{io.LimitReader(spaces{}, 10<<20)}
	require.Equal(t, 413, put(endless, nil).status, "10 MB without a length")
	require.Equal(t, 413, put(struct{ io.Reader }{io.LimitReader(spaces{}, maxBodyBytes+1)}, nil).status)
	require.Equal(t, 201, put(struct{ io.Reader }{io.LimitReader(spaces{}, maxBodyBytes)}, nil).status, "just below the limit")
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }

// TestRawRequests sends what no HTTP client would.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	b := setup(t)
	auth := "Authorization: " + b.creds + "\r\n"
	for name, test := range map[string]struct {
		request string
		status  int
	}{
		"HTTP/1.0":             {"GET /api/v0/clusters HTTP/1.0\r\n" + auth + "\r\n", 200},
		"absolute form":        {"GET http://other/api/v0/clusters HTTP/1.1\r\nHost: x\r\n" + auth + "Connection: close\r\n\r\n", 200},
		"asterisk":             {"OPTIONS * HTTP/1.1\r\nHost: x\r\n" + auth + "Connection: close\r\n\r\n", 404},
		"backslash":            {"GET /api\\v0\\clusters HTTP/1.0\r\n" + auth + "\r\n", 404},
		"raw UTF-8":            {"GET /api/v0/cluster/\xc3\xbc HTTP/1.0\r\n" + auth + "\r\n", 404},
		"raw byte":             {"GET /api/v0/cluster/\xff HTTP/1.0\r\n" + auth + "\r\n", 404},
		"two lengths":          {"PUT /api/v0/cluster/c HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		"length too large":     {"PUT /api/v0/cluster/c HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 10485760\r\n\r\n{}", 413},
		"header of a proxy":    {"GET /api/v0/clusters HTTP/1.0\r\n" + auth + "X-Forwarded-For: 192.0.2.66\r\nX-HTTP-Method-Override: DELETE\r\n\r\n", 200},
		"request id of a fool": {"GET /api/v0/clusters HTTP/1.0\r\n" + auth + "X-Request-Id: " + strings.Repeat("x", 500) + "\r\n\r\n", 200},
		"a header too large":   {"GET /api/v0/clusters HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", 431},
	} {
		status, _ := rawRequest(t, b.url, test.request)
		require.Equal(t, test.status, status, name)
	}
}

func rawRequest(t *testing.T, base, request string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, _ = io.WriteString(conn, request) // the server may hang up before it has read all
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	send := func(id string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/api/v0/clusters", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", b.creds)
		r.Header.Set(RequestIDHeader, id)
		return b.send(t, r).header.Get(RequestIDHeader)
	}
	require.Equal(t, "my-id_1.2", send("my-id_1.2"))
	for _, id := range []string{"", "a b", `a"b`, strings.Repeat("a", 65), "a;b"} {
		require.Regexp(t, `^[0-9a-f-]{36}$`, send(id))
	}
}

func TestPanicsBecomeProblems(t *testing.T) {
	t.Parallel()
	log := &syncBuffer{}
	deps := Deps{Logger: newTestLogger(log), Metrics: prometheus.NewRegistry(), Authn: authn.NewChain(discard)}
	deps.Readiness = []Check{{"odd", func(context.Context) error { return nil }}}
	var h http.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the secret of the house") })
	h = identify(observe(recoverPanics(h), deps.Logger, newMetrics(deps.Metrics)), nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x", nil))
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "secret")
	require.Contains(t, log.String(), "the secret of the house")
	require.Contains(t, log.String(), "edge_test.go", "with the stack")
	require.Contains(t, log.String(), w.Header().Get(RequestIDHeader))
}

func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	server.Config = NewHTTPServer("", http.NotFoundHandler(), discard)
	server.Config.ReadHeaderTimeout = 50 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	// When this comes later than the server waits, the connection is reset.
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow")
	_, err = io.ReadAll(conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server hangs up, not the deadline of the test")
}
