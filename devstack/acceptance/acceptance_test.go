package acceptance_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/acceptance"
	"commissaire/devstack/harness"
)

// A small set of machines: one with apt, from the base that other tests have made
// already. The whole set is make acceptance.
func TestSmallSet(t *testing.T) {
	if err := acceptance.Available(); err != nil {
		t.Skip(err) // machines need root; scripts/setup-nspawn installs the rest, which CI calls
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // the base may have to be made
	defer cancel()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // Postgres runs as another user when we are root
		require.NoError(t, os.Chmod(d, 0o711))
	}
	require.NoError(t, harness.Build(ctx, "../..", dir, "", "commissaire"))
	result, err := acceptance.Run(ctx, acceptance.Options{Dir: dir, Binary: filepath.Join(dir, "commissaire"), APT: 1, Out: t.Output()})
	require.NoError(t, err)
	require.Equal(t, acceptance.Result{Hosts: 1, Reboots: 1, Upgrades: 2}, result)
}
