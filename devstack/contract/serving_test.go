package contract

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/devstack/loopback"
)

// serving says how a further API server of an installation is started.
type serving struct {
	env    []string // more settings, or others
	args   []string
	file   string // content of the configuration file, "" for none
	stdin  string // what it reads there
	scheme string // http when empty
	port   int    // that args or file say; else a free one is given by the environment
	dir    string // working directory
	client *http.Client
}

// server is one of those.
type server struct {
	url    string
	client *http.Client
	log    string // file
}

// own are the settings of the installation that a further server does not take
// over: it gets them from args and file.
var own = []string{"COMMISSAIRE_USERS_FILE=", "COMMISSAIRE_LISTEN_INTERFACE=", "COMMISSAIRE_LISTEN_PORT=", "COMMISSAIRE_LOG_LEVEL="}

// inherited are the installation's settings but those: where database and
// Temporal are.
func (s *site) inherited() []string {
	return slices.DeleteFunc(slices.Clone(s.Environment()), func(e string) bool {
		return slices.ContainsFunc(own, func(name string) bool { return strings.HasPrefix(e, name) })
	})
}

// command prepares a server that is not started yet. Without a file of its own
// it has the installation's users.
func (s *site) command(t *testing.T, o serving) *exec.Cmd {
	t.Helper()
	args := []string{"server"}
	env := s.inherited()
	if o.file != "" {
		path := filepath.Join(t.TempDir(), "commissaire.conf")
		require.NoError(t, os.WriteFile(path, []byte(o.file), 0o600))
		args = append(args, "--config-file", path)
	} else if !slices.Contains(o.args, "--authentication-plugin") && !slices.Contains(o.args, "--no-config-file") && o.stdin == "" {
		env = append(env, "COMMISSAIRE_USERS_FILE="+filepath.Join(s.Dir, "users.json"))
	}
	cmd := exec.Command(program, append(args, o.args...)...)
	cmd.Env = append(env, o.env...)
	cmd.Dir = o.dir
	if o.stdin != "" {
		cmd.Stdin = strings.NewReader(o.stdin)
	}
	return cmd
}

// serve starts a server on loopback, which ends with the test, and waits until
// it listens.
func (s *site) serve(t *testing.T, o serving) *server {
	t.Helper()
	if o.port == 0 {
		o.port = freePort(t)
		o.env = append(o.env, "COMMISSAIRE_LISTEN_PORT="+strconv.Itoa(o.port))
	}
	if !slices.Contains(o.args, "-i") && !slices.Contains(o.args, "--listen-interface") && !strings.Contains(o.file, "interface") && !strings.Contains(o.stdin, "interface") {
		o.env = append(o.env, "COMMISSAIRE_LISTEN_INTERFACE=127.0.0.1")
	}
	if o.scheme == "" {
		o.scheme = "http"
	}
	if o.client == nil {
		o.client = http.DefaultClient
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port))
	role := "server-" + strconv.Itoa(o.port)
	started := &server{url: o.scheme + "://" + address, client: o.client, log: filepath.Join(s.Dir, role+".log")}
	cmd := s.command(t, o)
	require.NoError(t, s.Launch(cmd, role))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	})
	err := harness.Until(t.Context(), limit, "a server on "+address, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("it ended: %w", err)
		default:
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	require.NoError(t, err, "it says: %s", tail(started.log))
	return started
}

// refuses wants that a server does not start, and gives what it says.
func (s *site) refuses(t *testing.T, o serving) string {
	t.Helper()
	cmd := s.command(t, o)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(t, cmd.Start())
	tooLong := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	require.True(t, tooLong.Stop(), "it runs: %v: %s", cmd.Args, said.String())
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "it says: %s", said.String())
	return said.String()
}

func (s *server) ask(t *testing.T, method, path, body string, changes ...change) answer {
	t.Helper()
	return askAt(t, s.client, s.url, method, path, body, changes...)
}

func (s *server) get(t *testing.T, path string, changes ...change) answer {
	t.Helper()
	return s.ask(t, http.MethodGet, path, "", changes...)
}

// said waits until the server has logged this.
func (s *server) said(t *testing.T, what ...string) {
	t.Helper()
	for _, w := range what {
		err := harness.Until(t.Context(), limit, w, func() (bool, error) {
			text, err := os.ReadFile(s.log)
			return strings.Contains(string(text), w), err
		})
		require.NoError(t, err, "it says: %s", tail(s.log))
	}
}

// freePort is none that the kernel gives to connections: a connection to one of
// those may meet itself before a server listens.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := loopback.Listen(0)
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// runOK runs a program that must end well, and gives all it prints.
func runOK(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}
