package devstack_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// maxExposure is of 100; what an ordinary service has is 96. Ours need the network.
const maxExposure = "12"

// TestUnitsBySystemd: systemd finds nothing wrong with the units, and little that a
// process in them could do. What they start is not installed here, so it is replaced.
func TestUnitsBySystemd(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd is not installed")
	}
	units, err := filepath.Glob("../deploy/systemd/*.service")
	require.NoError(t, err)
	require.NotEmpty(t, units)
	dir := t.TempDir()
	run := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, analyze, args...).CombinedOutput()
		require.NoError(t, err, "%s\n%s", args, out)
		return string(out)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		require.NoError(t, err)
		copied := filepath.Join(dir, strings.Replace(filepath.Base(unit), "@.", "@1.", 1))
		require.NoError(t, os.WriteFile(copied, []byte(strings.ReplaceAll(string(text), "/usr/bin/commissaire", "/bin/true")), 0o600))
		for line := range strings.Lines(run("verify", "--man=no", copied)) { // it looks at what units need, too
			require.NotContains(t, line, "commissaire")
		}
		run("security", "--offline=true", "--no-pager", "--threshold="+maxExposure, copied)
	}
}
