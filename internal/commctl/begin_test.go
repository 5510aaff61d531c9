package commctl

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What may become of an order that a server has read.
func cutOff(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func breakOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, `{"id":"`)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func say(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func sayProblem(status int) http.HandlerFunc {
	return say(status, fmt.Sprintf(`{"type":"/docs/problems/any","title":"No","status":%d,"detail":"because"}`, status))
}

var sayOperation = say(200, `{"id":"`+testID+`","kind":"command","cluster":"web","state":"pending"}`)

// orders are the command lines that begin something, and what they send.
var orders = map[string]string{
	"run --no-wait -o name web -- uname -r": "POST /api/v0/cluster/web/command",
	"operations retry -o name " + testID:    "POST /api/v0/operations/" + testID + "/retry",
	"cluster upgrade start -o name web":     "PUT /api/v0/cluster/web/upgrade",
	"cluster deploy start -o name web 7.4":  "PUT /api/v0/cluster/web/deploy",
	"cluster restart start -o name web":     "PUT /api/v0/cluster/web/restart",
}

// answering gives the URL of a server whose answers to orders are those, the last one
// again and again, and what it was sent. It lists one operation, and shows it.
func answering(t *testing.T, answers ...http.HandlerFunc) (url string, s *stubServer) {
	t.Helper()
	s = &stubServer{}
	note := s.handler(nil)
	var next atomic.Int32
	return newHTTPServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet:
		case strings.HasSuffix(r.URL.Path, "/operations"):
			say(200, fmt.Sprintf(`{"operations":[{"id":%q,"request_id":%q}]}`, testID, s.requests()[0].header.Get("X-Request-Id")))(w, r)
			return
		default:
			sayOperation(w, r)
			return
		}
		note.ServeHTTP(httptest.NewRecorder(), r)
		answers[min(int(next.Add(1)), len(answers))-1](w, r)
	}), s
}

// impatience is how long impatient sends an order again.
const impatience = time.Second / 2

// again tries with ever more time for sending an order again until it was, and gives how
// often it was sent: a machine that stands still has no time for that.
func again(try func(limit time.Duration) (sent int)) (sent int) {
	for limit := impatience; sent < 2 && limit < time.Minute; limit *= 2 {
		sent = try(limit)
	}
	return sent
}

// impatient is an App that sends an order again soon, and not for long.
func impatient(t *testing.T, url string) *testApp {
	t.Helper()
	a := appFor(t, url)
	a.againTime, a.againEvery = impatience, 10*time.Millisecond
	return a
}

// An order whose answer is lost is sent again with its key, until the answer names
// the operation.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string][]http.HandlerFunc{
		"cut":                  {cutOff, sayOperation},
		"broken off":           {breakOff, sayOperation},
		"proxy":                {say(502, "<html>"), say(503, ""), say(504, `{"message":"x"}`), sayOperation},
		"away":                 {sayProblem(503), sayProblem(503), sayOperation},
		"proxy knows no more":  {cutOff, say(404, "404 page not found"), say(200, "<html>"), sayOperation},
		"server at fault then": {cutOff, sayProblem(500), sayOperation},
	} {
		for command, line := range orders {
			t.Run(name+" "+command, func(t *testing.T) {
				t.Parallel()
				url, s := answering(t, answers...)
				a := impatient(t, url)
				a.againTime = time.Minute
				require.Zero(t, a.Run(t.Context(), strings.Fields(command)), a.errs)
				require.Equal(t, testID+"\n", a.out.String())
				require.Equal(t, 1, strings.Count(a.errs.String(), "sending the same request again for up to 1m0s\n"), a.errs)
				sent := s.requests()
				require.Len(t, sent, len(answers))
				for _, r := range sent {
					require.Equal(t, []string{line, sent[0].body, sent[0].header.Get("Idempotency-Key")}, []string{r.line, r.body, r.header.Get("Idempotency-Key")})
				}
				require.NotEmpty(t, sent[0].header.Get("Idempotency-Key"))
			})
		}
	}
}

// What is not known in the end has a code of its own. What the server says of an order
// counts, also of one that was lost before, unless it did not look at it.
func TestLostAnswerThatStaysLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		code    int
		sent    int // 0 for many
	}{
		"cut":                   {[]http.HandlerFunc{cutOff}, exitUnknown, 0},
		"broken off":            {[]http.HandlerFunc{breakOff}, exitUnknown, 0},
		"proxy":                 {[]http.HandlerFunc{say(504, "")}, exitUnknown, 0},
		"cut, away":             {[]http.HandlerFunc{cutOff, sayProblem(503)}, exitUnknown, 0},
		"cut, at fault":         {[]http.HandlerFunc{cutOff, sayProblem(500)}, exitUnknown, 0},
		"cut, other credential": {[]http.HandlerFunc{cutOff, sayProblem(403)}, exitUnknown, 2},
		"cut, throttled":        {[]http.HandlerFunc{cutOff, sayProblem(429)}, exitUnknown, 2},
		"cut, not there":        {[]http.HandlerFunc{cutOff, sayProblem(404)}, exitNotFound, 2},
		"cut, in the way":       {[]http.HandlerFunc{cutOff, cutOff, sayProblem(409)}, exitConflict, 3},
		"away":                  {[]http.HandlerFunc{sayProblem(503)}, exitUnavailable, 0},
		"away, not there":       {[]http.HandlerFunc{sayProblem(503), sayProblem(404)}, exitNotFound, 2},
		"wrong":                 {[]http.HandlerFunc{sayProblem(400)}, exitUsage, 1},
		"forbidden":             {[]http.HandlerFunc{sayProblem(403)}, exitForbidden, 1},
		"throttled":             {[]http.HandlerFunc{sayProblem(429)}, exitUnavailable, 1},
		"at fault":              {[]http.HandlerFunc{sayProblem(500)}, exitUnavailable, 1},
		"not ours":              {[]http.HandlerFunc{say(200, "<html>")}, exitUsage, 1},
	} {
		for command, line := range orders {
			t.Run(name+" "+command, func(t *testing.T) {
				t.Parallel()
				var a *testApp
				try := func(limit time.Duration) (sent int) {
					url, s := answering(t, c.answers...)
					a = impatient(t, url)
					a.againTime = limit
					require.Equal(t, c.code, a.Run(t.Context(), strings.Fields(command)), a.errs)
					require.Empty(t, a.out.String())
					return len(s.requests())
				}
				if c.sent == 0 {
					require.Greater(t, again(try), 1)
				} else {
					require.Equal(t, c.sent, try(time.Minute))
				}
				if c.code != exitUnknown {
					require.NotContains(t, a.errs.String(), "may have been begun")
					return
				}
				look := "commctl operations list -c web\n"
				if strings.HasPrefix(line, "POST /api/v0/operations/") {
					look = "commctl operations list -o wide\n"
				}
				require.Regexp(t, `commctl: error: the (command of web|retry of operation `+testID+`|\w+ of web) may have been begun, but no answer says so: `, a.errs)
				require.True(t, strings.HasSuffix(a.errs.String(), ". Do not repeat it before you have looked: "+look), a.errs)
			})
		}
	}
}

// A server that reads the order and says nothing.
func TestNoAnswerInTime(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		code    int
	}{
		"once": {[]http.HandlerFunc{hang, sayOperation}, 0}, "always": {[]http.HandlerFunc{hang}, exitUnknown},
		"while it is sent again": {[]http.HandlerFunc{sayProblem(503), hang}, exitUnknown},
	} {
		try := func(limit time.Duration) (sent int) {
			url, s := answering(t, c.answers...)
			a := impatient(t, url)
			a.againTime = limit
			connection, err := a.connect()
			require.NoError(t, err)
			connection.http.Transport.(*http.Transport).ResponseHeaderTimeout = 200 * time.Millisecond
			code := a.Run(t.Context(), strings.Fields("run --no-wait -o name web -- uname"))
			if sent = len(s.requests()); sent > 1 {
				require.Equal(t, c.code, code, "%s: %s", name, a.errs)
			}
			return sent
		}
		if c.code == 0 {
			require.Greater(t, try(time.Minute), 1)
		} else {
			require.Greater(t, again(try), 1)
		}
	}
	// Before one is lost, none is cut off by our own limit, which would make it the first.
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(impatience * 3 / 2) // outlasts our limit, which nothing but its time shows
		sayProblem(503)(w, r)
	}
	url, _ := answering(t, sayProblem(503), slow)
	a := impatient(t, url)
	require.Equal(t, exitUnavailable, a.Run(t.Context(), strings.Fields("run web -- uname")), a.errs)
}

// An order that no server can have read is not sent again.
func TestOrderThatDidNotArrive(t *testing.T) {
	t.Parallel()
	secure := httptest.NewUnstartedServer(http.HandlerFunc(sayOperation))
	secure.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	for name, endpoints := range map[string][]string{
		"nobody listens": {deadEndpoint, deadEndpoint2}, "certificate is not believed": {secure.URL}, "certificate is wanted": {secure.URL, deadEndpoint},
	} {
		a := newTestApp(t)
		a.configure(t, map[string]any{"endpoint": endpoints, "token": "x", "insecure": name == "certificate is wanted"})
		require.Equal(t, exitUnreachable, a.Run(t.Context(), strings.Fields("run web -- uname")), "%s: %s", name, a.errs)
		require.Contains(t, a.errs.String(), "No servers could be reached.")
		require.NotContains(t, a.errs.String(), "again")
	}
	// Where certificates are well, and over HTTP/2, it may have arrived.
	require.Greater(t, again(func(limit time.Duration) int {
		var got atomic.Int32
		over2 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got.Add(1); r.ProtoMajor == 2 {
				cutOff(w, r)
			}
		}))
		over2.EnableHTTP2 = true
		over2.StartTLS()
		t.Cleanup(over2.Close)
		a := impatient(t, over2.URL)
		a.againTime = limit
		a.configure(t, map[string]any{"endpoint": over2.URL, "token": "x", "insecure": true})
		require.Equal(t, exitUnknown, a.Run(t.Context(), strings.Fields("run web -- uname")), a.errs)
		return int(got.Load())
	}), 1)

	// One that was lost is sent again while nobody listens.
	own, err := net.Listen("tcp", "127.0.0.2:0") // where no other test gets the port when it is free
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(nil)
	require.NoError(t, server.Listener.Close())
	server.Listener = own
	t.Cleanup(server.Close)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = server.Listener.Close()
		cutOff(w, r)
	})
	server.Start()
	a := impatient(t, server.URL)
	a.configure(t, map[string]any{"endpoint": []string{deadEndpoint, server.URL}, "token": "x"})
	require.Equal(t, exitUnknown, a.Run(t.Context(), strings.Fields("run web -- uname")), a.errs)
	require.Equal(t, 1, strings.Count(a.errs.String(), "Could not connect to"), a.errs)
}

// A server that goes away after it has begun something does not make it look as if it
// had not.
func TestServerGoesAwayAfterItHasBegun(t *testing.T) {
	t.Parallel()
	for command, code := range map[string]int{
		"operations retry -o name " + testID: 0, "operations retry --wait " + testID: exitUnknown,
		"cluster upgrade start -o name web": exitUnknown, "run --no-wait -o name web -- uname": 0, "run web -- uname": exitUnknown,
	} {
		var gone atomic.Bool
		url := newHTTPServer(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && gone.Load() {
				cutOff(w, r)
			}
			gone.Store(r.Method != http.MethodGet)
			sayOperation(w, r)
		})
		a := appFor(t, url)
		require.Equal(t, code, a.Run(t.Context(), strings.Fields(command)), "%s: %s", command, a.errs)
		if code == 0 {
			require.Equal(t, testID+"\n", a.out.String())
		} else {
			require.Regexp(t, "operation "+testID+" was begun, and commctl did not see its end|upgrade of web may have been begun", a.errs)
		}
	}
}

// Ctrl-C ends it at once, and it is told what is not known.
func TestInterruptedWhileTheAnswerIsLost(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string][]http.HandlerFunc{"between": {cutOff}, "while it is sent": {cutOff, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		url, _ := answering(t, answers...)
		a := appFor(t, url)
		told := make(chan struct{})
		a.Err = &tellingWriter{a.errs, "commctl: " + url, told}
		a.againTime, a.againEvery = time.Hour, time.Hour
		if name != "between" {
			a.againEvery = time.Millisecond
		}
		code := make(chan int, 1)
		go func() { code <- a.Run(ctx, strings.Fields("run web -- uname")) }()
		<-told
		cancel()
		require.Equal(t, exitInterrupted, <-code)
		require.True(t, strings.HasSuffix(a.errs.String(), "The command of web may have been begun. To look: commctl operations list -c web\n"), a.errs)
	}
}

// TestLostAnswersOfTheRealAPI: the operation that was begun is found, and is the only
// one.
func TestLostAnswersOfTheRealAPI(t *testing.T) {
	t.Parallel()
	server, record := newRealAPIWith(t, &doing{})
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).Run())
	run := func(url string, code int, command string) *testApp {
		t.Helper()
		a := impatient(t, url)
		a.againTime = time.Minute
		require.Equal(t, code, a.Run(t.Context(), strings.Fields(command)), "%s: %s%s", command, a.out, a.errs)
		return a
	}
	run(server.URL, 0, "cluster create web")
	run(server.URL, 0, "host create -c web 192.0.2.10 "+key)
	// losing is a way to the server on which the answer to the first order is lost.
	losing := func() string {
		var lost atomic.Bool
		return newHTTPServer(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && lost.CompareAndSwap(false, true) {
				server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			server.Config.Handler.ServeHTTP(w, r)
		})
	}
	count := func(kind string) int {
		return len(strings.Fields(run(server.URL, 0, "operations list -o name -c web --kind "+kind).out.String()))
	}

	id := strings.TrimSpace(run(losing(), 0, "run --no-wait -o name web -- uname -r").out.String())
	require.Equal(t, 1, count("command"))
	op, err := record.Operation(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, []string{"uname", "-r"}, op.Command.Argv)

	a := run(losing(), 0, "cluster restart start -o name web")
	require.NotContains(t, a.errs.String(), "runs already")
	rollout := strings.TrimSpace(a.out.String())
	require.Equal(t, 1, count("restart"))
	require.Contains(t, run(losing(), 0, "cluster restart start -o name web").errs.String(), "runs already: operation "+rollout)

	run(server.URL, 0, "operations cancel --wait "+rollout)
	retry := strings.TrimSpace(run(losing(), 0, "operations retry -o name "+rollout).out.String())
	require.Equal(t, 2, count("restart"))
	op, err = record.Operation(t.Context(), retry)
	require.NoError(t, err)
	require.Equal(t, rollout, op.RetryOf)
}
