package app

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// script runs one of scripts/ over a database, and gives what it says.
func script(t *testing.T, dsn, name string, args ...string) (said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../scripts/"+name, args...)
	cmd.Env = append(os.Environ(), "COMMISSAIRE_DATABASE_URL="+dsn)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// backup makes one, and gives its file.
func backup(t *testing.T, dsn string) string {
	t.Helper()
	dir := t.TempDir()
	said, err := script(t, dsn, "backup", dir)
	require.NoError(t, err, said)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.Contains(t, said, files[0])
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	return files[0]
}

func ask(t *testing.T, dsn, sql string, args ...any) (out string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&out))
	return out
}

// TestRestore: what a server knew before, it knows afterwards, and it goes on with it.
func TestRestore(t *testing.T) {
	t.Parallel()
	c := config.Defaults()
	c.DatabaseURL, c.SealingKeyFile = pgtest.New(t), filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(c.SealingKeyFile))
	putHost(t, c, "h1")
	// As from another server, which has counted further than this one.
	ask(t, c.DatabaseURL, `UPDATE event SET xid = '9000000000' RETURNING ''`)
	file := backup(t, c.DatabaseURL)
	was := *c

	c.DatabaseURL = pgtest.Empty(t)
	said, err := script(t, c.DatabaseURL, "restore", file)
	require.NoError(t, err, said)
	sealer, err := secret.OpenKeyFile(c.SealingKeyFile)
	require.NoError(t, err)
	require.Contains(t, said, "1 hosts, 1 operations to go on")
	require.Contains(t, said, "sealing keys: "+strconv.FormatUint(uint64(sealer.PrimaryKeyID()), 10))

	var list strings.Builder
	require.NoError(t, ListKeys(t.Context(), c, &list))
	db, err := store.Open(t.Context(), c.DatabaseURL, sealer)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.CheckSchema(t.Context()))
	tenant := db.For(fleet.DefaultTenant)
	creds, err := tenant.HostCreds(t.Context(), "h1")
	require.NoError(t, err)
	require.Equal(t, "key", string(creds.PrivateKey.Reveal()))

	// The dispatcher finds what was ordered, and what happens now comes last.
	pending, err := db.PendingOperations(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, pending, 1)
	_, err = tenant.BeginOperation(t.Context(), pending[0].ID)
	require.NoError(t, err)
	require.NoError(t, tenant.EndOperation(t.Context(), pending[0].ID, fleet.OperationFailed, "x"))
	var states []string
	require.Eventually(t, func() bool { // events settle when older transactions of the server have ended
		events, err := tenant.Events(t.Context(), pending[0].ID, store.EventFilter{})
		require.NoError(t, err)
		states = nil
		for _, e := range events {
			if e.Kind == "operation" {
				states = append(states, e.State)
			}
		}
		return len(states) == 3
	}, 2*time.Minute, 20*time.Millisecond)
	require.Equal(t, []string{"pending", "running", "failed"}, states)

	// With another key file the server does not begin.
	other := *c
	other.SealingKeyFile = filepath.Join(t.TempDir(), "other.key")
	require.NoError(t, secret.CreateKeyFile(other.SealingKeyFile))
	require.ErrorContains(t, refused(t, &other), "restore the key file that belongs to this database")

	// A database that holds something is left alone, also the one that the backup is from.
	for _, dsn := range []string{c.DatabaseURL, was.DatabaseURL} {
		said, err = script(t, dsn, "restore", file)
		require.Error(t, err)
		require.Contains(t, said, "the database is not empty")
	}
}

// TestRestoreIsWhole: a backup that was cut off changes nothing.
func TestRestoreIsWhole(t *testing.T) {
	t.Parallel()
	file := backup(t, pgtest.New(t))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, size := range []int{0, 100, len(text) / 2, len(text) - 10} {
		require.NoError(t, os.WriteFile(file, text[:size], 0o600))
		dsn := pgtest.Empty(t)
		said, err := script(t, dsn, "restore", file)
		require.Error(t, err, size)
		require.Contains(t, said, "nothing was changed")
		require.Equal(t, "0", ask(t, dsn, "SELECT count(*)::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"))
	}
}

// TestBackupFails: nothing is left that looks like a backup.
func TestBackupFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		dsn, want string
		args      []string
	}{
		"no database":      {"postgres://commissaire@127.0.0.1:1/x", "refused", []string{dir}},
		"no folder":        {"postgres://x/x", "is no folder", []string{dir + "/none"}},
		"no argument":      {"postgres://x/x", "usage: backup", nil},
		"a key's password": {"postgres://u@127.0.0.1:1/x?sslmode=verify-full&sslpassword=hunter2", "has sslpassword", []string{dir}},
		"a keyword string": {"host=x password=hunter2", "has a password in keyword form", []string{dir}},
	} {
		said, err := script(t, c.dsn, "backup", c.args...)
		require.Error(t, err, name)
		require.Contains(t, said, c.want, name)
		require.NotContains(t, said, "hunter2", name)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestBackupHidesThePassword: other users of the machine can read arguments. Programs
// that stand in for those of Postgres, and for docker, write down what they were given.
func TestBackupHidesThePassword(t *testing.T) {
	t.Parallel()
	bin, dir := t.TempDir(), t.TempDir()
	log := filepath.Join(bin, "log")
	const spy = "#!/bin/sh\necho \"${0##*/} $* PGPASSWORD=${PGPASSWORD-}\" >>\"${0%/*}/log\"\ncat >/dev/null\n"
	syscall.ForkLock.RLock() // a program that another test starts now would hold them open for writing, and nobody could run them
	for _, name := range []string{"pg_dump", "pg_restore", "psql", "docker"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(spy), 0o700))
	}
	syscall.ForkLock.RUnlock()
	secretFile := filepath.Join(bin, "url")
	dsn := url.URL{Scheme: "postgres", User: url.UserPassword("ann", "p@ss/w:ö%&"), Host: "db:5433", Path: "/fleet", RawQuery: "sslmode=require&pool_max_conns=4"}
	require.NoError(t, os.WriteFile(secretFile, []byte(dsn.String()+"\n"), 0o600))
	run := func(args ...string) string {
		require.NoError(t, os.RemoveAll(log))
		cmd := exec.CommandContext(t.Context(), "../../scripts/backup", append(args, dir)...)
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "COMMISSAIRE_DATABASE_URL_FILE=" + secretFile}
		cmd.Stdin = strings.NewReader("")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		for _, f := range files { // the next run has the same second
			require.NoError(t, os.Remove(f))
		}
		return string(text)
	}
	said := run()
	require.Contains(t, said, "--dbname=postgres://ann@db:5433/fleet?sslmode=require PGPASSWORD=p@ss/w:ö%&\n")
	require.Equal(t, 3, strings.Count(said, "PGPASSWORD=p@ss/w:ö%&\n"))
	said = run("--compose")
	require.Contains(t, said, "docker compose exec -T postgres pg_dump --format=custom --no-owner --no-privileges --dbname=postgresql:///commissaire?user=commissaire PGPASSWORD=\n")
	require.NotContains(t, said, "ann")
}
