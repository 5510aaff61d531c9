package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

func TestContainerManagers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	names, err := f.ContainerManagers(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{}, names)

	want := fleet.ContainerManager{Name: "kube", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{
		"server_url": "https://192.0.2.1", "token": "hunter2", "port": 6443.0, "certificate_key_path": "/etc/key",
		"users":   []any{map[string]any{"name": "ann", "Password": "hunter2", "client-key-data": "hunter2"}},
		"nested":  map[string]any{"kubeconfig": map[string]any{"a": "hunter2"}, "clientSecret": "hunter2"},
		"headers": map[string]any{"Authorization": "hunter2"}, "proxies": []any{"http://ann:hunter2@192.0.2.2:3128/", "http://192.0.2.3/?at=a@b"},
	}}
	shown := fleet.ContainerManager{Name: "kube", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{
		"server_url": "https://192.0.2.1", "token": secret.Redacted, "port": 6443.0, "certificate_key_path": "/etc/key",
		"users":   []any{map[string]any{"name": "ann", "Password": secret.Redacted, "client-key-data": secret.Redacted}},
		"nested":  map[string]any{"kubeconfig": secret.Redacted, "clientSecret": secret.Redacted},
		"headers": map[string]any{"Authorization": secret.Redacted}, "proxies": []any{"http://" + secret.Redacted + "@192.0.2.2:3128/", "http://192.0.2.3/?at=a@b"},
	}}
	for range 2 {
		got, err := f.PutContainerManager(ctx, want)
		require.NoError(t, err)
		require.Equal(t, shown, got)
	}
	require.Equal(t, "hunter2", want.Options["token"], "what the caller gave stays as it is")
	got, err := f.ContainerManager(ctx, "kube")
	require.NoError(t, err)
	require.Equal(t, shown, got)
	require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM container_manager WHERE container_manager::text LIKE '%hunter2%' OR position('hunter2'::bytea IN sealed) > 0"))

	other := want
	other.Options = map[string]any{"server_url": "https://192.0.2.1", "token": "hunter3"}
	_, err = f.PutContainerManager(ctx, other)
	requireKind(t, fleet.Conflict, err)
	require.NotContains(t, err.Error(), "hunter")
	other = want
	other.Type = fleet.ContainerManagerOpenShift
	_, err = f.PutContainerManager(ctx, other)
	requireKind(t, fleet.Conflict, err)
	_, err = f.PutContainerManager(ctx, got)
	requireKind(t, fleet.Conflict, err) // what is shown is not what is stored

	got, err = f.PutContainerManager(ctx, fleet.ContainerManager{Name: "a", Type: fleet.ContainerManagerTrivial})
	require.NoError(t, err)
	require.Equal(t, fleet.ContainerManager{Name: "a", Type: fleet.ContainerManagerTrivial, Options: map[string]any{}}, got)
	names, err = f.ContainerManagers(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "kube"}, names)

	require.NoError(t, f.DeleteContainerManager(ctx, "kube"))
	requireKind(t, fleet.NotFound, f.DeleteContainerManager(ctx, "kube"))
	_, err = f.ContainerManager(ctx, "kube")
	requireKind(t, fleet.NotFound, err)
}

func TestConcurrentPutContainerManager(t *testing.T) {
	t.Parallel()
	f := setup(t)
	errs := together(12, func(i int) error {
		_, err := f.PutContainerManager(t.Context(), fleet.ContainerManager{Name: "m", Type: fleet.ContainerManagerTrivial, Options: map[string]any{"token": i % 3}})
		return err
	})
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		requireKind(t, fleet.Conflict, err)
	}
	require.Equal(t, 4, won, "those with the token that came first")
}

// TestEveryTableWithSecretsIsResealed: a key is dropped when no table needs it.
func TestEveryTableWithSecretsIsResealed(t *testing.T) {
	t.Parallel()
	f := setup(t)
	rows, err := f.sql.Query(t.Context(), "SELECT table_name::text FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'sealed'")
	require.NoError(t, err)
	var table string
	tables := map[string]string{}
	for rows.Next() {
		require.NoError(t, rows.Scan(&table))
		require.Contains(t, keysInUseSQL, " "+table)
		tables[table] = sealedTables[table]
	}
	require.NoError(t, rows.Err())
	require.Equal(t, sealedTables, tables)
}
