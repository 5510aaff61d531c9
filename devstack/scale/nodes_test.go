package scale

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/kubetest"
	"commissaire/internal/privatepg/pgtest"
)

// TestNodes drains as many nodes as every run of the tests has time for.
func TestNodes(t *testing.T) {
	t.Parallel()
	if err := kubetest.Available(); err != nil && os.Getenv(kubetest.RequireVariable) != "require" {
		t.Skip(err)
	}
	dir := pgtest.TempDir(t)
	require.NoError(t, harness.Build(t.Context(), "../..", dir, "", "commissaire"))
	binary := filepath.Join(dir, "commissaire")

	r, err := Nodes(t.Context(), Options{
		Binary: binary, Dir: dir, Hosts: 20, Seed: 1, MaxUnavailable: "2", Together: "3",
		Shutdown: 50 * time.Millisecond, Downtime: 300 * time.Millisecond, Limit: 4 * time.Minute, Out: t.Output(),
	})
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.True(t, r.OK(), r.String())
	require.Equal(t, 3, r.Limit)
	require.Equal(t, 3, r.Most)
	require.Positive(t, r.Evictions)
	require.Regexp(t, `^nodes: hosts=20 budgets=4 evictions=\d+ wall_s=\d+\.\d dry_run_ms=\d+ worker_mb=\d+ cordoned_most=3 of=3 over_budget=0 not_restored=0$`, r.String())
}
