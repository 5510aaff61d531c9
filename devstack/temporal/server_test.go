package temporal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/privatepg/pgtest"
	"commissaire/workflows"
)

// limit is how long something may take that has nothing to wait for: far more than it
// needs, since the machine may be busy.
const limit = 3 * time.Minute

// crashDSN makes this binary the process that TestGoesOnAfterKill kills.
const crashDSN = "TEMPORAL_TEST_CRASH_DSN"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(crashDSN); dsn != "" {
		if err := serveUntilKilled(dsn); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func TestInMemoryWithUI(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Options{Logger: errorsOf(t)})
	require.NoError(t, err)
	c := dial(t, s.Addr())
	stop := startWorker(t, c)

	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: "found", TaskQueue: queue, TypedSearchAttributes: temporal.NewSearchAttributes(workflows.AttributeCluster.ValueSet("blue")),
	}, countTo, 3)
	require.NoError(t, err)
	var done int
	require.NoError(t, run.Get(t.Context(), &done))
	require.Equal(t, 3, done)
	stop()

	page, err := http.Get(s.UIURL() + "/namespaces/default/workflows")
	require.NoError(t, err)
	defer page.Body.Close()
	require.Equal(t, http.StatusOK, page.StatusCode)
	body, err := io.ReadAll(page.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "<html", "the UI's assets are in the binary")

	require.NoError(t, s.Stop())
	_, err = net.DialTimeout("tcp", s.Addr(), limit)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestEverythingListensOnLoopback(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Options{NoUI: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	require.Empty(t, s.UIURL())
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		table, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 on this machine, so nothing listens there
		}
		require.NoError(t, err)
		for _, socket := range ourSockets(t) {
			for line := range strings.Lines(string(table)) {
				f := strings.Fields(line) // proc_pid_net(5): 1 local address, 3 state, 9 inode
				if len(f) > 9 && f[9] == socket && f[3] == "0A" {
					require.Regexp(t, "^[0-9A-F]{6}7F:", f[1], "something listens beyond 127.0.0.0/8")
				}
			}
		}
	}
}

// ourSockets gives the inodes of this process's sockets.
func ourSockets(t *testing.T) (inodes []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink(fd)
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes
}

func TestTakenPorts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port

	_, err = Start(t.Context(), Options{UIPort: taken})
	require.ErrorContains(t, err, fmt.Sprintf("web UI: 127.0.0.1:%d is in use", taken))
	_, err = Start(t.Context(), Options{Port: taken})
	require.ErrorContains(t, err, fmt.Sprintf("frontend: 127.0.0.1:%d is in use", taken))
}

func TestDSNIsNotShown(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Options{PostgresDSN: "host=x password=hunter2"})
	require.ErrorContains(t, err, "not a postgres:// URL")
	require.NotContains(t, err.Error(), "hunter2")
}

// A process with the server and a worker is killed in the middle of a
// workflow, twice; the third one brings the workflow to its end.
func TestGoesOnAfterKill(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewCluster(t).DSN
	const steps = 40
	begin := time.Now()
	addr, kill := startKillable(t, dsn)
	t.Logf("first start on an empty Postgres: %s", time.Since(begin).Round(time.Millisecond))
	c := dial(t, addr)
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "count", TaskQueue: queue}, countTo, steps)
	require.NoError(t, err)
	for _, reached := range []int{5, 15} {
		untilCounted(t, c, reached)
		kill()
		begin = time.Now()
		addr, kill = startKillable(t, dsn)
		t.Logf("start after a kill -9: %s", time.Since(begin).Round(time.Millisecond))
		c = dial(t, addr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var done int
	require.NoError(t, c.GetWorkflow(ctx, "count", run.GetRunID()).Get(ctx, &done))
	require.Equal(t, steps, done)
}

// A start that is cut off while it makes the databases is repeated by the next.
func TestCutOffWhileMakingDatabases(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewCluster(t).DSN
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	standStill(t, dsn)
	for _, at := range []string{"temporal_unfinished", "temporal_visibility_unfinished"} {
		_, err := conn.Exec(t.Context(), "ALTER ROLE CURRENT_USER SET test.stand_still = '"+at+"'")
		require.NoError(t, err)
		cmd := killable(dsn)
		require.NoError(t, cmd.Start())
		require.EventuallyWithT(t, func(collect *assert.CollectT) {
			var there bool
			require.NoError(collect, conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", at).Scan(&there))
			require.True(collect, there)
		}, limit, 20*time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		var whole bool
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", strings.TrimSuffix(at, "_unfinished")).Scan(&whole))
		require.False(t, whole)
	}
	_, err = conn.Exec(t.Context(), "ALTER ROLE CURRENT_USER RESET test.stand_still")
	require.NoError(t, err)
	s, err := Start(t.Context(), Options{PostgresDSN: dsn, NoUI: true, Logger: errorsOf(t)})
	require.NoError(t, err)
	require.NoError(t, s.Stop())
	var left int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname LIKE '%unfinished'").Scan(&left))
	require.Zero(t, left)
}

// standStill has whoever makes a database stand still in the middle of its schema, while
// the setting test.stand_still names the database: else it might be whole before anybody
// has seen that it was not.
func standStill(t *testing.T, dsn string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	config.Database = "template1" // of which new ones are copies
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `
		CREATE FUNCTION stand_still() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
			IF current_database() = current_setting('test.stand_still', true) AND to_regclass('schema_version') IS NOT NULL THEN
				PERFORM pg_sleep(3600);
			END IF;
		END $$;
		CREATE EVENT TRIGGER stand_still ON ddl_command_start EXECUTE FUNCTION stand_still()`, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

const queue = "test"

// countTo counts by activities; the query "count" tells how far it is.
func countTo(ctx workflow.Context, n int) (int, error) {
	count := 0
	if err := workflow.SetQueryHandler(ctx, "count", func() (int, error) { return count, nil }); err != nil {
		return 0, err
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Second})
	for count < n {
		if err := workflow.ExecuteActivity(ctx, next, count).Get(ctx, &count); err != nil {
			return count, err
		}
	}
	return count, nil
}

func next(_ context.Context, n int) (int, error) { return n + 1, nil }

func newWorker(c client.Client) worker.Worker {
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflow(countTo)
	w.RegisterActivity(next)
	return w
}

func startWorker(t *testing.T, c client.Client) (stop func()) {
	t.Helper()
	w := newWorker(c)
	require.NoError(t, w.Start())
	return w.Stop
}

func serveUntilKilled(dsn string) error {
	s, err := Start(context.Background(), Options{PostgresDSN: dsn, NoUI: true})
	if err != nil {
		return err
	}
	c, err := client.Dial(quiet(s.Addr()))
	if err != nil {
		return err
	}
	if err := newWorker(c).Start(); err != nil {
		return err
	}
	fmt.Println(s.Addr())
	select {}
}

func killable(dsn string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashDSN+"="+dsn)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func startKillable(t *testing.T, dsn string) (addr string, kill func()) {
	t.Helper()
	cmd := killable(dsn)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "the process ended before it served")
	return strings.TrimSpace(line), kill
}

func untilCounted(t *testing.T, c client.Client, n int) {
	t.Helper()
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		value, err := c.QueryWorkflow(t.Context(), "count", "", "count")
		require.NoError(collect, err)
		var count int
		require.NoError(collect, value.Get(&count))
		require.GreaterOrEqual(collect, count, n)
	}, limit, 20*time.Millisecond)
}

func quiet(addr string) client.Options {
	return client.Options{HostPort: addr, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))}
}

func dial(t *testing.T, addr string) client.Client {
	t.Helper()
	c, err := client.Dial(quiet(addr))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// errorsOf shows what the server calls an error in the test's log.
func errorsOf(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
}
