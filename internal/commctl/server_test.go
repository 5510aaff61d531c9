package commctl

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// stubServer answers what a test says and notes what it was asked.
type stubServer struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seenRequest
}

type seenRequest struct {
	line   string // method and path
	body   string
	header http.Header
}

// reply is an answer; a path that has none is a 404 with a problem document.
type reply struct {
	status int
	body   string
}

var notFound = reply{404, `{"type":"/docs/problems/not_found","title":"Not found","status":404,"detail":"there is no such thing"}`}

// newStub serves replies by "METHOD /path?query".
func newStub(t *testing.T, replies map[string]reply) *stubServer {
	t.Helper()
	s := &stubServer{}
	s.Server = httptest.NewServer(s.handler(replies))
	t.Cleanup(s.Close)
	return s
}

func (s *stubServer) handler(replies map[string]reply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a broken request shows in what was seen
		line := r.Method + " " + r.URL.RequestURI()
		s.mu.Lock()
		s.seen = append(s.seen, seenRequest{line, string(body), r.Header})
		s.mu.Unlock()
		answer, ok := replies[line]
		if !ok {
			answer = notFound
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.status)
		_, _ = io.WriteString(w, answer.body)
	})
}

func (s *stubServer) requests() []seenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seenRequest(nil), s.seen...)
}

// lines are the requests without bodies.
func (s *stubServer) lines() []string {
	var all []string
	for _, r := range s.requests() {
		all = append(all, r.line)
	}
	return all
}

// configure writes the configuration file of an App.
func (a *testApp) configure(t *testing.T, members map[string]any) {
	t.Helper()
	text, err := json.Marshal(members)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(a.env["HOME"], ".commissaire.json"), text, 0o600))
}

// appFor makes an App that is configured for a server.
func appFor(t *testing.T, url string) *testApp {
	t.Helper()
	a := newTestApp(t)
	a.configure(t, map[string]any{"endpoint": url, "username": "alice", "password": "pw:with:colons"})
	return a
}

// newHTTPServer serves with a function and gives its URL.
func newHTTPServer(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.URL
}
