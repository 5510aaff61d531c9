package migrations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/migrations"
)

// TestUpFromTheEighthVersion: its binary goes on with rollouts and their hosts beside
// commands of the new one, which hold neither.
func TestUpFromTheEighthVersion(t *testing.T) {
	t.Parallel()
	dsn, conn := upTo(t, 8)
	_, err := conn.Exec(t.Context(), first)
	require.NoError(t, err)
	require.NoError(t, migrations.Up(t.Context(), dsn))
	const command = `'{"argv": ["true"], "timeout": "1m0s"}'`
	for _, sql := range []string{
		"INSERT INTO operation (id, tenant, kind, cluster, command, holds) VALUES ('00000000-0000-0000-0000-000000000004', 'default', 'command', 'c', " + command + ", false)",
		"INSERT INTO operation (id, tenant, kind, cluster, command, holds) VALUES ('00000000-0000-0000-0000-000000000005', 'default', 'command', 'c', " + command + ", false)",
		`INSERT INTO host_run (operation_id, tenant, address, position, state, started, holds)
			SELECT id, 'default', 'h' || i, i, 'running', now(), false FROM operation, generate_series(1, 3) i WHERE kind = 'command'`,
		"INSERT INTO step (operation_id, tenant, address, name, attempt) VALUES ('00000000-0000-0000-0000-000000000004', 'default', 'h1', 'command', 1)",
		// What the binary before does.
		"INSERT INTO output (step_id, position, data) SELECT id, 100, 'x' FROM step",
		"INSERT INTO operation (id, tenant, kind, cluster) VALUES ('00000000-0000-0000-0000-000000000006', 'default', 'restart', 'd')",
		"UPDATE host_run SET state = 'succeeded', finished = now() WHERE operation_id = '00000000-0000-0000-0000-000000000003' AND address = 'h2'",
		"UPDATE host_run SET state = 'running', started = now() WHERE operation_id = '00000000-0000-0000-0000-000000000003' AND address = 'h3'",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	require.Equal(t, []string{"0"}, strs(t, conn, "SELECT count(*)::text FROM output WHERE operation_id IS NULL"))
	require.Equal(t, []string{"2"}, strs(t, conn, "SELECT count(*)::text FROM rollout JOIN operation ON id = operation_id WHERE kind = 'command'"))
	for _, sql := range []string{
		"INSERT INTO operation (id, tenant, kind, cluster) VALUES ('00000000-0000-0000-0000-000000000007', 'default', 'upgrade', 'c')",
		"INSERT INTO operation (id, tenant, kind, cluster, holds) VALUES ('00000000-0000-0000-0000-000000000007', 'default', 'upgrade', 'e', false)",
		"INSERT INTO operation (id, tenant, kind, cluster, holds) VALUES ('00000000-0000-0000-0000-000000000007', 'default', 'command', 'e', false)",
		"INSERT INTO operation (id, tenant, kind, cluster, command) VALUES ('00000000-0000-0000-0000-000000000007', 'default', 'command', 'e', " + command + ")",
		"INSERT INTO host_run (operation_id, tenant, address, position, state, started) VALUES ('00000000-0000-0000-0000-000000000006', 'default', 'h3', 0, 'running', now())",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.Error(t, err, sql)
	}
}
