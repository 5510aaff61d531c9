package migrations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/migrations"
)

// TestUpFromTheSeventhVersion: its binary goes on with hosts and operations, and what it
// finds on a host does not undo what a source says.
func TestUpFromTheSeventhVersion(t *testing.T) {
	t.Parallel()
	dsn, conn := upTo(t, 7)
	_, err := conn.Exec(t.Context(), first)
	require.NoError(t, err)
	require.NoError(t, migrations.Up(t.Context(), dsn))
	for _, sql := range []string{
		"INSERT INTO operation (id, tenant, kind, cluster) VALUES ('00000000-0000-0000-0000-000000000004', 'default', 'restart', 'd')",
		"INSERT INTO operation (id, tenant, kind, host) VALUES ('00000000-0000-0000-0000-000000000005', 'default', 'bootstrap', 'h3')",
		"INSERT INTO operation (id, tenant, kind, source) VALUES ('00000000-0000-0000-0000-000000000006', 'default', 'sync', 'cmdb')",
		`UPDATE host SET source = 'cmdb', source_facts = '{"os": "fedora", "cpus": 8, "space": 9000000000000}' WHERE address = 'h1'`,
		"UPDATE host SET os = 'debian', os_version = '12', cpus = 2, memory = 3, space = 4",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	require.Equal(t, []string{"fedora 12 8 3 9000000000000", "debian 12 2 3 4", "debian 12 2 3 4"},
		strs(t, conn, "SELECT concat_ws(' ', os, os_version, cpus, memory, space) FROM host ORDER BY address"))
	for _, sql := range []string{
		"INSERT INTO operation (id, tenant, kind, source) VALUES ('00000000-0000-0000-0000-000000000007', 'default', 'restart', 'x')",
		"INSERT INTO operation (id, tenant, kind, cluster) VALUES ('00000000-0000-0000-0000-000000000007', 'default', 'sync', 'x')",
		"INSERT INTO operation (id, tenant, kind, source) VALUES ('00000000-0000-0000-0000-000000000007', 'default', 'sync', 'cmdb')",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.Error(t, err, sql)
	}
}
