package store

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/privatepg"
	"commissaire/internal/privatepg/pgtest"
)

// recovery is the longest that the store may need after Postgres is back, on a busy machine.
const recovery = 3 * time.Minute

func TestOutage(t *testing.T) {
	t.Parallel()
	c := pgtest.NewCluster(t)
	f := open(t, c.DSN)
	f.cluster(t, "c")
	op := f.newHost(t, "h", "c")
	ctx := t.Context()

	for _, mode := range []privatepg.StopMode{privatepg.Immediate, privatepg.Fast} {
		// Callers run on while Postgres goes: none may see anything but an
		// answer or Unavailable.
		stop := make(chan struct{})
		seen := make([]error, 8)
		var wg sync.WaitGroup
		for i := range seen {
			wg.Go(func() {
				for seen[i] == nil {
					select {
					case <-stop:
						return
					default:
					}
					seen[i] = f.act(ctx, i, op.ID)
				}
			})
		}
		c.Down(t, mode)
		require.Eventually(t, func() bool { return f.db.Ping(ctx) != nil }, recovery, 10*time.Millisecond)
		wait := time.AfterFunc(recovery, func() { close(stop) })
		wg.Wait()
		if wait.Stop() {
			close(stop)
		}
		for _, err := range seen {
			requireKind(t, fleet.Unavailable, err)
		}
		for i := range 8 {
			requireKind(t, fleet.Unavailable, f.act(ctx, i, op.ID))
		}

		c.Up(t)
		require.Eventually(t, func() bool { return f.db.Ping(ctx) == nil }, recovery, 10*time.Millisecond)
		for i := range 40 {
			require.NoError(t, f.act(ctx, i%8, op.ID), "no broken connection is left in the pool")
		}
	}
}

// act is one of eight different calls.
func (f *fixture) act(ctx context.Context, i int, operation string) (err error) {
	switch i {
	case 0:
		_, err = f.Hosts(ctx)
	case 1:
		_, err = f.Cluster(ctx, "c")
	case 2:
		_, err = f.BeginOperation(ctx, operation)
	case 3:
		_, err = f.PutCluster(ctx, ClusterPut{Name: "c"})
	case 4:
		_, err = f.Progress(ctx, operation)
	case 5:
		_, err = f.BeginHostRun(ctx, operation, "h")
	case 6:
		_, _, err = f.PutHost(ctx, HostPut{Address: "h", Creds: creds("key")})
	case 7:
		_, err = f.db.PendingOperations(ctx, 0, 5)
	}
	return err
}

func TestOpenWhilePostgresIsDown(t *testing.T) {
	t.Parallel()
	c := pgtest.NewCluster(t)
	c.Down(t, privatepg.Fast)
	db, err := Open(t.Context(), c.DSN, newSealer(t))
	require.NoError(t, err)
	defer db.Close()
	requireKind(t, fleet.Unavailable, db.Ping(t.Context()))
	c.Up(t)
	require.Eventually(t, func() bool { return db.Ping(t.Context()) == nil }, recovery, 10*time.Millisecond)

	_, err = Open(t.Context(), "postgres://u:hunter2@h/db?sslmode=nonsense", nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
}

// TestSilentServer: something accepts connections and says nothing.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	db, err := Open(t.Context(), fmt.Sprintf("postgres://u:hunter2@%s/db?sslmode=disable", l.Addr()), newSealer(t))
	require.NoError(t, err)
	defer db.Close()
	began := time.Now()
	err = db.Ping(t.Context())
	requireKind(t, fleet.Unavailable, err)
	require.NotContains(t, err.Error(), "hunter2")
	require.Less(t, time.Since(began), pingTimeout+time.Minute, "Ping gives up by itself, and not pgx after 2 min")
}

func TestFullPoolIsUnavailable(t *testing.T) {
	t.Parallel()
	f := open(t, pgtest.New(t)+"&pool_max_conns=2")
	for range 2 {
		conn, err := f.db.pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := f.Hosts(ctx)
	requireKind(t, fleet.Unavailable, err)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Hosts(gone)
	require.ErrorIs(t, err, context.Canceled, "a caller who left is not told that Postgres is down")
}

func TestLockTimeoutIsUnavailable(t *testing.T) {
	t.Parallel()
	f := open(t, pgtest.New(t)+"&pool_max_conns=1") // whose setting is changed below
	f.cluster(t, "c")
	require.Less(t, lockTimeout, callTimeout)
	var setting string
	require.NoError(t, f.db.pool.QueryRow(t.Context(), "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'").Scan(&setting))
	require.Equal(t, milliseconds(patience*lockTimeout), setting)
	_, err := f.db.pool.Exec(t.Context(), "SET lock_timeout = '100 ms'")
	require.NoError(t, err)
	tx, err := f.sql.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // nothing to save
	_, err = tx.Exec(t.Context(), "SELECT FROM cluster FOR UPDATE")
	require.NoError(t, err)
	err = f.RemoveMember(t.Context(), "c", "h")
	requireKind(t, fleet.Unavailable, err)
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "55P03", refused.Code)
}

func TestErrorKinds(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for code, kind := range map[string]fleet.Kind{
		"08006": fleet.Unavailable, "08P01": fleet.Unavailable, "53300": fleet.Unavailable, "53100": fleet.Unavailable,
		"57P01": fleet.Unavailable, "57P02": fleet.Unavailable, "57P03": fleet.Unavailable, "57014": fleet.Unavailable,
		"55P03": fleet.Unavailable, "40001": fleet.Unavailable, "40P01": fleet.Unavailable, "28P01": fleet.Unavailable, "3D000": fleet.Unavailable,
		"22021": fleet.Invalid, "22003": fleet.Invalid, "42P01": "", "23514": "",
	} {
		err := f.db.failed(t.Context(), fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code, Message: "detail"}))
		require.Equal(t, kind, fleet.KindOf(err), code)
	}
	_, err := f.PutCluster(t.Context(), ClusterPut{Name: "a\x00b"})
	requireKind(t, fleet.Invalid, err)
	_, err = f.PutCluster(t.Context(), ClusterPut{Name: "\xff"})
	requireKind(t, fleet.Invalid, err)
}

// TestAFaultOfOursIsNoOutage: what Postgres never saw, or refused for good, is
// not to be tried again, and other callers keep their connections.
func TestAFaultOfOursIsNoOutage(t *testing.T) {
	t.Parallel()
	f := setup(t)
	op := f.newHost(t, "h", "")
	before := f.db.pool.Stat().NewConnsCount()
	for _, facts := range []fleet.Facts{
		{OS: "debian", CPUs: 99999999999}, {OS: "debian", Memory: 1 << 40}, // no int4, so pgx cannot send them
		{OS: "debian", CPUs: -1}, // refused by a CHECK constraint
	} {
		err := f.RecordFacts(t.Context(), op.ID, "h", facts)
		requireKind(t, "", err)
		_, err = f.Hosts(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, before, f.db.pool.Stat().NewConnsCount(), "the pool was not emptied")
}

func TestClosedPoolIsUnavailable(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.db.Close()
	_, err := f.Hosts(t.Context())
	requireKind(t, fleet.Unavailable, err)
}

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	f := open(t, pgtest.New(t)+"&pool_max_conns=1")
	for range 5 {
		require.NoError(t, f.db.CheckSchema(t.Context()))
	}
	require.Equal(t, int64(1), f.db.pool.Stat().NewConnsCount(), "it asks over the pool")

	f.exec(t, "DELETE FROM goose_db_version WHERE version_id > 0")
	err := f.db.CheckSchema(t.Context())
	requireKind(t, "", err)
	require.ErrorContains(t, err, "run: commissaire migrate")
	f.exec(t, "DROP TABLE goose_db_version")
	require.ErrorContains(t, f.db.CheckSchema(t.Context()), "schema version 0")
}
