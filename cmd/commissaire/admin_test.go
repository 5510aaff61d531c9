package main

import (
	"bytes"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// TestRotateTheSealingKey follows docs/operations.md.
func TestRotateTheSealingKey(t *testing.T) {
	t.Parallel()
	dsn, file := pgtest.New(t), filepath.Join(t.TempDir(), "seal.key")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := root()
		cmd.SetOut(&out)
		cmd.SetArgs(append(args, "--database-url", dsn, "--sealing-key-file", file))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	must := func(args ...string) string {
		out, err := run(args...)
		require.NoError(t, err, args)
		return strings.Join(strings.Fields(out), " ")
	}
	must("key", "create", file)
	_, err := run("key", "create", file)
	require.Error(t, err)

	open := func() (*store.DB, uint32) {
		sealer, err := secret.OpenKeyFile(file)
		require.NoError(t, err)
		db, err := store.Open(t.Context(), dsn, sealer)
		require.NoError(t, err)
		t.Cleanup(db.Close)
		return db, sealer.PrimaryKeyID()
	}
	db, first := open()
	creds := secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))}
	_, _, err = db.For(fleet.DefaultTenant).PutHost(t.Context(), store.HostPut{Address: "h", Creds: creds})
	require.NoError(t, err)

	old, new := strconv.Itoa(int(first)), must("key", "add", file)
	require.Equal(t, "KEY SEALS NEEDED "+old+" yes yes "+new+" no no", must("key", "list"))
	must("key", "use", file, new)
	require.Equal(t, "KEY SEALS NEEDED "+old+" no yes "+new+" yes no", must("key", "list"))
	_, err = run("key", "drop", file, old)
	require.ErrorContains(t, err, "commissaire key reseal")
	require.Equal(t, "1", must("key", "reseal"))
	require.Equal(t, "0", must("key", "reseal"))
	_, err = run("key", "drop", file, new)
	require.Error(t, err, "the key in use stays")
	must("key", "drop", file, old)
	require.Equal(t, "KEY SEALS NEEDED "+new+" yes yes", must("key", "list"))

	db, _ = open()
	kept, err := db.For(fleet.DefaultTenant).HostCreds(t.Context(), "h")
	require.NoError(t, err)
	require.Equal(t, "key", string(kept.PrivateKey.Reveal()))

	var usage usageError
	_, err = run("key", "use", file, "first")
	require.ErrorAs(t, err, &usage)
	file = filepath.Join(t.TempDir(), "other.key")
	must("key", "create", file)
	_, err = run("key", "list")
	require.ErrorContains(t, err, "keys ["+new+"]")
}
