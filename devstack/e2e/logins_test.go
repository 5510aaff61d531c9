package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/remote/remotetest"
)

// countLogins makes every shell that sshd starts on the fleet's hosts leave a
// line, also of commands that change nothing and so are in no ledger. bash reads
// this file when sshd starts it.
func countLogins(t *testing.T, s *site) {
	t.Helper()
	const script = `[ -z "$FLEET_HOST" ] || echo "$BASH_EXECUTION_STRING" >>"$FLEET_HOST/logins"` + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(s.Dir, "hosts", "home", ".bashrc"), []byte(script), 0o644))
}

// logins is how many lines of commands sshd has started on a host.
func logins(t *testing.T, h *remotetest.Host) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.Dir(), "logins"))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return strings.Count(string(text), "\n")
}
