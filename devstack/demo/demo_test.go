package demo

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/stack"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/remote/remotetest"
)

// The demo runs, and runs again on what the first run left.
func TestTwice(t *testing.T) {
	t.Parallel()
	dir := pgtest.TempDir(t)
	var first, second bytes.Buffer
	addresses := runOnce(t, dir, &first)
	require.Equal(t, addresses, runOnce(t, dir, &second), "the hosts of the second run are those of the first")
	for _, out := range []string{first.String(), second.String()} {
		require.Contains(t, out, "All 5 hosts were restarted")
		require.Regexp(t, regexp.MustCompile(`db1 +127\S+ +succeeded +\d+\.\ds check, reboot, wait, verify`), out)
		require.NotContains(t, out, "\x1b", "no colours in a file")
	}
}

func runOnce(t *testing.T, dir string, out *bytes.Buffer) (addresses []string) {
	t.Helper()
	s, err := stack.Start(t.Context(), stack.Options{
		Dir: dir + "/state", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Stop()) }()
	d, err := Start(t.Context(), s, filepath.Join(dir, "hosts"), out)
	if errors.Is(err, remotetest.ErrNoSSHD) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	require.NoError(t, d.Run(t.Context()))
	for _, h := range d.fleet.Hosts() {
		require.Equal(t, 1, h.Reboots(), "reboots of %s by its own count", h.Name())
		addresses = append(addresses, h.Address())
	}
	return addresses
}

func TestLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newScreen(&out)
	l := line{name: "web1", address: "127.0.0.9", state: fleet.HostRunPending}
	s.show([]line{l})
	require.Empty(t, out.String(), "a host that waits says nothing")
	l.state, l.steps, l.took = fleet.HostRunRunning, "check", time.Second
	s.show([]line{l})
	l.took = 2 * time.Second
	s.show([]line{l})
	l.state, l.reason = fleet.HostRunFailed, "step check: no"
	s.show([]line{l})
	require.Equal(t, "  web1  127.0.0.9        running            check\n  web1  127.0.0.9        failed        2.0s check: step check: no\n", out.String())
}

func TestPaint(t *testing.T) {
	t.Parallel()
	require.Equal(t, "\x1b[31mx\x1b[0m", (&screen{colour: true}).paint(fleet.HostRunFailed, "x"))
	require.Equal(t, "x", (&screen{}).paint(fleet.HostRunFailed, "x"))
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	require.Equal(t, "/a/b_c-1.x", shellQuote("/a/b_c-1.x"))
	require.Equal(t, `'/a b/it'\''s'`, shellQuote("/a b/it's"))
}
