package hostos

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPulse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	boot, bin := filepath.Join(dir, "boot_id"), filepath.Join(dir, "bin")
	require.NoError(t, os.WriteFile(boot, []byte("5f4dcc3b-5aa7-45d6-9d83-27deb882cf99\n"), 0o600))
	require.NoError(t, os.Mkdir(bin, 0o700))
	program := func(name, text string) {
		t.Helper()
		// A process that is born while the file is open holds it open, too, for a moment, and
		// nobody can run it then.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700))
	}
	program("timeout", "shift; exec \"$@\"") // three seconds are not enough on every busy machine
	ask := func(file string) (Pulse, error) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "/bin/sh", "-c", PulseScript)
		c.Env = []string{"COMMISSAIRE_BOOT_ID_FILE=" + file, "PATH=" + bin + ":/usr/bin:/bin"}
		out, err := c.Output()
		require.NoError(t, err)
		return ParsePulse(string(out))
	}
	for said, moving := range map[string]string{"running": "", "degraded": "", "maintenance": "", "offline": "", "": "", "initializing": "initializing", "starting": "starting", "stopping": "stopping"} {
		program("systemctl", "echo "+said+"\nexit 1")
		p, err := ask(boot)
		require.NoError(t, err)
		require.Equal(t, Pulse{BootID: "5f4dcc3b-5aa7-45d6-9d83-27deb882cf99", Moving: moving}, p, said)
	}
	_, err := ask(filepath.Join(dir, "none"))
	require.ErrorContains(t, err, "boot id")
	for _, hostile := range []string{"", "boot_id=", "boot_id=\x1b[2J", "boot_id=a b"} {
		_, err := ParsePulse(hostile)
		require.ErrorContains(t, err, "boot id", "%q", hostile)
	}
}
