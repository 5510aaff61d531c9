// Package pgtest gives every test a database of its own, migrated, on a private
// Postgres that the test process starts once. Tests may all run in parallel.
//
//	dsn := pgtest.New(t)       // a migrated database, a clone of a template (about 10 ms)
//	dsn := pgtest.Empty(t)     // one without a schema
//	c := pgtest.NewCluster(t)  // a whole server, for tests that stop it (about 2 s)
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"commissaire/internal/privatepg"
	"commissaire/migrations"
)

const (
	setupTimeout = 5 * time.Minute
	// codeObjectInUse is "is being accessed by other users" (PostgreSQL, appendix A).
	codeObjectInUse = "55006"
	// maxConnections is for all parallel tests of a package together.
	maxConnections = 300
)

// New gives a migrated database that nobody else uses. It is dropped when the
// test ends.
func New(t testing.TB) (dsn string) {
	t.Helper()
	s := mustShared(t)
	return s.create(t, " TEMPLATE "+pgx.Identifier{s.template}.Sanitize()+" STRATEGY FILE_COPY")
}

// Empty gives a database without a schema.
func Empty(t testing.TB) (dsn string) {
	t.Helper()
	return mustShared(t).create(t, "")
}

// shared is the server of this test process.
type shared struct {
	server   *privatepg.Server
	template string
	admin    sync.Mutex // CREATE and DROP DATABASE hinder each other, so they queue here
	count    atomic.Int64
}

var startShared = sync.OnceValues(func() (*shared, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	dir, err := tempDir()
	if err != nil {
		return nil, err
	}
	server, err := privatepg.Start(ctx, privatepg.Options{
		Dir: filepath.Join(dir, "pg"), NoSync: true, MaxConnections: maxConnections,
		ExtraSettings: map[string]string{"shared_buffers": "64MB", "max_wal_size": "128MB"},
	})
	if err != nil {
		return nil, err
	}
	if err := reapAfterUs(dir, server.PID()); err != nil {
		return nil, err
	}
	print, err := migrations.Fingerprint()
	if err != nil {
		return nil, err
	}
	s := &shared{server: server, template: "template_" + print[:16]}
	if err := server.CreateDatabase(ctx, s.template); err != nil {
		return nil, err
	}
	return s, migrations.Up(ctx, server.DSN(s.template))
})

func mustShared(t testing.TB) *shared {
	t.Helper()
	s, err := startShared()
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	return s
}

func (s *shared) create(t testing.TB, how string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", s.count.Add(1))
	if err := s.exec("CREATE DATABASE " + name + how); err != nil {
		t.Fatalf("test database: %v", err)
	}
	t.Cleanup(func() {
		if err := s.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("test database: %v", err)
		}
	})
	return s.server.DSN(name)
}

func (s *shared) exec(sql string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	// Also when a test is over, whose database goes then.
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for {
		// Postgres waits 5 s for sessions of the database, or of the template, that are
		// about to end, which on a busy machine take longer.
		var inUse *pgconn.PgError
		if _, err = conn.Exec(ctx, sql); !errors.As(err, &inUse) || inUse.Code != codeObjectInUse {
			return err
		}
	}
}

// memoryDir makes a clone take 10 ms where a slow disk takes 300 ms.
const (
	memoryDir      = "/dev/shm"
	memoryDirSpace = 2 << 30 // bytes free to be chosen; containers often have 64 MiB
)

// tempDir makes a directory that the account of a Postgres may pass, as
// t.TempDir's parents need not be: under $TMPDIR when that is set, else in
// memory when there is enough.
func tempDir() (string, error) {
	parent := os.Getenv("TMPDIR")
	var fs syscall.Statfs_t
	if parent == "" && syscall.Statfs(memoryDir, &fs) == nil && fs.Bavail*uint64(fs.Bsize) >= memoryDirSpace {
		parent = memoryDir
	}
	dir, err := os.MkdirTemp(parent, "pgtest")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// TempDir is like t.TempDir with a short path, all of whose parents the account
// of a Postgres may pass.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := tempDir()
	if err != nil {
		t.Fatalf("directory for a test Postgres: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("directory of a test Postgres: %v", err)
		}
	})
	return dir
}

// keepOpen holds our end of the reaper's pipe, which must not be collected.
var keepOpen *os.File

// reapAfterUs starts a shell that waits for the end of this process, however it
// comes, then stops the server and removes its directory. No hook of the
// testing package would see a kill, a panic or a timeout.
func reapAfterUs(dir string, pid int) error {
	const script = `read -r _; kill -QUIT "$2"; while kill -0 "$2"; do sleep 0.1; done; rm -rf "$1"`
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	cmd := exec.Command("sh", "-c", script, "sh", dir, strconv.Itoa(pid))
	cmd.Stdin = theirs // the other streams are /dev/null, so go test does not wait for it
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // ctrl-C is not for it
	if err := cmd.Start(); err != nil {
		return err
	}
	keepOpen = ours
	return cmd.Process.Release()
}
