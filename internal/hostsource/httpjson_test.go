package hostsource

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func fails(t *testing.T, options map[string]any) *Error {
	t.Helper()
	_, err := build1(t, options).Fetch(t.Context())
	var e *Error
	require.ErrorAs(t, err, &e)
	return e
}

func TestStatusAndRedirects(t *testing.T) {
	t.Parallel()
	asked := 0
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { asked++ })
	for code, passes := range map[int]bool{204: false, 301: false, 302: false, 307: false, 401: false, 404: false, 429: true, 500: true, 503: true} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if code/100 == 3 {
				http.Redirect(w, r, elsewhere, code)
				return
			}
			w.WriteHeader(code)
		})
		e := fails(t, map[string]any{"type": "http-json", "url": url})
		require.Contains(t, e.Reason, fmt.Sprintf("it answered %d", code))
		require.Equal(t, passes, e.Passes, code)
	}
	require.Zero(t, asked, "nobody follows a redirect: headers may be secret")
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	headers := file(t, "headers", "Authorization: Bearer one\nX-Tenant: a\n\n")
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `[{"address": "a", "os_version": %q}]`, r.Header.Get("Authorization")[len("Bearer "):]+r.Header.Get("X-Tenant"))
	})
	s := build1(t, map[string]any{"type": "http-json", "url": url, "headers_file": headers})
	found, err := s.Fetch(t.Context())
	require.NoError(t, err)
	require.Equal(t, "onea", *found["a"].OSVersion)
	require.NoError(t, os.WriteFile(headers, []byte("Authorization: Bearer two"), 0o600))
	found, err = s.Fetch(t.Context())
	require.NoError(t, err)
	require.Equal(t, "two", *found["a"].OSVersion, "read anew")
	require.NoError(t, os.WriteFile(headers, []byte("hunter2"), 0o600))
	_, err = s.Fetch(t.Context())
	require.ErrorContains(t, err, "headers_file must hold headers")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`[]`)) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	e := fails(t, map[string]any{"type": "http-json", "url": server.URL})
	require.Contains(t, e.Reason, "its certificate is not trusted")
	require.Contains(t, e.Reason, "set ca_file")
	require.False(t, e.Passes)
	right := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	_, err := build1(t, map[string]any{"type": "http-json", "url": server.URL, "ca_file": right}).Fetch(t.Context())
	require.NoError(t, err)
}

// TestProxies: one of the environment sees nothing but the way to an https source. The
// environment is read once in a process, so the sources are asked in another one.
func TestProxies(t *testing.T) {
	t.Parallel()
	if url := os.Getenv("TEST_SOURCE_URL"); url != "" {
		found, err := build1(t, map[string]any{"type": "http-json", "url": url, "timeout": "1m",
			"headers_file": os.Getenv("TEST_SOURCE_HEADERS"), "ca_file": os.Getenv("TEST_SOURCE_CA")}).Fetch(t.Context())
		require.NoError(t, err)
		require.Contains(t, found, "a")
		return
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer hunter2" {
			_, _ = w.Write([]byte(`[{"address": "a"}]`))
		}
	}))
	t.Cleanup(server.Close)
	seen := make(chan string, 10)
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var text strings.Builder
		_ = r.Write(&text)
		seen <- text.String()
		if r.Method != http.MethodConnect {
			_, _ = w.Write([]byte(`[{"address": "a"}]`))
			return
		}
		to, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			return
		}
		defer to.Close()
		w.WriteHeader(http.StatusOK)
		from, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		go func() { _, _ = io.Copy(to, buffered) }()
		_, _ = io.Copy(from, to)
	})
	ask := func(url string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxies$")
		cmd.Env = []string{
			"HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy, "TEST_SOURCE_URL=" + url,
			"TEST_SOURCE_HEADERS=" + file(t, "headers", "Authorization: Bearer hunter2"),
			"TEST_SOURCE_CA=" + file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))),
		}
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	require.Error(t, ask("http://cmdb.invalid/hosts?token=hunter2"), "nobody is there but the proxy")
	require.Empty(t, seen)
	require.NoError(t, ask("https://example.com/hosts?token=hunter2"), "the name in the server's certificate")
	require.NotEmpty(t, seen)
	for len(seen) > 0 {
		request := <-seen
		require.True(t, strings.HasPrefix(request, "CONNECT example.com:443 "), request)
		require.NotContains(t, request, "hunter2")
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	// Not a port that was free: another test may have it by now.
	e := fails(t, map[string]any{"type": "http-json", "url": "http://127.0.0.1:1/?token=hunter2"})
	require.Contains(t, e.Reason, "it does not answer: ")
	require.NotContains(t, e.Reason, "hunter2")
	require.True(t, e.Passes)
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]Spec{
		"option type must be one of ansible, http-json, did you mean ansible?": {"a", map[string]any{"type": "ansble"}},
		"option url must be a URL":                                             {"a", map[string]any{"type": "http-json"}},
		"option url must hold no user":                                         {"a", map[string]any{"type": "http-json", "url": "https://u:hunter2@h/"}},
		"option url must be a URL like https":                                  {"a", map[string]any{"type": "http-json", "url": "file:///etc/passwd"}},
		"option path is nothing that http-json takes":                          {"a", map[string]any{"type": "http-json", "url": "https://h/", "path": "/x"}},
		"option tmeout is nothing that http-json takes, did you mean timeout?": {"a", map[string]any{"type": "http-json", "url": "https://h/", "tmeout": "1s"}},
		"option timeout must be a time like 30s":                               {"a", map[string]any{"type": "http-json", "url": "https://h/", "timeout": "0s"}},
		"option timeout must be text":                                          {"a", map[string]any{"type": "http-json", "url": "https://h/", "timeout": 30}},
		"option refresh must be a time like 30s":                               {"a", map[string]any{"type": "http-json", "url": "https://h/", "refresh": "14m"}},
		"option ca_file cannot be read":                                        {"a", map[string]any{"type": "http-json", "url": "https://h/", "ca_file": "/nowhere"}},
		"option headers_file must be an absolute path":                         {"a", map[string]any{"type": "http-json", "url": "https://h/", "headers_file": "x"}},
		"option path is needed":                                                {"a", map[string]any{"type": "ansible"}},
		"option path must be an absolute path":                                 {"a", map[string]any{"type": "ansible", "path": "inventory"}},
		"option name must be small letters":                                    {"A B", map[string]any{"type": "ansible", "path": "/x"}},
	} {
		_, err := Build([]Spec{s})
		require.ErrorContains(t, err, "source 1, "+s.Name+": ")
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
	fine := map[string]any{"type": "ansible", "path": "/x", "refresh": "0s"}
	_, err := Build([]Spec{{"a", fine}, {"b", fine}, {"a", fine}})
	require.ErrorContains(t, err, "source 3, a: option name is that of another source, too")
	all, err := Build([]Spec{{"b", fine}, {"a", map[string]any{"type": "ansible", "path": "/x", "refresh": "1h"}}})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, []string{all[0].Name, all[1].Name})
	require.Equal(t, "1h0m0s", all[0].Refresh.String())
	require.Zero(t, all[1].Refresh)
}

// TestOptionsAreListed keeps the table of the documentation whole.
func TestOptionsAreListed(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, o := range Options() {
		listed[o.Name] = true
	}
	for kind, k := range kinds {
		for _, name := range append(k.options, "type", "timeout", "refresh", "name") {
			require.True(t, listed[name], "%s: %s", kind, name)
		}
	}
}
