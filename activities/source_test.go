package activities_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"commissaire/activities"
	"commissaire/internal/fleet"
	"commissaire/internal/hostsource"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// sourced is the steps of sources over a record of their own; the source cmdb is a file,
// and failing a program that says what it should not.
func sourced(t *testing.T) (a *activities.Sources, record *store.Store, path string) {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(keys))
	sealer, err := secret.OpenKeyFile(keys)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), pgtest.New(t), sealer)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	path = filepath.Join(t.TempDir(), "inventory.json")
	program := filepath.Join(t.TempDir(), "inventory")
	writeProgram(t, program, "#!/bin/sh\necho hunter2 >&2\nexit 1\n")
	known, err := hostsource.Build([]hostsource.Spec{
		{Name: "cmdb", Options: map[string]any{"type": "ansible", "path": path}},
		{Name: "failing", Options: map[string]any{"type": "ansible", "path": program}},
	})
	require.NoError(t, err)
	return &activities.Sources{Store: func(tenant string) activities.SourceStore { return db.For(tenant) }, Known: known}, db.For(fleet.DefaultTenant), path
}

// writeProgram writes one that can be run at once: nobody is born who holds it open.
func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o700))
}

func ordersOf(t *testing.T, record *store.Store, source string) fleet.Operation {
	t.Helper()
	op, _, err := record.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindSync, Source: source})
	require.NoError(t, err)
	_, err = record.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	return op
}

func TestSyncOfASource(t *testing.T) {
	t.Parallel()
	a, record, path := sourced(t)
	ask := func(source string) (workflows.Synced, *temporal.ApplicationError) {
		op := ordersOf(t, record, source)
		done, err := execute(how{ctx: t.Context()}, workflows.SyncSource, a.Sync, workflows.SourceInput{
			OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: op.ID}, Source: source,
		})
		var app *temporal.ApplicationError
		errors.As(err, &app)
		require.Equal(t, err == nil, app == nil, "%v", err)
		return done, app
	}
	require.NoError(t, os.WriteFile(path, []byte(`{"all": {"hosts": {"a": null, "b": null}}}`), 0o600))
	done, err := ask("cmdb")
	require.Nil(t, err)
	require.Equal(t, workflows.Synced{Strangers: 2}, done)
	done, err = ask("cmdb") // the same operation goes on
	require.Nil(t, err)
	require.Equal(t, workflows.Synced{Strangers: 2}, done)

	require.NoError(t, os.WriteFile(path, []byte(`{"all": 7}`), 0o600))
	_, err = ask("cmdb")
	require.Equal(t, `source cmdb: it is no inventory: group "all" is neither an object nor a list`, err.Message())
	require.True(t, err.NonRetryable())

	_, err = ask("failing")
	require.Equal(t, "source failing: it ended with exit status 1; the log of the worker has what it said", err.Message())
	require.False(t, err.NonRetryable(), "it may be better the next time")

	_, err = ask("nowhere")
	require.Contains(t, err.Message(), "no worker that was asked has a source nowhere")
	require.False(t, err.NonRetryable(), "another worker may have it")
}

// TestSilenceTakesNoLabelsAway: a program that stops to print _meta is asked for each host,
// and what it does not say of one changes nothing.
func TestSilenceTakesNoLabelsAway(t *testing.T) {
	t.Parallel()
	a, record, path := sourced(t)
	for _, address := range []string{"a", "b"} {
		_, op, err := record.PutHost(t.Context(), store.HostPut{Address: address, Source: "cmdb", Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))}})
		require.NoError(t, err)
		require.NoError(t, record.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "not of interest"))
	}
	says := func(list, hostB string) (workflows.Synced, error) {
		text := fmt.Sprintf(`#!/bin/sh
case "$*" in
--list) echo '%s' ;;
"--host a") echo '{"labels": {"env": "prod"}}' ;;
"--host b") %s ;;
esac
`, list, hostB)
		writeProgram(t, path, text)
		op := ordersOf(t, record, "cmdb")
		done, err := execute(how{ctx: t.Context()}, workflows.SyncSource, a.Sync, workflows.SourceInput{
			OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: op.ID}, Source: "cmdb",
		})
		require.NoError(t, record.EndOperation(t.Context(), op.ID, fleet.OperationSucceeded, ""))
		return done, err
	}
	labels := func(env string) {
		t.Helper()
		for _, address := range []string{"a", "b"} {
			h, err := record.Host(t.Context(), address)
			require.NoError(t, err)
			require.Equal(t, map[string]string{"env": env}, h.Labels)
		}
	}
	done, err := says(`{"web": ["a", "b"], "_meta": {"hostvars": {"a": {"labels": {"env": "old"}}, "b": {"labels": {"env": "old"}}}}}`, "exit 1")
	require.NoError(t, err)
	require.Equal(t, workflows.Synced{Changed: 2}, done)
	labels("old")

	_, err = says(`{"web": ["a", "b"]}`, "exit 1")
	require.ErrorContains(t, err, `source cmdb: --host "b": it ended with exit status 1`)
	labels("old")

	done, err = says(`{"web": ["a", "b"]}`, `echo '{"labels": {"env": "prod"}}'`)
	require.NoError(t, err)
	require.Equal(t, workflows.Synced{Changed: 2}, done)
	labels("prod")
}

func TestRefreshOrdersOnce(t *testing.T) {
	t.Parallel()
	a, record, _ := sourced(t)
	refresh := func() {
		_, err := execute(how{ctx: t.Context()}, workflows.OrderRefresh, a.Refresh, workflows.SourceRef{Tenant: fleet.DefaultTenant, Source: "cmdb"})
		require.NoError(t, err)
	}
	refresh()
	refresh()
	ops, _, err := record.Operations(t.Context(), store.OperationFilter{Kind: fleet.KindSync})
	require.NoError(t, err)
	require.Len(t, ops, 1)
	require.Equal(t, "schedule", ops[0].RequestedBy)
	require.NoError(t, record.EndOperation(t.Context(), ops[0].ID, fleet.OperationFailed, "x"))
	_, _, err = record.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindSync, Source: "cmdb", DryRun: true})
	require.NoError(t, err)
	refresh() // is left out, which is no failure
}
