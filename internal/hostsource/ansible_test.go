package hostsource

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestInventories(t *testing.T) {
	t.Parallel()
	want := map[string]fleet.SourceFacts{
		"192.0.2.10":   {OS: ptr("rhel"), OSVersion: ptr("9.4"), CPUs: ptr(4), Memory: ptr(7820), Labels: map[string]string{"env": "prod", "rack": "7"}},
		"db1.example":  {OS: ptr("debian"), OSVersion: ptr("12"), CPUs: ptr(8), Space: ptr(int64(53687091200))},
		"bare.example": {},
	}
	for _, name := range []string{"list.json", "inventory.yaml"} {
		path, err := filepath.Abs("testdata/" + name)
		require.NoError(t, err)
		found, err := build1(t, map[string]any{"type": "ansible", "path": path}).Fetch(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, found, name)
	}
}

// TestNamesOfOneMachine: what they contradict each other in is not said.
func TestNamesOfOneMachine(t *testing.T) {
	t.Parallel()
	found, err := build1(t, map[string]any{"type": "ansible", "path": script(t, `cat <<'END'
{"_meta": {"hostvars": {
  "web": {"ansible_host": "192.0.2.1", "os": "debian", "cpus": 4, "labels": {"rack": "7", "role": "web"}},
  "db": {"ansible_host": "192.0.2.1", "os": "debian", "cpus": 8, "memory": 1000, "labels": {"rack": "7", "role": "db"}},
  "mail": {"ansible_host": "192.0.2.1", "cpus": 4, "labels": {"owner": "ann"}}}}}
END`)}).Fetch(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]fleet.SourceFacts{
		"192.0.2.1": {OS: ptr("debian"), Memory: ptr(1000), Labels: map[string]string{"rack": "7", "owner": "ann"}},
	}, found)
}

func TestINIIsNotRead(t *testing.T) {
	t.Parallel()
	e := fails(t, map[string]any{"type": "ansible", "path": file(t, "hosts", "[web]\na ansible_password=hunter2\n")})
	require.Contains(t, e.Reason, "INI")
	require.NotContains(t, e.Reason, "hunter2")
}

func TestProgramsThatDoNoGood(t *testing.T) {
	t.Parallel()
	e := fails(t, map[string]any{"type": "ansible", "path": script(t, "echo hunter2 >&2; exit 1")})
	require.Equal(t, "it ended with exit status 1; the log of the worker has what it said", e.Reason)
	require.Equal(t, "hunter2\n", e.Said)
	require.True(t, e.Passes)

	e = fails(t, map[string]any{"type": "ansible", "path": script(t, "yes")})
	require.Equal(t, "it said more than 32 MiB", e.Reason)

	e = fails(t, map[string]any{"type": "ansible", "path": script(t, "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3")})
	require.Len(t, e.Said, saidTail)

	e = fails(t, map[string]any{"type": "ansible", "path": "/nowhere/inventory"})
	require.Equal(t, "its path cannot be read: no such file or directory", e.Reason)
	e = fails(t, map[string]any{"type": "ansible", "path": t.TempDir()})
	require.Equal(t, "its path is no file", e.Reason)

	path := filepath.Join(t.TempDir(), "inventory")
	require.NoError(t, os.WriteFile(path, []byte("#!/nowhere/python\n"), 0o755))
	e = fails(t, map[string]any{"type": "ansible", "path": path})
	require.Contains(t, e.Reason, "it cannot be run: ")
}

// TestNothingIsLeftBehind: a program that hangs ends with all that it has begun.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"sleep 3600 & echo $! >%s; wait", "sleep 3600 & echo $! >%s; echo '{\"all\": {}}'; exec >&-"} {
		pid := filepath.Join(t.TempDir(), "pid")
		s := build1(t, map[string]any{"type": "ansible", "path": script(t, fmt.Sprintf(body, pid)), "timeout": "10s"})
		_, err := s.Fetch(t.Context())
		require.Error(t, err)
		said, err := os.ReadFile(pid)
		require.NoError(t, err)
		child, err := strconv.Atoi(strings.TrimSpace(string(said)))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return syscall.Kill(child, 0) != nil || zombie(child) }, time.Minute, 20*time.Millisecond)
	}
}

// zombie says whether a process has ended and nobody has asked how.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestProgramsGetNoSecret: the environment of a worker has the password of the database.
func TestProgramsGetNoSecret(t *testing.T) {
	t.Setenv("COMMISSAIRE_DATABASE_URL", "postgres://u:hunter2@h/d")
	t.Setenv("PGPASSWORD", "hunter2")
	_, err := build1(t, map[string]any{"type": "ansible", "path": script(t, `env | grep -q hunter2 && exit 1; echo '{"all": {}}'`)}).Fetch(t.Context())
	require.NoError(t, err)
}
