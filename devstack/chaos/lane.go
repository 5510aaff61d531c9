package chaos

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	"golang.org/x/crypto/bcrypt"

	"commissaire/internal/privatepg"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
)

const (
	clusterName = "chaos"
	user        = "chaos"
	password    = "chaos"
	hostCount   = 3
)

// lane is a whole installation with three hosts of its own: database, Temporal
// namespace, API server, and one worker at a time. Lanes run side by side.
type lane struct {
	dir      string
	binary   string
	env      []string
	api      string
	db       *pgxpool.Pool
	temporal client.Client
	fleet    *remotetest.Fleet
	server   *exec.Cmd
}

func newLane(ctx context.Context, dir, binary string, pg *privatepg.Server, temporalAddress, name string) (_ *lane, err error) {
	l := &lane{dir: filepath.Join(dir, name), binary: binary}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	if err := pg.CreateDatabase(ctx, name); err != nil {
		return nil, err
	}
	if l.db, err = pgxpool.New(ctx, pg.DSN(name)); err != nil {
		return nil, err
	}
	if l.temporal, err = client.NewLazyClient(client.Options{HostPort: temporalAddress, Namespace: name}); err != nil {
		return nil, err
	}
	keyFile, usersFile := filepath.Join(l.dir, "seal.key"), filepath.Join(l.dir, "users.json")
	if err := secret.CreateKeyFile(keyFile); err != nil {
		return nil, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(usersFile, fmt.Appendf(nil, `{"%s": {"hash": "%s"}}`, user, hash), 0o600); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	l.api = "http://127.0.0.1:" + strconv.Itoa(port)
	l.env = append(os.Environ(),
		"COMMISSAIRE_DATABASE_URL="+pg.DSN(name),
		"COMMISSAIRE_TEMPORAL_ADDRESS="+temporalAddress,
		"COMMISSAIRE_TEMPORAL_NAMESPACE="+name,
		"COMMISSAIRE_SEALING_KEY_FILE="+keyFile,
		"COMMISSAIRE_USERS_FILE="+usersFile,
		"COMMISSAIRE_LISTEN_INTERFACE=127.0.0.1",
		"COMMISSAIRE_LISTEN_PORT="+strconv.Itoa(port),
		"COMMISSAIRE_LOG_LEVEL=warn",
		"COMMISSAIRE_HEARTBEAT_TIMEOUT=2s",
		"COMMISSAIRE_REBOOT_TIMEOUT=60s",
		"COMMISSAIRE_STEP_TIMEOUT=60s",
	)
	if l.fleet, err = remotetest.Open(ctx, filepath.Join(l.dir, "hosts"), hosts()...); err != nil {
		return nil, err
	}
	if out, err := l.command("migrate").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("migrate: %w\n%s", err, out)
	}
	if l.server, err = l.start("server"); err != nil {
		return nil, err
	}
	return l, l.ready(ctx)
}

func hosts() []remotetest.HostConfig {
	var out []remotetest.HostConfig
	for i := range hostCount {
		out = append(out, remotetest.HostConfig{Name: fmt.Sprintf("h%d", i+1)})
	}
	return out
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (l *lane) command(args ...string) *exec.Cmd {
	cmd := exec.Command(l.binary, args...)
	cmd.Env = l.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a process of the product; what it says goes to a file.
func (l *lane) start(role string, env ...string) (*exec.Cmd, error) {
	cmd := l.command(role)
	cmd.Env = append(cmd.Env, env...)
	log, err := os.OpenFile(filepath.Join(l.dir, role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

// kill ends a process at once, as a crash would.
func kill(cmd *exec.Cmd) {
	if cmd != nil && cmd.Process != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func (l *lane) close() {
	kill(l.server)
	if l.fleet != nil {
		_ = l.fleet.Close()
	}
	if l.temporal != nil {
		l.temporal.Close()
	}
	if l.db != nil {
		l.db.Close()
	}
}

func (l *lane) ready(ctx context.Context) error {
	return until(ctx, 30*time.Second, "the API to be ready", func() (bool, error) {
		response, err := http.Get(l.api + "/readyz")
		if err != nil {
			return false, nil
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK, nil
	})
}

// call makes one request; any status outside 2xx and accept is an error.
func (l *lane) call(ctx context.Context, method, path string, body any, accept ...int) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, l.api+"/api/v0/"+path, payload)
	if err != nil {
		return err
	}
	r.SetBasicAuth(user, password)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	for _, code := range accept {
		if response.StatusCode == code {
			return nil
		}
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return nil
}

// forgetHosts removes the hosts from the inventory, so that they can be
// bootstrapped anew.
func (l *lane) forgetHosts(ctx context.Context) error {
	for _, h := range l.fleet.Hosts() {
		if err := l.call(ctx, http.MethodDelete, "host/"+url.PathEscape(h.Address()), nil, http.StatusNotFound); err != nil {
			return err
		}
	}
	return nil
}

// order starts the operations of a kind: a bootstrap of each host, or one
// restart of the cluster. It gives the ids of the operations.
func (l *lane) order(ctx context.Context, kind string) ([]string, error) {
	var before string
	if err := l.db.QueryRow(ctx, `SELECT coalesce((SELECT id::text FROM operation ORDER BY id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000')`).Scan(&before); err != nil {
		return nil, err
	}
	switch kind {
	case "bootstrap":
		if err := l.call(ctx, http.MethodPut, "cluster/"+clusterName, map[string]any{}); err != nil {
			return nil, err
		}
		for _, h := range l.fleet.Hosts() {
			if err := l.call(ctx, http.MethodPut, "host/"+url.PathEscape(h.Address()), map[string]any{
				"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(l.fleet.ClientKey())),
				"remote_user":  h.User(), "port": h.Port(), "cluster": clusterName,
			}); err != nil {
				return nil, err
			}
		}
	case "restart":
		if err := l.call(ctx, http.MethodPut, "cluster/"+clusterName+"/restart", nil); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("unknown kind " + kind)
	}
	rows, err := l.db.Query(ctx, `SELECT id::text FROM operation WHERE id > $1::uuid ORDER BY id`, before)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// ended says whether every one of the operations has ended.
func (l *lane) ended(ctx context.Context, ids []string) (bool, error) {
	var open int
	err := l.db.QueryRow(ctx, `SELECT count(*) FROM operation WHERE id::text = ANY($1) AND finished IS NULL`, ids).Scan(&open)
	return open == 0, err
}

// until waits for a condition, asking often.
func until(ctx context.Context, limit time.Duration, what string, check func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := check()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s for %s", limit, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
