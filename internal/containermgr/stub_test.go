package containermgr_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// stub is a server that gives odd answers, which the real one cannot be made to
// give.
type stub struct {
	*httptest.Server
	requests atomic.Int64
	tokens   atomic.Int64 // requests that bore a token
}

func newStub(t *testing.T, handler http.HandlerFunc) *stub {
	t.Helper()
	s := &stub{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if r.Header.Get("Authorization") != "" {
			s.tokens.Add(1)
		}
		handler(w, r)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *stub) options(t *testing.T) map[string]any {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	return map[string]any{"server_url": s.URL, "token": secretWord, "certificate_ca_path": ca}
}

func answer(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if strings.HasPrefix(body, "{") {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

func TestOddAnswers(t *testing.T) {
	t.Parallel()
	const is404 = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"nodes \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"nodes"},"code":404}`
	large := `{"kind":"Node","apiVersion":"v1","metadata":{"name":"x","annotations":{"a":"` + strings.Repeat("x", 5<<20) + `"}}}`
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		kind    fleet.Kind
		says    string
	}{
		"not there":          {answer(404, is404), fleet.NotFound, "not found"},
		"404 of a web site":  {answer(404, "<html>no such page</html>"), fleet.Invalid, "is it a Kubernetes API?"},
		"200 of a web site":  {answer(200, "<html>welcome</html>"), fleet.Invalid, "is it a Kubernetes API?"},
		"200 of JSON":        {answer(200, `{"hello":"world"}`), fleet.Invalid, "is it a Kubernetes API?"},
		"empty":              {answer(200, ""), fleet.Invalid, "is it a Kubernetes API?"},
		"half a node":        {answer(200, `{"kind":"Node","apiVersion":"v1","meta`), fleet.Invalid, "is it a Kubernetes API?"},
		"5 MB":               {answer(200, large), fleet.Invalid, "4 MB"},
		"401":                {answer(401, ""), fleet.Invalid, "expired"},
		"403":                {answer(403, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"nodes is forbidden: User \"u\" cannot get","reason":"Forbidden","code":403}`), fleet.Invalid, "cannot get"},
		"nobody":             {answer(403, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"nodes is forbidden: User \"system:anonymous\" cannot get","reason":"Forbidden","code":403}`), fleet.Invalid, "takes us for nobody (403 for system:anonymous); give a token"},
		"500":                {answer(500, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcd: it hurts","reason":"InternalError","code":500}`), fleet.Unavailable, "it hurts"},
		"503 of a balancer":  {answer(503, "<html>down</html>"), fleet.Unavailable, "503"},
		"words to the tty":   {answer(500, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"a\u001b[31m\nb","code":500}`), fleet.Unavailable, "a [31m b"},
		"403 of a proxy":     {answer(403, "<html>secret</html>"), fleet.Invalid, "Forbidden"},
		"page token too old": {answer(410, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old","reason":"Expired","code":410}`), fleet.Unavailable, "too old"},
		"closed at once":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fleet.Unavailable, "cannot be reached"},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"kind":"Node",`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, fleet.Unavailable, "broke off"},
		"header without end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
			w.WriteHeader(200)
		}, fleet.Unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStub(t, c.handler)
			k := newManager(t, s.options(t))
			err := answered(func() error { _, err := k.Status(t.Context(), "x"); return err })
			require.Equal(t, c.kind, fleet.KindOf(err), err)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), secretWord)
			var e *fleet.Error
			require.ErrorAs(t, err, &e)
			require.NotContains(t, e.Detail, "\x1b")
			require.NotContains(t, e.Detail, "html", "what some page says is not ours to show")
			err = answered(func() error { _, err := k.Registered(t.Context(), "x"); return err })
			if c.kind == fleet.NotFound {
				require.NoError(t, err)
			} else {
				require.Equal(t, c.kind, fleet.KindOf(err), err)
			}
		})
	}
}

// TestRemoveFromAWebSite must not take its 404 for a node that is gone.
func TestRemoveFromAWebSite(t *testing.T) {
	t.Parallel()
	k := newManager(t, newStub(t, answer(404, "<html>no such page</html>")).options(t))
	err := answered(func() error { _, err := k.Remove(t.Context(), "x", time.Now()); return err })
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))
	require.Equal(t, fleet.Invalid, fleet.KindOf(k.Check(t.Context())))
	_, err = k.Restore(t.Context(), "x", "me")
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			thief := newStub(t, answer(200, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"x"}}`))
			s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, thief.URL+r.URL.Path, code)
			})
			k := newManager(t, s.options(t))
			for what, call := range map[string]func() error{
				"get":    func() error { _, err := k.Registered(t.Context(), "x"); return err },
				"create": func() error { return k.Register(t.Context(), "x") },
				"delete": func() error { _, err := k.Remove(t.Context(), "x", time.Now()); return err },
			} {
				err := answered(call)
				require.Equal(t, fleet.Invalid, fleet.KindOf(err), what)
				require.ErrorContains(t, err, "redirect", what)
			}
			require.Zero(t, thief.requests.Load(), "the redirect was followed")
			require.EqualValues(t, 3, s.tokens.Load())
		})
	}
}

// TestThrottledForEver must come back at once with the wait that was asked for,
// where client-go would wait it out ten times over.
func TestThrottledForEver(t *testing.T) {
	t.Parallel()
	s := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
	})
	k := newManager(t, s.options(t))
	err := answered(func() error { return k.Register(t.Context(), "x") })
	require.Equal(t, fleet.Unavailable, fleet.KindOf(err))
	after, ok := containermgr.RetryAfter(err)
	require.True(t, ok)
	require.Equal(t, 30*time.Second, after)
	require.EqualValues(t, 1, s.requests.Load())
}

// TestSlowAnswers end after ten seconds at most, whatever the server is slow at, and
// with the context before that.
func TestSlowAnswers(t *testing.T) {
	t.Parallel()
	hang := func(r *http.Request) { <-r.Context().Done() }
	for name, handler := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { hang(r) },
		"no body":   func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200); w.(http.Flusher).Flush(); hang(r) },
		"drop by drop": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newManager(t, newStub(t, handler).options(t))
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			err := k.Register(ctx, "x")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			for range 10 { // the first may be those that got no connection, on a busy machine
				if err = k.Register(t.Context(), "x"); errors.Is(err, context.DeadlineExceeded) {
					break
				}
			}
			require.Equal(t, fleet.Unavailable, fleet.KindOf(err))
			require.ErrorContains(t, err, "did not answer within 10s")
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	good := answer(200, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"x"}}`)
	registered := func(k *containermgr.Kubernetes) error {
		return answered(func() error { _, err := k.Registered(t.Context(), "x"); return err })
	}
	t.Run("unknown authority", func(t *testing.T) {
		t.Parallel()
		s := newStub(t, good)
		o := s.options(t)
		delete(o, "certificate_ca_path")
		err := registered(newManager(t, o))
		require.Equal(t, fleet.Invalid, fleet.KindOf(err))
		require.ErrorContains(t, err, "options.certificate_ca_path")
		require.Zero(t, s.requests.Load())
	})
	t.Run("another authority", func(t *testing.T) {
		t.Parallel()
		s := newStub(t, good)
		o := s.options(t)
		o["certificate_ca_path"] = kubetest.Shared(t).CAFile()
		err := registered(newManager(t, o))
		require.Equal(t, fleet.Invalid, fleet.KindOf(err))
		require.ErrorContains(t, err, "has a certificate of another authority than the one in certificate_ca_path")
		require.Zero(t, s.requests.Load())
	})
	t.Run("other name", func(t *testing.T) {
		t.Parallel()
		s := newStub(t, good)
		o := s.options(t)
		o["server_url"] = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
		err := registered(newManager(t, o))
		require.Equal(t, fleet.Invalid, fleet.KindOf(err), err)
		require.ErrorContains(t, err, "options.server_url")
		require.Zero(t, s.requests.Load())
	})
	t.Run("plain HTTP", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewServer(good)
		defer s.Close()
		err := registered(newManager(t, map[string]any{"server_url": strings.Replace(s.URL, "http:", "https:", 1), "token": secretWord}))
		require.Equal(t, fleet.Invalid, fleet.KindOf(err), err)
		require.ErrorContains(t, err, "does not speak TLS")
	})
	t.Run("no client certificate", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewUnstartedServer(good)
		s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
		s.StartTLS()
		defer s.Close()
		err := registered(newManager(t, (&stub{Server: s}).options(t)))
		require.Equal(t, fleet.Invalid, fleet.KindOf(err), err)
		require.ErrorContains(t, err, "options.token", "what is there to log in")
	})
	t.Run("insecure, as asked", func(t *testing.T) {
		t.Parallel()
		k := newManager(t, map[string]any{"server_url": newStub(t, good).URL, "insecure_skip_tls_verify": true})
		require.NoError(t, registered(k))
		require.Contains(t, strings.Join(k.Warnings(), ""), "NOT VERIFIED")
	})
}

// TestNobodyThere: nothing listens, and addresses that are not gone to.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		url  string
		kind fleet.Kind
		says string
	}{
		"refused":     {"http://127.0.0.1:1", fleet.Unavailable, "it refuses connections"}, // nobody gets that port by chance
		"metadata":    {"http://169.254.169.254/latest/meta-data", fleet.Invalid, "no container manager may be"},
		"link-local":  {"http://[fe80::1]:80", fleet.Invalid, "no container manager may be"},
		"unspecified": {"http://0.0.0.0:80", fleet.Invalid, "no container manager may be"},
		"multicast":   {"http://224.0.0.1:80", fleet.Invalid, "no container manager may be"},
		"mapped":      {"http://[::ffff:169.254.169.254]:80", fleet.Invalid, "no container manager may be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newManager(t, map[string]any{"server_url": c.url})
			err := k.Register(t.Context(), "x")
			require.Equal(t, c.kind, fleet.KindOf(err))
			require.ErrorContains(t, err, c.says)
		})
	}
}

// TestLocalhost is an address that says what it means.
func TestLocalhost(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(answer(200, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"x"}}`))
	defer s.Close()
	k := newManager(t, map[string]any{"server_url": strings.Replace(s.URL, "127.0.0.1", "localhost", 1)})
	require.NoError(t, answered(func() error { _, err := k.Registered(t.Context(), "x"); return err }))
}
