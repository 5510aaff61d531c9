package pgtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/internal/privatepg"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/migrations"
)

func scan(t *testing.T, dsn, sql string) (out string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&out))
	return out
}

func TestNewIsMigratedAndOwn(t *testing.T) {
	t.Parallel()
	a, b := pgtest.New(t), pgtest.New(t)
	require.NotEqual(t, a, b)
	require.NoError(t, check(t, a))
	scan(t, a, "INSERT INTO tenant (name) VALUES ('mine') RETURNING name")
	require.Equal(t, "1", scan(t, b, "SELECT count(*)::text FROM tenant"))
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	require.Equal(t, "0", scan(t, pgtest.Empty(t), "SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'"))
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := pgtest.NewCluster(t)
	require.Equal(t, "1", scan(t, c.DSN, "SELECT count(*)::text FROM tenant"))
	c.Down(t, privatepg.Immediate)
	require.Error(t, check(t, c.DSN))
	c.Up(t)
	require.NoError(t, check(t, c.DSN))
}

// check says whether a database answers and has the schema.
func check(t *testing.T, dsn string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	return migrations.Check(t.Context(), conn)
}

const helperEnv = "PGTEST_HELPER"

// TestHelperProcess is a test process of its own that hangs until it is killed.
func TestHelperProcess(t *testing.T) {
	if os.Getenv(helperEnv) == "" {
		t.Skip("runs only as a child of TestNothingIsLeftBehind")
	}
	fmt.Println("DSN " + pgtest.New(t))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^TestHelperProcess$", "-test.v")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	require.NoError(t, cmd.Start())
	var dsn string
	for lines := bufio.NewScanner(stdout); dsn == "" && lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), "DSN "); found {
			dsn = rest
		}
	}
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	dir := filepath.Dir(filepath.Dir(u.Query().Get("host")))
	require.DirExists(t, dir)

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist)
	}, 2*time.Minute, 20*time.Millisecond, dir)
}

func BenchmarkNew(b *testing.B) {
	pgtest.New(b) // the server starts outside the measure
	for b.Loop() {
		pgtest.New(b)
	}
}
