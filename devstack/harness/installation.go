// Package harness runs whole installations of the product for the end-to-end
// and chaos tests: the real binary as processes of its own, on a real Postgres
// and a real Temporal, with real sshd hosts.
package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	"golang.org/x/crypto/bcrypt"

	"commissaire/devstack/loopback"
	"commissaire/internal/privatepg"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
)

// The cluster of HostBody, and who asks.
const (
	Cluster = "web"
	User    = "tester"
)

// Password is the user's. Each program of tests has its own: the search for secrets
// looks at all processes of the machine, and those of other tests may hold theirs.
var Password = "correct horse " + rand.Text()

// Options say what an installation is made of.
type Options struct {
	Dir      string                  // for its state and logs
	Name     string                  // database and Temporal namespace
	Binary   string                  // commissaire
	Postgres *privatepg.Server       // the server to make the database on
	Temporal string                  // host:port of the frontend
	Hosts    int                     // Debian ones
	Machines []remotetest.HostConfig // after them
	Env      []string                // further settings
}

// Installation is a database, a Temporal namespace, an API server and hosts.
// Workers are started by the test.
type Installation struct {
	Dir      string
	API      string // URL of the API server, without a path
	DB       *pgxpool.Pool
	Temporal client.Client
	Fleet    *remotetest.Fleet
	Server   *exec.Cmd

	binary string
	env    []string
}

// New makes an installation and starts its API server. The caller closes it.
func New(ctx context.Context, o Options) (_ *Installation, err error) {
	l := &Installation{Dir: filepath.Join(o.Dir, o.Name), binary: o.Binary}
	pg, name := o.Postgres, o.Name
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := pg.CreateDatabase(ctx, name); err != nil {
		return nil, err
	}
	if l.DB, err = pgxpool.New(ctx, pg.DSN(name)); err != nil {
		return nil, err
	}
	if l.Temporal, err = client.NewLazyClient(client.Options{HostPort: o.Temporal, Namespace: name}); err != nil {
		return nil, err
	}
	keyFile, usersFile := filepath.Join(l.Dir, "seal.key"), filepath.Join(l.Dir, "users.json")
	if err := secret.CreateKeyFile(keyFile); err != nil {
		return nil, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(Password), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(usersFile, fmt.Appendf(nil, `{"%s": {"hash": "%s"}}`, User, hash), 0o600); err != nil {
		return nil, err
	}
	var port int // stays ours while the server is killed and started again
	if err := loopback.Choose(loopback.Wanted{Port: &port, What: "the API"}); err != nil {
		return nil, err
	}
	l.API = "http://" + loopback.Address(port)
	l.env = append(os.Environ(),
		"COMMISSAIRE_DATABASE_URL="+pg.DSN(name),
		"COMMISSAIRE_TEMPORAL_ADDRESS="+o.Temporal,
		"COMMISSAIRE_TEMPORAL_NAMESPACE="+name,
		"COMMISSAIRE_SEALING_KEY_FILE="+keyFile,
		"COMMISSAIRE_USERS_FILE="+usersFile,
		"COMMISSAIRE_LISTEN_INTERFACE="+loopback.IP,
		"COMMISSAIRE_LISTEN_PORT="+strconv.Itoa(port),
		"COMMISSAIRE_LOG_LEVEL=warn",
		"COMMISSAIRE_HEARTBEAT_TIMEOUT=2s",
		"COMMISSAIRE_REBOOT_TIMEOUT=60s",
		"COMMISSAIRE_STEP_TIMEOUT=60s",
		"COMMISSAIRE_BOOTSTRAP_PROFILE=none", // hosts are bootstrapped by the dozen
		"COMMISSAIRE_WATCH_INTERVAL=0s",      // what a test does not expect would disturb it
	)
	l.env = append(l.env, o.Env...)
	if l.Fleet, err = remotetest.Open(ctx, filepath.Join(l.Dir, "hosts"), append(hosts(o.Hosts), o.Machines...)...); err != nil {
		return nil, err
	}
	if err := l.migrate(); err != nil {
		return nil, err
	}
	if l.Server, err = l.Start("server"); err != nil {
		return nil, err
	}
	return l, l.Ready(ctx)
}

func hosts(n int) []remotetest.HostConfig {
	var out []remotetest.HostConfig
	for i := range n {
		out = append(out, remotetest.HostConfig{Name: fmt.Sprintf("h%d", i+1)})
	}
	return out
}

func (l *Installation) command(args ...string) *exec.Cmd {
	cmd := exec.Command(l.binary, args...)
	cmd.Env = l.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (l *Installation) migrate() error {
	cmd := l.command("migrate")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("migrate: %w\n%s", err, said.Bytes())
	}
	return nil
}

// Start starts a process of the product; what it says goes to a file.
func (l *Installation) Start(role string, env ...string) (*exec.Cmd, error) {
	cmd := l.command(role)
	cmd.Env = append(cmd.Env, env...)
	return cmd, l.Launch(cmd, role)
}

// Environment is what a process of this installation needs, for a test that
// makes the command itself.
func (l *Installation) Environment() []string { return l.env }

// Launch starts a command as a process of the product in that role.
func (l *Installation) Launch(cmd *exec.Cmd, role string) error {
	log, err := os.OpenFile(filepath.Join(l.Dir, role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	return start(cmd)
}

// starts are carried out by one thread that never ends. A child with Pdeathsig
// dies with the thread that started it, and Go's threads come and go.
var starts = sync.OnceValue(func() chan<- func() {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range todo {
			f()
		}
	}()
	return todo
})

func start(cmd *exec.Cmd) error {
	done := make(chan error)
	starts() <- func() { done <- cmd.Start() }
	return <-done
}

// Kill ends a process at once, as a crash would.
func Kill(cmd *exec.Cmd) {
	if cmd != nil && cmd.Process != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// Close kills the API server and ends the hosts.
func (l *Installation) Close() {
	Kill(l.Server)
	if l.Fleet != nil {
		_ = l.Fleet.Close()
	}
	if l.Temporal != nil {
		l.Temporal.Close()
	}
	if l.DB != nil {
		l.DB.Close()
	}
}

// readyLimit is how long the parts behind the API may be busy.
const readyLimit = 2 * time.Minute

// Ready waits until the API server reports that Postgres and Temporal answer.
func (l *Installation) Ready(ctx context.Context) error {
	return Until(ctx, readyLimit, "the API to be ready", func() (bool, error) {
		response, err := http.Get(l.API + "/readyz")
		if err != nil {
			return false, nil
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK, nil
	})
}

// Response is an answer of the API.
type Response struct {
	Code   int
	Header http.Header
	Body   []byte
}

// Request makes one request with the tester's credentials. body is sent as JSON
// unless it is nil or bytes. path is below /api/v0/.
func (l *Installation) Request(ctx context.Context, method, path string, body any) (*Response, error) {
	return l.RequestWith(ctx, method, path, body, nil)
}

// RequestWith is Request with more headers.
func (l *Installation) RequestWith(ctx context.Context, method, path string, body any, header http.Header) (*Response, error) {
	var payload io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		payload = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, l.API+"/api/v0/"+path, payload)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	r.SetBasicAuth(User, Password)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	return &Response{Code: response.StatusCode, Header: response.Header, Body: text}, err
}

// Call makes one request; any status outside 2xx and accept is an error. While a part
// behind the API is too busy to answer, the server says that the request is to be repeated,
// which is done here, unless that might do it twice.
func (l *Installation) Call(ctx context.Context, method, path string, body any, accept ...int) error {
	var response *Response
	err := Until(ctx, readyLimit, "an answer", func() (ok bool, err error) {
		if response, err = l.Request(ctx, method, path, body); err != nil {
			return false, err
		}
		return response.Code != http.StatusServiceUnavailable || method == http.MethodPost || slices.Contains(accept, response.Code), nil
	})
	if err != nil && response != nil {
		return fmt.Errorf("%s %s: %w: %d: %s", method, path, err, response.Code, response.Body)
	}
	if err != nil {
		return err
	}
	if response.Code/100 == 2 || slices.Contains(accept, response.Code) {
		return nil
	}
	return fmt.Errorf("%s %s: %d: %s", method, path, response.Code, response.Body)
}

// HostBody is the body that registers a host of the fleet.
func (l *Installation) HostBody(h *remotetest.Host) map[string]any {
	return map[string]any{
		"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(l.Fleet.ClientKey())),
		"remote_user":  h.User(), "port": h.Port(), "cluster": Cluster,
	}
}

// Ended says whether every one of the operations has ended.
func (l *Installation) Ended(ctx context.Context, ids []string) (bool, error) {
	var open int
	err := l.DB.QueryRow(ctx, `SELECT count(*) FROM operation WHERE id::text = ANY($1) AND finished IS NULL`, ids).Scan(&open)
	return open == 0, err
}

// How often Until asks: what has taken long is asked for less often, since many wait at
// a time and what they ask costs the machine more than what they wait for.
const (
	askFirst  = 20 * time.Millisecond
	askAtLast = 250 * time.Millisecond
)

// Until waits for a condition. It asks in an interval that grows to a tenth of the time
// that it has waited.
func Until(ctx context.Context, limit time.Duration, what string, check func() (bool, error)) error {
	begun := time.Now()
	for {
		ok, err := check()
		if err != nil || ok {
			return err
		}
		waited := time.Since(begun)
		if waited > limit {
			return fmt.Errorf("waited %s for %s", limit, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(max(waited/10, askFirst), askAtLast)):
		}
	}
}
