package migrations_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"commissaire/internal/privatepg/pgtest"
	"commissaire/migrations"
)

// first is what the first version leaves behind: a bootstrap that succeeded, a
// restart that ended, and one at work on its second host of three.
const first = `
	INSERT INTO cluster (tenant, name, network) VALUES ('default', 'c', 'default');
	INSERT INTO host (tenant, address, cluster, state) SELECT 'default', 'h' || i, 'c', 'active' FROM generate_series(1, 3) i;
	INSERT INTO operation (id, tenant, kind, cluster, host, state, started, finished) VALUES
		('00000000-0000-0000-0000-000000000001', 'default', 'bootstrap', NULL, 'h1', 'succeeded', now(), now()),
		('00000000-0000-0000-0000-000000000002', 'default', 'restart', 'c', NULL, 'failed', now(), now()),
		('00000000-0000-0000-0000-000000000003', 'default', 'restart', 'c', NULL, 'running', now(), NULL);
	INSERT INTO host_run (operation_id, tenant, address, position, state, reason, started, finished) VALUES
		('00000000-0000-0000-0000-000000000001', 'default', 'h1', 0, 'succeeded', '', now(), now()),
		('00000000-0000-0000-0000-000000000002', 'default', 'h1', 0, 'failed', 'x', now(), now()),
		('00000000-0000-0000-0000-000000000002', 'default', 'h2', 1, 'skipped', 'x', NULL, now()),
		('00000000-0000-0000-0000-000000000003', 'default', 'h1', 0, 'succeeded', '', now() - interval '10 s', now()),
		('00000000-0000-0000-0000-000000000003', 'default', 'h2', 1, 'running', '', now(), NULL),
		('00000000-0000-0000-0000-000000000003', 'default', 'h3', 2, 'pending', '', NULL, NULL);
	INSERT INTO step (operation_id, tenant, address, name, attempt)
		VALUES ('00000000-0000-0000-0000-000000000003', 'default', 'h2', 'reboot', 1);
	INSERT INTO output (step_id, position, data) SELECT id, p, 'x' FROM step, unnest('{0,1,2}'::bigint[]) p`

// upTo gives a database with the schema of a version.
func upTo(t *testing.T, version int64) (dsn string, conn *pgx.Conn) {
	t.Helper()
	dsn = pgtest.Empty(t)
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	db := stdlib.OpenDB(*config)
	defer db.Close()
	old, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("."))
	require.NoError(t, err)
	_, err = old.UpTo(t.Context(), version)
	require.NoError(t, err)
	return dsn, connect(t, dsn)
}

func TestUpFromTheFirstVersion(t *testing.T) {
	t.Parallel()
	dsn, conn := upTo(t, 1)
	_, err := conn.Exec(t.Context(), first)
	require.NoError(t, err)

	require.NoError(t, migrations.Up(t.Context(), dsn))
	require.Equal(t, []string{"1", "2", "3"}, strs(t, conn, "SELECT hosts::text FROM operation ORDER BY id"))
	rollouts := strs(t, conn, "SELECT concat_ws(' ', policy, pending, running, succeeded, failed, skipped, busy) FROM rollout ORDER BY operation_id")
	require.Equal(t, []string{"{} 0 0 0 1 1 0", "{} 1 1 1 0 0 10"}, rollouts)
	require.Equal(t, []string{"0 1", "1 2", "2 3"}, strs(t, conn, "SELECT concat_ws(' ', position, seq) FROM output WHERE operation_id = '00000000-0000-0000-0000-000000000003' AND xid = '0' ORDER BY seq"))

	// The binary of the first version goes on with the new schema.
	for _, sql := range []string{
		"UPDATE host_run SET state = 'succeeded', finished = now() WHERE operation_id = '00000000-0000-0000-0000-000000000003' AND address = 'h2'",
		"UPDATE host_run SET state = 'running', started = now() WHERE operation_id = '00000000-0000-0000-0000-000000000003' AND address = 'h3'",
		"INSERT INTO output (step_id, position, data) SELECT id, 3, 'y' FROM step",
		"INSERT INTO operation (id, tenant, kind, cluster) VALUES ('00000000-0000-0000-0000-000000000004', 'default', 'restart', 'd')",
		"INSERT INTO host_run (operation_id, tenant, address, position) SELECT '00000000-0000-0000-0000-000000000004', tenant, address, row_number() OVER () FROM host",
	} {
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	rollouts = strs(t, conn, "SELECT concat_ws(' ', policy, pending, running, succeeded, hosts) FROM rollout JOIN operation ON id = operation_id WHERE finished IS NULL ORDER BY id")
	require.Equal(t, []string{"{} 0 1 2 3", "{} 3 0 0 3"}, rollouts)
	require.Equal(t, []string{"host h2 succeeded", "host h3 running"}, strs(t, conn, "SELECT concat_ws(' ', kind, address, state) FROM event WHERE operation_id = '00000000-0000-0000-0000-000000000003' ORDER BY xid, seq"))
	require.Equal(t, []string{"true"}, strs(t, conn, "SELECT (seq > 3 AND xid > '0' AND operation_id IS NOT NULL)::text FROM output WHERE position = 3"))
}

// TestUpFromTheSecondVersion: its binary deletes hosts and clusters that the new one
// has registered with a container manager.
func TestUpFromTheSecondVersion(t *testing.T) {
	t.Parallel()
	dsn, conn := upTo(t, 2)
	_, err := conn.Exec(t.Context(), first)
	require.NoError(t, err)
	require.NoError(t, migrations.Up(t.Context(), dsn))
	for _, sql := range []string{
		"INSERT INTO container_manager (tenant, name, type, sealed, key_id) VALUES ('default', 'm', 'trivial', 'x', 1)",
		"INSERT INTO node (tenant, address, manager) SELECT tenant, address, 'm' FROM host",
		"UPDATE host SET cluster = NULL WHERE address = 'h1'",
		"DELETE FROM host WHERE address = 'h2'",
		"DELETE FROM cluster",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	require.Equal(t, []string{"h1", "h3"}, strs(t, conn, "SELECT address FROM node ORDER BY address"))
	require.Equal(t, []string{"3"}, strs(t, conn, "SELECT count(*)::text FROM operation"), "the record is untouched")
}

// TestUpFromTheThirdVersion: its binary goes on with container managers, nodes and
// operations, and knows nothing of those of the new one.
func TestUpFromTheThirdVersion(t *testing.T) {
	t.Parallel()
	dsn, conn := upTo(t, 3)
	const managers = `INSERT INTO container_manager (tenant, name, type, sealed, key_id) VALUES ('default', 'm', 'trivial', 'x', 1), ('default', 'k', 'kubernetes', 'x', 1);
		INSERT INTO node (tenant, address, manager) SELECT tenant, address, 'm' FROM host`
	_, err := conn.Exec(t.Context(), first+";"+managers)
	require.NoError(t, err)
	require.NoError(t, migrations.Up(t.Context(), dsn))
	require.Equal(t, []string{"2"}, strs(t, conn, "SELECT count(*)::text FROM container_manager WHERE checking IS NULL"))
	require.Equal(t, []string{"3"}, strs(t, conn, "SELECT count(*)::text FROM node WHERE ready AND NOT leaving AND status IS NULL"))
	for _, sql := range []string{
		"INSERT INTO container_manager (tenant, name, type, sealed, key_id) VALUES ('default', 'n', 'kubernetes', 'x', 1)",
		"UPDATE node SET manager = 'n', registered = now() WHERE address = 'h1'",
		"INSERT INTO operation (id, tenant, kind, host) VALUES ('00000000-0000-0000-0000-000000000004', 'default', 'bootstrap', 'h3')",
		"INSERT INTO operation (id, tenant, kind, cluster) VALUES ('00000000-0000-0000-0000-000000000005', 'default', 'restart', 'd')",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	_, err = conn.Exec(t.Context(), "INSERT INTO operation (id, tenant, kind, host, manager) VALUES ('00000000-0000-0000-0000-000000000006', 'default', 'unregister', 'gone', 'k')")
	require.NoError(t, err)
	require.Equal(t, []string{"00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003", "00000000-0000-0000-0000-000000000005"},
		strs(t, conn, "SELECT operation_id::text FROM rollout ORDER BY 1"), "what is on one host does not roll")
}

// TestUpFromTheFourthVersion: its binary goes on with host runs, and knows nothing of
// cordons.
func TestUpFromTheFourthVersion(t *testing.T) {
	t.Parallel()
	dsn, conn := upTo(t, 4)
	_, err := conn.Exec(t.Context(), first)
	require.NoError(t, err)
	require.NoError(t, migrations.Up(t.Context(), dsn))
	for _, sql := range []string{
		"UPDATE host_run SET cordon = 'out', cordon_manager = 'k' WHERE state = 'running'",
		"UPDATE host_run SET state = 'failed', reason = 'x', finished = now() WHERE state = 'running'",
		"INSERT INTO operation (id, tenant, kind, host) VALUES ('00000000-0000-0000-0000-000000000004', 'default', 'bootstrap', 'h3')",
		"INSERT INTO host_run (operation_id, tenant, address, position) VALUES ('00000000-0000-0000-0000-000000000004', 'default', 'h3', 0)",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	require.Equal(t, []string{"h2 failed k"}, strs(t, conn, "SELECT concat_ws(' ', address, state, cordon_manager) FROM host_run WHERE cordon <> 'none'"))
	_, err = conn.Exec(t.Context(), "UPDATE host_run SET cordon = 'restoring' WHERE cordon = 'none'")
	require.ErrorContains(t, err, "host_run_cordon_manager", "somebody must know whom to ask")
}
