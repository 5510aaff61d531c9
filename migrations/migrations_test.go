package migrations_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/migrations"
)

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func strs(t *testing.T, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return out
}

func TestUpAndCheck(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Empty(t)
	needed, err := migrations.Needed()
	require.NoError(t, err)
	conn := connect(t, dsn)
	require.ErrorContains(t, migrations.Check(t.Context(), conn), "schema version 0 is older than version "+strconv.FormatInt(needed, 10))

	require.NoError(t, migrations.Up(t.Context(), dsn))
	require.NoError(t, migrations.Check(t.Context(), conn))
	require.NoError(t, migrations.Up(t.Context(), dsn), "again changes nothing")

	_, err = conn.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)", needed+1)
	require.NoError(t, err)
	require.NoError(t, migrations.Check(t.Context(), conn), "a newer schema serves an older binary")
}

func TestUpInParallel(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Empty(t)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = migrations.Up(t.Context(), dsn) })
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.NoError(t, migrations.Check(t.Context(), connect(t, dsn)))
}

func TestErrorsHideThePassword(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://u:hunter2@localhost:1/db?sslmode=nonsense",
		"postgres://u:hunter2@localhost:1/db?host=" + t.TempDir(),
		"host=localhost port=1 password=hunter2 sslmode=nonsense",
	} {
		err := migrations.Up(t.Context(), dsn)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// TestStatesMirrorFleet compares each list in a CHECK constraint with all
// constants of the Go type, read from the source, so that a new state without a
// migration fails here.
func TestStatesMirrorFleet(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.New(t))
	constants := fleetConstants(t)
	for constraint, goType := range map[string]string{
		"host_state": "HostState", "operation_state": "OperationState", "operation_kind": "OperationKind",
		"host_run_state": "HostRunState", "step_state": "StepState", "network_type": "NetworkType",
		"container_manager_type": "ContainerManagerType", "host_run_cordon": "Cordon", "host_watch_state": "WatchState",
	} {
		require.NotEmpty(t, constants[goType], goType)
		require.ElementsMatch(t, constants[goType], checkList(t, conn, constraint), constraint)
	}

	var roles []string // that a token can have
	for _, r := range fleet.Roles {
		roles = append(roles, string(r))
	}
	require.ElementsMatch(t, roles, checkList(t, conn, "api_token_role"))

	for _, s := range constants["HostState"] {
		used := slices.ContainsFunc(fleet.HostTransitions, func(tr fleet.HostTransition) bool {
			return string(tr.From) == s || string(tr.To) == s
		})
		require.True(t, used, "state %s is in no transition", s)
	}

	for constraint, ended := range map[string]func(string) bool{
		"operation_finished": func(s string) bool { return fleet.OperationState(s).Ended() },
		"host_run_finished":  func(s string) bool { return fleet.HostRunState(s).Ended() },
		"step_finished":      func(s string) bool { return fleet.StepState(s).Ended() },
	} {
		var want []string
		for _, s := range checkList(t, conn, strings.Replace(constraint, "_finished", "_state", 1)) {
			if ended(s) {
				want = append(want, s)
			}
		}
		require.ElementsMatch(t, want, checkList(t, conn, constraint), constraint)
	}
}

var quoted = regexp.MustCompile(`'([^']*)'`)

// checkList gives the quoted words of a CHECK constraint.
func checkList(t *testing.T, conn *pgx.Conn, constraint string) []string {
	t.Helper()
	defs := strs(t, conn, "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1", constraint)
	require.Len(t, defs, 1, constraint)
	var out []string
	for _, m := range quoted.FindAllStringSubmatch(defs[0], -1) {
		out = append(out, m[1])
	}
	return out
}

// fleetConstants reads the string constants of internal/fleet, by type.
func fleetConstants(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("../internal/fleet/*.go")
	require.NoError(t, err)
	out := map[string][]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			typ, isName := spec.Type.(*ast.Ident)
			value, isLiteral := spec.Values[0].(*ast.BasicLit)
			if isName && isLiteral && value.Kind == token.STRING {
				s, err := strconv.Unquote(value.Value)
				require.NoError(t, err)
				out[typ.Name] = append(out[typ.Name], s)
			}
			return true
		})
	}
	return out
}

func TestEveryInventoryRowHasATenant(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.New(t))
	// A tenant's own row is keyed by its name, and output hangs on its step.
	without := strs(t, conn, `SELECT t.table_name::text FROM information_schema.tables t
		WHERE t.table_schema = 'public' AND t.table_name NOT IN ('goose_db_version', 'tenant', 'output')
		AND NOT EXISTS (SELECT FROM information_schema.columns c
			WHERE c.table_schema = 'public' AND c.table_name = t.table_name AND c.column_name = 'tenant' AND c.is_nullable = 'NO')`)
	require.Empty(t, without)
}

func TestEveryConstraintIsNamed(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.New(t))
	// Postgres names what nobody named like this.
	generated := strs(t, conn, `SELECT conname::text FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid
		WHERE c.connamespace = 'public'::regnamespace AND r.relname <> 'goose_db_version'
		AND conname ~ '_(pkey|key|check[0-9]*|fkey[0-9]*|excl)$'`)
	require.Empty(t, generated)
}

func TestRecordDoesNotReferToInventory(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.New(t))
	refs := strs(t, conn, `SELECT conrelid::regclass || ' -> ' || confrelid::regclass FROM pg_constraint
		WHERE contype = 'f' AND conrelid IN ('operation'::regclass, 'host_run'::regclass, 'step'::regclass, 'output'::regclass, 'audit'::regclass) ORDER BY 1`)
	require.Equal(t, []string{"host_run -> operation", "output -> step", "step -> host_run"}, refs)
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.New(t))
	require.Equal(t, []string{fleet.DefaultTenant}, strs(t, conn, "SELECT name FROM tenant"))
	require.Equal(t, []string{"default default flannel_etcd {}"}, strs(t, conn, "SELECT concat_ws(' ', tenant, name, type, options) FROM network"))
	require.Equal(t, "default", fleet.DefaultNetwork)
}

func TestFingerprintIsStable(t *testing.T) {
	t.Parallel()
	a, err := migrations.Fingerprint()
	require.NoError(t, err)
	b, err := migrations.Fingerprint()
	require.NoError(t, err)
	require.Equal(t, a, b)
	require.Len(t, a, 64)
}
