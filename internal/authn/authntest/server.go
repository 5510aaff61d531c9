// Package authntest has stand-ins for those who know the callers: a Keystone, a
// Kubernetes API server and an OpenID Connect issuer. They speak the real protocols,
// keep everything in memory, and can be made not to work.
package authntest

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Fault is a way not to work.
type Fault string

// The faults, None to work.
const (
	None        Fault = ""
	Down        Fault = "down"         // connections are cut
	Slow        Fault = "slow"         // no answer until the client gives up
	Trickling   Fault = "trickling"    // an answer that never ends
	Huge        Fault = "huge"         // an answer of 64 MB
	HugeHeader  Fault = "huge header"  // a header of 1 MB
	Redirecting Fault = "redirecting"  // 307 to a server that says yes to all
	Failing     Fault = "failing"      // 500
	Overloaded  Fault = "overloaded"   // 429
	NotJSON     Fault = "not JSON"     // 200 and a page
	OtherJSON   Fault = "another JSON" // 200 and JSON of another form
)

// Faults are all of them.
var Faults = []Fault{Down, Slow, Trickling, Huge, HugeHeader, Redirecting, Failing, Overloaded, NotJSON, OtherJSON}

// hugeAnswer is the size of a Huge answer, in bytes.
const hugeAnswer = 64 << 20

// Server is an HTTP server that can be made not to work.
type Server struct {
	URL string

	fault     atomic.Value // Fault
	elsewhere string       // where Redirecting leads to
	requests  atomic.Int64
	followed  atomic.Int64
	sent      atomic.Int64
}

// Break makes the server not work, or work again.
func (s *Server) Break(f Fault) { s.fault.Store(f) }

// Requests counts what was asked so far.
func (s *Server) Requests() int { return int(s.requests.Load()) }

// Followed counts the requests that went where Redirecting leads to.
func (s *Server) Followed() int { return int(s.followed.Load()) }

// Sent counts the bytes of Huge and Trickling answers that somebody took.
func (s *Server) Sent() int { return int(s.sent.Load()) }

// start serves a handler until the test ends.
func (s *Server) start(t testing.TB, handler http.Handler) {
	t.Helper()
	s.Break(None)
	tempting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.followed.Add(1)
		w.Header().Set("X-Subject-Token", "token")
		_, _ = io.WriteString(w, `{"token":{"user":{"name":"mallory","domain":{"name":"Default"}}},"status":{"userInfo":{"username":"mallory"}}}`)
	}))
	t.Cleanup(tempting.Close)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if f := s.fault.Load().(Fault); f != None {
			s.fail(w, r, f)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.URL, s.elsewhere = server.URL, tempting.URL
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, f Fault) {
	_, _ = io.Copy(io.Discard, r.Body) // or the server would not see that the client is gone
	w.Header().Set("X-Subject-Token", "token")
	switch f {
	case Down:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	case Slow:
		<-r.Context().Done()
	case Trickling:
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			s.send(w, " ")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				tick.Stop()
				return
			}
		}
	case Huge:
		s.send(w, `{"padding":"`)
		for chunk, sent := strings.Repeat("x", 1<<16), 0; sent < hugeAnswer && r.Context().Err() == nil; sent += len(chunk) {
			s.send(w, chunk)
		}
		s.send(w, `"}`)
	case HugeHeader:
		w.Header().Set("X-Padding", strings.Repeat("x", 1<<20))
		w.WriteHeader(http.StatusCreated)
	case Redirecting:
		http.Redirect(w, r, s.elsewhere, http.StatusTemporaryRedirect)
	case Failing:
		w.WriteHeader(http.StatusInternalServerError)
	case Overloaded:
		w.WriteHeader(http.StatusTooManyRequests)
	case NotJSON:
		_, _ = io.WriteString(w, "<html>Welcome</html>")
	case OtherJSON:
		_, _ = io.WriteString(w, `{"token":[],"status":"ok","issuer":7,"keys":{}}`)
	case None:
	}
}

func (s *Server) send(w io.Writer, text string) {
	n, _ := io.WriteString(w, text)
	s.sent.Add(int64(n))
}

func reply(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
