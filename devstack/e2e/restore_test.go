package e2e

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// TestRestoreGoesOn: the database is lost and Temporal with it. From a backup and the key
// file, what was ordered and had not begun is done, and what was under way ends and can
// be retried.
func TestRestoreGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "COMMISSAIRE_REBOOT_TIMEOUT=1h")
	worker := s.worker()
	working, ordered := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1]
	s.bootstrap(harness.Cluster, working)
	working.SetReboot(remotetest.Reboot{NeverReturns: true})
	s.orderRestart(harness.Cluster)
	s.rebooting(working)
	harness.Kill(worker)
	s.addHost(ordered, "")
	require.Equal(t, "pending", s.latest("host="+ordered.Address()).State)

	script := func(dsn, name, argument string) {
		cmd := exec.CommandContext(t.Context(), "../../scripts/"+name, argument)
		cmd.Env = append(os.Environ(), "COMMISSAIRE_DATABASE_URL="+dsn)
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, string(said))
	}
	dir := filepath.Join(workDir, "backup")
	require.NoError(t, os.Mkdir(dir, 0o700))
	script(shared.postgres.DSN(nameOf(t)), "backup", dir)
	files, err := filepath.Glob(dir + "/*.dump")
	require.NoError(t, err)
	require.Len(t, files, 1)
	harness.Kill(s.Server)

	name := nameOf(t) + "_again"
	require.NoError(t, shared.postgres.CreateDatabase(t.Context(), name))
	script(shared.postgres.DSN(name), "restore", files[0])
	working.SetReboot(remotetest.Reboot{})
	require.NoError(t, working.Start(t.Context()))
	env := []string{"COMMISSAIRE_DATABASE_URL=" + shared.postgres.DSN(name), "COMMISSAIRE_TEMPORAL_NAMESPACE=" + name}
	migrate, err := s.Start("migrate", env...)
	require.NoError(t, err)
	require.NoError(t, migrate.Wait())
	s.Server, err = s.Start("server", env...)
	require.NoError(t, err)
	require.NoError(t, s.Ready(t.Context()))
	s.worker(env...)

	s.until(limit, "the server to see the worker", func() bool {
		response, err := http.Get(s.API + "/metrics")
		require.NoError(t, err)
		defer response.Body.Close()
		page, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return strings.Contains(string(page), "\ncommissaire_workers 1\n")
	})
	s.ready(ordered)
	require.Equal(t, "succeeded", s.latest("host="+ordered.Address()).State)
	var restart operationView
	s.until(2*orphanLimit, "the dispatcher to notice", func() bool {
		restart = s.latest("kind=restart")
		return restart.State != "running"
	})
	require.Equal(t, "failed", restart.State)
	require.Contains(t, restart.Reason, "its workflow in Temporal is not there any more")
	s.orderRestart(harness.Cluster)
	require.Equal(t, "succeeded", s.ended("kind=restart").State)
	require.Equal(t, 2, reboots(working), "once for each order")
}
