package contract

import (
	"bytes"
	_ "embed"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

// cli is commctl with a home directory of its own.
type cli struct {
	t    *testing.T
	home string
	env  []string
	in   string // standard input of the next run
}

// said is what a run printed and how it ended.
type said struct {
	t        *testing.T
	line     string
	out, err string
	code     int
}

// newCLI makes one with this ~/.commissaire.json, none when it is nil.
func newCLI(t *testing.T, config M) *cli {
	t.Helper()
	c := &cli{t: t, home: t.TempDir()}
	c.env = []string{"HOME=" + c.home, "PATH=" + os.Getenv("PATH"), "TERM=dumb"}
	if config != nil {
		c.write(".commissaire.json", jsonOf(t, config))
	}
	return c
}

// cli is one for the tester.
func (s *site) cli(t *testing.T) *cli {
	t.Helper()
	return newCLI(t, M{"endpoint": s.API, "username": harness.User, "password": harness.Password})
}

// write puts a file into the home directory and gives its path.
func (c *cli) write(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.home, name)
	require.NoError(c.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (c *cli) run(args ...string) said {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), commctl, args...)
	cmd.Env = c.env
	cmd.Stdin = strings.NewReader(c.in)
	return c.exec(cmd, args)
}

//go:embed terminal.py
var terminal string

// answered runs it on a terminal, where it asks these questions.
func (c *cli) answered(questions [][3]any, args ...string) said {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), python(c.t), append([]string{"-c", terminal, jsonOf(c.t, questions), commctl}, args...)...)
	cmd.Env = c.env
	return c.exec(cmd, args)
}

func (c *cli) exec(cmd *exec.Cmd, args []string) said {
	c.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(c.t, err)
	}
	return said{c.t, strings.Join(args, " "), out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// prints wants exit code 0 and this on standard output.
func (s said) prints(out string) {
	s.t.Helper()
	s.exits(0)
	require.Equal(s.t, out, s.out, s.line)
}

func (s said) exits(code int) said {
	s.t.Helper()
	require.Equal(s.t, code, s.code, "commctl %s: %s%s", s.line, s.out, s.err)
	return s
}

// fails wants this exit code, nothing on standard output, and these on standard
// error.
func (s said) fails(code int, errs ...string) {
	s.t.Helper()
	s.exits(code)
	require.Empty(s.t, s.out, s.line)
	for _, e := range errs {
		require.Contains(s.t, s.err, e, s.line)
	}
}

// stub is a server that answers all requests alike and keeps them, for answers
// that the real one never gives and to see what is sent.
type stub struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

type seen struct {
	method, path, kind, authorization, body string
	commonName                              string
}

func newStub(t *testing.T, status int, body string) *stub {
	s := &stub{}
	s.Server = httptest.NewServer(s.handler(status, body))
	t.Cleanup(s.Close)
	return s
}

func (s *stub) handler(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		one := seen{r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(text), ""}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			one.commonName = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		s.mu.Lock()
		s.seen = append(s.seen, one)
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// last is the newest request.
func (s *stub) last(t *testing.T) seen {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotEmpty(t, s.seen)
	return s.seen[len(s.seen)-1]
}

// cli is one for this server.
func (s *stub) cli(t *testing.T) *cli {
	t.Helper()
	return newCLI(t, M{"endpoint": s.URL, "username": "a", "password": "a"})
}
