package scale

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/privatepg/pgtest"
)

// TestRun measures a fleet that is small enough for every run of the tests.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := pgtest.TempDir(t)
	require.NoError(t, harness.Build(t.Context(), "../..", dir, "", "commissaire"))
	binary := filepath.Join(dir, "commissaire")

	const hosts = 12
	r, err := Run(t.Context(), Options{
		Binary: binary, Dir: dir, Hosts: hosts, Seed: 1, MaxUnavailable: "25%",
		Shutdown: 50 * time.Millisecond, Downtime: 300 * time.Millisecond, Limit: 3 * time.Minute, Out: t.Output(),
	})
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Equal(t, 3, r.Budget)
	require.Zero(t, r.OverBudget)
	require.Positive(t, r.DownMost)
	require.Positive(t, r.Wall)
	require.Positive(t, r.WorkerMB)
	require.Positive(t, r.EventsMax)
	require.Regexp(t, `^scale: hosts=12 wall_s=\d+\.\d worker_mb=\d+ events_max=\d+ over_budget=0$`, r.String())
}
