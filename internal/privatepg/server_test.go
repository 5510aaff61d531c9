package privatepg_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/internal/privatepg"
	"commissaire/internal/privatepg/pgtest"
)

// helperEnv turns the test binary into a process that starts a server on the
// directory named there, says so, and waits to be killed.
const helperEnv = "PRIVATEPG_TEST_HELPER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		s, err := privatepg.Start(context.Background(), privatepg.Options{Dir: dir, NoSync: true})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(s.DSN("postgres"))
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it or kills us
		if err := s.Stop(privatepg.Fast); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, o privatepg.Options) *privatepg.Server {
	t.Helper()
	o.NoSync = true
	s, err := privatepg.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(privatepg.Immediate)) })
	return s
}

func query(t *testing.T, s *privatepg.Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.Background())
	var out string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&out))
	return out
}

func answers(dsn string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return false
	}
	return conn.Close(ctx) == nil
}

func TestStartStopStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(pgtest.TempDir(t), "deep", "state")
	o := privatepg.Options{Dir: dir, MaxConnections: 17, ExtraSettings: map[string]string{"work_mem": "5MB"}}
	s := start(t, o)
	require.False(t, s.Adopted())
	require.Equal(t, "on", query(t, s, "SHOW data_checksums"))
	require.Equal(t, "17", query(t, s, "SHOW max_connections"))
	require.Equal(t, "5MB", query(t, s, "SHOW work_mem"))
	require.Equal(t, "off", query(t, s, "SHOW fsync"))
	require.Equal(t, "", query(t, s, "SHOW listen_addresses"))
	info, err := os.Stat(s.SocketDir())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	require.NoError(t, s.CreateDatabase(t.Context(), `odd "name"`))
	require.NoError(t, s.CreateDatabase(t.Context(), `odd "name"`))

	for _, end := range []func() error{
		func() error { return s.Stop(privatepg.Fast) },
		func() error { return s.Stop(privatepg.Immediate) },
		func() error { return s.Kill() },
	} {
		dsn := s.DSN("postgres")
		require.NoError(t, end())
		require.False(t, answers(dsn))
		require.NoError(t, end(), "the end of an ended server is no error")
		s = start(t, o)
		require.Equal(t, dsn, s.DSN("postgres"), "the address stays")
		require.Equal(t, "1", query(t, s, `SELECT count(*)::text FROM pg_database WHERE datname = 'odd "name"'`))
	}
}

func TestSyncIsTheDefault(t *testing.T) {
	t.Parallel()
	s, err := privatepg.Start(t.Context(), privatepg.Options{Dir: filepath.Join(pgtest.TempDir(t), "pg")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(privatepg.Fast)) })
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		require.Equal(t, "on", query(t, s, "SHOW "+name))
	}
}

func TestConcurrentStartsShareOneServer(t *testing.T) {
	t.Parallel()
	o := privatepg.Options{Dir: filepath.Join(pgtest.TempDir(t), "pg"), NoSync: true}
	var wg sync.WaitGroup
	servers, errs := make([]*privatepg.Server, 4), make([]error, 4)
	for i := range servers {
		wg.Go(func() { servers[i], errs[i] = privatepg.Start(t.Context(), o) })
	}
	wg.Wait()
	own := 0
	for i, s := range servers {
		require.NoError(t, errs[i])
		require.Equal(t, servers[0].PID(), s.PID())
		if !s.Adopted() {
			own++
		}
	}
	require.Equal(t, 1, own)
	for _, s := range servers {
		require.NoError(t, s.Stop(privatepg.Immediate), "adopted ones stop too")
	}
}

// helper starts the test binary as another process that runs a server.
func helper(t *testing.T, binary, dir string, cred *syscall.Credential) (cmd *exec.Cmd, stdin io.WriteCloser, firstLine string) {
	t.Helper()
	cmd = exec.Command(binary)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), helperEnv+"="+dir, "HOME=/", "XDG_RUNTIME_DIR=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	return cmd, stdin, strings.TrimSpace(line)
}

func TestServerDiesWithItsStarter(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(pgtest.TempDir(t), "pg")
	binary, err := os.Executable()
	require.NoError(t, err)
	cmd, _, dsn := helper(t, binary, dir, nil)
	require.True(t, answers(dsn), dsn)

	adopted, err := privatepg.Start(t.Context(), privatepg.Options{Dir: dir, NoSync: true})
	require.NoError(t, err)
	require.True(t, adopted.Adopted())
	require.Equal(t, dsn, adopted.DSN("postgres"))

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	// A Start in the middle of that shutdown waits for it.
	s := start(t, privatepg.Options{Dir: dir})
	require.Equal(t, "f", query(t, s, "SELECT pg_is_in_recovery()::text")[:1])
	log, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "database system is shut down", "it was a clean shutdown")
	require.NotContains(t, string(log), "not properly shut down")
}

func TestAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root, so all the other tests show it")
	}
	// The test binary lies in a directory of root's own.
	dir := pgtest.TempDir(t)
	self, err := os.Executable()
	require.NoError(t, err)
	binary := filepath.Join(dir, "privatepg.test")
	// Not written by ourselves: what other tests start at that moment would have it open
	// for writing until it becomes another program, and nobody could run it.
	require.NoError(t, exec.Command("install", "-m", "755", self, binary).Run())
	home := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(home, 0o700))
	const nobody = 65534
	require.NoError(t, os.Chown(home, nobody, nobody))

	cmd, stdin, dsn := helper(t, binary, filepath.Join(home, "pg"), &syscall.Credential{Uid: nobody, Gid: nobody})
	require.True(t, answers(dsn), dsn)
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
	require.False(t, answers(dsn))
}

func TestLongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(pgtest.TempDir(t), strings.Repeat("long", 30))
	s := start(t, privatepg.Options{Dir: dir})
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(s.SocketDir())) })
	require.Less(t, len(s.SocketDir()), 60)
	require.Equal(t, "1", query(t, s, "SELECT '1'"))
}

func TestForeignSocketDirIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(pgtest.TempDir(t), strings.Repeat("long", 30))
	s := start(t, privatepg.Options{Dir: dir})
	require.NoError(t, s.Stop(privatepg.Fast))
	require.NoError(t, os.RemoveAll(s.SocketDir()))
	require.NoError(t, os.Symlink("/etc", s.SocketDir()))
	t.Cleanup(func() { require.NoError(t, os.Remove(s.SocketDir())) })
	_, err := privatepg.Start(t.Context(), privatepg.Options{Dir: dir, NoSync: true})
	require.ErrorContains(t, err, "not a directory of our own")
	info, err := os.Stat("/etc")
	require.NoError(t, err)
	require.Zero(t, info.Sys().(*syscall.Stat_t).Uid, "what the link names is untouched")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := pgtest.TempDir(t)
	full := filepath.Join(dir, "full")
	require.NoError(t, os.Mkdir(full, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(full, "thesis.txt"), nil, 0o600))
	_, err := privatepg.Start(t.Context(), privatepg.Options{Dir: full})
	require.ErrorContains(t, err, "holds other things")
	info, err := os.Stat(full)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())

	_, err = privatepg.Start(t.Context(), privatepg.Options{Dir: filepath.Join(dir, "a"), BinDir: dir})
	require.ErrorContains(t, err, "apt-get install postgresql")

	old := filepath.Join(dir, "old")
	require.NoError(t, os.MkdirAll(filepath.Join(old, "data"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(old, "lock"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(old, "data", "PG_VERSION"), []byte("9.6\n"), 0o600))
	_, err = privatepg.Start(t.Context(), privatepg.Options{Dir: old})
	require.ErrorContains(t, err, "needs PostgreSQL 9.6")

	_, err = privatepg.Start(t.Context(), privatepg.Options{Dir: filepath.Join(dir, "b"), ExtraSettings: map[string]string{"no_such": "1"}})
	require.ErrorContains(t, err, `unrecognized configuration parameter "no_such"`)

	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = privatepg.Start(done, privatepg.Options{Dir: filepath.Join(dir, "c")})
	require.Error(t, err)
}

func TestClosedParent(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root runs Postgres as another account")
	}
	closed := filepath.Join(pgtest.TempDir(t), "closed")
	require.NoError(t, os.Mkdir(closed, 0o700))
	_, err := privatepg.Start(t.Context(), privatepg.Options{Dir: filepath.Join(closed, "pg")})
	require.ErrorContains(t, err, "may not pass "+closed)
}

func TestUnfinishedInitdbIsNoData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(pgtest.TempDir(t), "pg")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data.unfinished"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data.unfinished", "PG_VERSION"), []byte("15\n"), 0o600))
	s := start(t, privatepg.Options{Dir: dir})
	require.Equal(t, "1", query(t, s, "SELECT '1'"))
}
