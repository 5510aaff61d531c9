package privatepg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// User is the superuser of the cluster and the owner of its databases.
const User = "commissaire"

// DefaultMaxConnections leaves room for Temporal beside us.
const DefaultMaxConnections = 100

const (
	port         = "5432" // only a part of the socket's name
	startTimeout = 3 * time.Minute
	pingTimeout  = 2 * time.Second
	pollInterval = 10 * time.Millisecond
	maxLogSize   = 10 << 20
)

// Options say where and how the server runs.
type Options struct {
	// Dir holds all its state. It is created, with mode 0700.
	Dir string
	// BinDir holds initdb and postgres; "" looks where distributions put them.
	BinDir string
	// NoSync turns durability off: faster, and a power cut loses the data. For tests.
	NoSync bool
	// MaxConnections is 0 for DefaultMaxConnections.
	MaxConnections int
	// ExtraSettings are further settings of postgresql.conf, by name.
	ExtraSettings map[string]string
}

// Server is a running private PostgreSQL.
type Server struct {
	socketDir string
	data      string
	pid       int
	adopted   bool
	exited    chan struct{} // closed when our child has ended; nil when adopted
}

// Start runs the server, or adopts the one that runs on Dir already. The first
// start takes 1 to 3 s (initdb), later ones about 0.2 s. ctx bounds the start,
// not the life of the server, and never for longer than 3 minutes.
func Start(ctx context.Context, o Options) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("private Postgres in %s: %w", o.Dir, err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (*Server, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	a, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if err := a.claimDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := prepare(ctx, o, a)
	if err != nil {
		return nil, err
	}
	if s, err := c.adopt(ctx); s != nil || err != nil {
		return s, err
	}
	return c.start(ctx)
}

// DSN is the address of one of its databases.
func (s *Server) DSN(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User(User), Host: "localhost:" + port, Path: "/" + database,
		RawQuery: url.Values{"host": {s.socketDir}, "sslmode": {"disable"}}.Encode(),
	}
	return u.String()
}

// SocketDir is the directory of its unix socket, for clients that take no DSN.
func (s *Server) SocketDir() string { return s.socketDir }

// PID is the process id of the server.
func (s *Server) PID() int { return s.pid }

// Adopted says whether it ran already when Start came.
func (s *Server) Adopted() bool { return s.adopted }

// CreateDatabase creates a database unless it is there.
func (s *Server) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there)
	if err != nil || there {
		return err
	}
	// CREATE DATABASE takes no parameters, so the name is quoted here.
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// cluster is a prepared directory: what Start works with.
type cluster struct {
	Options
	binDir    string
	socketDir string
	account   *account // nil: run as ourselves
	fresh     bool     // no data yet
}

func (c *cluster) data() string    { return filepath.Join(c.Dir, "data") }
func (c *cluster) logFile() string { return filepath.Join(c.Dir, "postgres.log") }

func prepare(ctx context.Context, o Options, a *account) (*cluster, error) {
	c := &cluster{Options: o, account: a}
	major, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	c.fresh = errors.Is(err, fs.ErrNotExist)
	if err != nil && !c.fresh {
		return nil, err
	}
	if c.binDir, err = findBinaries(ctx, o.BinDir, strings.TrimSpace(string(major))); err != nil {
		return nil, err
	}
	c.socketDir, err = socketDir(o.Dir, a)
	return c, err
}

// command makes argv to be run as the account of the cluster.
func (c *cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.binDir, name), args...)
	cmd.Dir = c.Dir
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "HOME=" + c.Dir, "PATH=" + c.binDir + ":/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:    true,           // keeps the terminal's ctrl-C away from it
		Pdeathsig:  syscall.SIGINT, // Postgres: a clean fast shutdown
		Credential: c.account.credential(),
	}
	return cmd
}

// initialise makes the data directory under another name first, since a cut-off
// initdb leaves one that looks whole.
func (c *cluster) initialise(ctx context.Context) error {
	unfinished := filepath.Join(c.Dir, "data.unfinished")
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	args := []string{
		"--pgdata", unfinished, "--username", User, "--auth-local=trust", "--auth-host=reject",
		"--encoding=UTF8", "--locale=C", "--data-checksums",
	}
	if c.NoSync {
		args = append(args, "--no-sync")
	}
	var out []byte
	err := onOwnThread(func() (err error) {
		cmd := c.command(ctx, "initdb", args...)
		cmd.WaitDelay = pingTimeout // its children may hold the output open
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return os.Rename(unfinished, c.data())
}

func (c *cluster) arguments() []string {
	settings := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": c.socketDir,
		"unix_socket_permissions": "0700",
		"port":                    port,
		"max_connections":         strconv.Itoa(DefaultMaxConnections),
		"shared_buffers":          "128MB",
	}
	if c.MaxConnections != 0 {
		settings["max_connections"] = strconv.Itoa(c.MaxConnections)
	}
	if c.NoSync {
		// synchronous_commit stays on, so that a crash of Postgres alone loses nothing.
		for _, name := range []string{"fsync", "full_page_writes"} {
			settings[name] = "off"
		}
	}
	maps.Copy(settings, c.ExtraSettings)
	args := []string{"-D", c.data()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

func (c *cluster) start(ctx context.Context) (*Server, error) {
	if c.fresh {
		if err := c.initialise(ctx); err != nil {
			return nil, err
		}
	}
	for {
		s, err := c.spawn(ctx)
		if err != nil {
			return nil, err
		}
		err = c.untilReady(ctx, s)
		if err == nil {
			return s, nil
		}
		// After a kill -9 the last backends hold the old shared memory for a moment.
		if !strings.Contains(err.Error(), "shared memory block") || sleep(ctx, 10*pollInterval) != nil {
			return nil, err
		}
	}
}

func (c *cluster) spawn(ctx context.Context) (*Server, error) {
	log, err := c.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := c.command(context.WithoutCancel(ctx), "postgres", c.arguments()...)
	cmd.Stdout, cmd.Stderr = log, log
	s := &Server{socketDir: c.socketDir, data: c.data(), exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(s.exited)
		// Pdeathsig comes when the thread that forked ends, so it must live as
		// long as the server.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	s.pid = cmd.Process.Pid
	return s, nil
}

func (c *cluster) untilReady(ctx context.Context, s *Server) error {
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("postgres ended at once; the end of %s:\n%s", c.logFile(), c.logTail())
		default:
		}
		if sleep(ctx, pollInterval) != nil {
			return errors.Join(fmt.Errorf("not ready in time; see %s: %w", c.logFile(), err), s.Kill())
		}
	}
}

// openLog opens the log for writing and keeps one older one.
func (c *cluster) openLog() (*os.File, error) {
	if info, err := os.Stat(c.logFile()); err == nil && info.Size() > maxLogSize {
		if err := os.Rename(c.logFile(), c.logFile()+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
}

func (c *cluster) logTail() string {
	const size = 2000
	b, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-size):])
}

func (s *Server) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// onOwnThread runs f on a thread that lives until f returns, which Pdeathsig needs.
func onOwnThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
