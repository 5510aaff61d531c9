package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/kubetest"
	"commissaire/internal/privatepg/pgtest"
)

// TestNodes does as much harm to rollouts over nodes as every run of the tests has time
// for.
func TestNodes(t *testing.T) {
	t.Parallel()
	if err := kubetest.Available(); err != nil && os.Getenv(kubetest.RequireVariable) != "require" {
		t.Skip(err)
	}
	dir := pgtest.TempDir(t)
	require.NoError(t, harness.Build(t.Context(), "../..", dir, "chaos", "commissaire"))
	binary := filepath.Join(dir, "commissaire")

	var said strings.Builder
	r, err := Nodes(t.Context(), NodeOptions{Binary: binary, Dir: dir, Lanes: 3, Runs: 12, Seed: 1, Out: &said, Restore: time.Minute})
	require.NoError(t, err, said.String())
	require.Equal(t, "k8s: runs=12 cordons_leaked=0 foreign_removed=0 over_budget=0", r.String(), said.String())
	require.True(t, r.OK(), said.String())
	require.Positive(t, r.Evicted)
	require.Greater(t, r.Harmed, r.Runs/2, said.String())
}

// A run is the same whenever it is repeated, and there is one of every sort among many.
func TestRunsOfASeed(t *testing.T) {
	t.Parallel()
	counts := occurrences{"node.drain": 3, "host.reboot": 3, workflowTask: 20}
	strikes, acts := map[string]bool{}, map[string]bool{}
	for n := range 300 {
		run := draw(1, n, counts)
		require.Equal(t, run, draw(1, n, counts))
		require.NotEqual(t, strikeNone+actNone, run.strike+run.act)
		strikes[run.strike], acts[run.act] = true, true
	}
	require.Len(t, strikes, 6)
	require.Len(t, acts, 7)
}
