package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"

	"commissaire/devstack/harness"
	"commissaire/internal/privatepg"
	"commissaire/internal/secret"
)

// Options say what to measure.
type Options struct {
	Binary string // commissaire
	Dir    string // for everything it leaves behind
	Steps  int    // on record
	Rounds int    // of each side, for each path
	Round  time.Duration
	Out    io.Writer
}

const (
	user, password = "bench", "correct horse"
	readyLimit     = time.Minute
)

var paths = []string{"/api/v0/hosts", "/api/v0/host/10.0.7.7", "/api/v0/operations"}

// Reads measures the API and the bare handler in turns, and prints a line for each
// path.
func Reads(ctx context.Context, o Options) (err error) {
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), MaxConnections: 100})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Stop(privatepg.Fast)) }()
	if err := pg.CreateDatabase(ctx, "bench"); err != nil {
		return err
	}
	dsn := pg.DSN("bench")
	fmt.Fprintf(o.Out, "bench: putting %d hosts and %d steps on record\n", hosts, o.Steps)
	if err := fill(ctx, dsn, o.Steps); err != nil {
		return err
	}
	ours, stopOurs, err := startServer(ctx, o, dsn)
	if err != nil {
		return err
	}
	defer stopOurs()
	bare, stopBare, err := startPeer(ctx, dsn)
	if err != nil {
		return err
	}
	defer stopBare()
	for _, path := range paths {
		if err := compare(ctx, o, path, ours, bare); err != nil {
			return err
		}
	}
	return nil
}

// compare lets both sides answer in turns, so that both have the same machine.
func compare(ctx context.Context, o Options, path, ours, bare string) error {
	asUser := func(r *http.Request) { r.SetBasicAuth(user, password) }
	asNobody := func(*http.Request) {}
	if _, err := load(ctx, ours+path, o.Round/4, asUser); err != nil { // warm both
		return err
	}
	if _, err := load(ctx, bare+path, o.Round/4, asNobody); err != nil {
		return err
	}
	var us, them []sample
	for range o.Rounds {
		s, err := load(ctx, ours+path, o.Round, asUser)
		if err != nil {
			return err
		}
		us = append(us, s)
		if s, err = load(ctx, bare+path, o.Round, asNobody); err != nil {
			return err
		}
		them = append(them, s)
	}
	fmt.Fprintf(o.Out, "bench: path=%s clients=%d rate=%.0f bare_rate=%.0f ratio=%.2f p99_ms=%d bare_p99_ms=%d\n", path, clients,
		medianRate(us), medianRate(them), medianRate(us)/medianRate(them), p99(us).Milliseconds(), p99(them).Milliseconds())
	return nil
}

// startServer starts the API as it ships, with HTTP Basic. Nothing here needs
// Temporal, so there is none.
func startServer(ctx context.Context, o Options, dsn string) (url string, stop func(), err error) {
	key, users := filepath.Join(o.Dir, "seal.key"), filepath.Join(o.Dir, "users.json")
	if err := secret.CreateKeyFile(key); err != nil {
		return "", nil, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 12)
	if err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(users, fmt.Appendf(nil, `{%q: {"hash": %q}}`, user, hash), 0o600); err != nil {
		return "", nil, err
	}
	log, err := os.Create(filepath.Join(o.Dir, "server.log")) // each request has its line, as it ships
	if err != nil {
		return "", nil, err
	}
	defer log.Close()
	return startProcess(ctx, log, o.Binary, []string{"server"}, func(port int) []string {
		return []string{
			"COMMISSAIRE_DATABASE_URL=" + dsn, "COMMISSAIRE_SEALING_KEY_FILE=" + key, "COMMISSAIRE_USERS_FILE=" + users,
			"COMMISSAIRE_LISTEN_INTERFACE=127.0.0.1", "COMMISSAIRE_LISTEN_PORT=" + strconv.Itoa(port),
			"COMMISSAIRE_TEMPORAL_ADDRESS=127.0.0.1:1",
		}
	})
}

// PeerEnv makes the bench command serve the bare handler: address, a space, DSN.
const PeerEnv = "BENCH_PEER"

func startPeer(ctx context.Context, dsn string) (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	return startProcess(ctx, os.Stderr, self, nil, func(port int) []string {
		return []string{fmt.Sprintf("%s=127.0.0.1:%d %s", PeerEnv, port, dsn)}
	})
}

// startProcess starts a server and waits until it listens.
func startProcess(ctx context.Context, log *os.File, binary string, args []string, env func(port int) []string) (url string, stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := l.Addr().(*net.TCPAddr)
	l.Close()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), env(address.Port)...)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	err = harness.Until(ctx, readyLimit, filepath.Base(binary)+" to listen", func() (bool, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address.String())
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
	if err != nil {
		stop()
		return "", nil, err
	}
	return "http://" + address.String(), stop, nil
}
