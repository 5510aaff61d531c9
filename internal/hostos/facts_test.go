package hostos_test

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
)

func TestFactsOfThisMachine(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"sh", "dash", "bash", "busybox"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip("no " + shell + " on this machine")
			}
			args := []string{"-c", hostos.FactsScript}
			if shell == "busybox" {
				args = append([]string{"sh"}, args...)
			}
			out, err := exec.Command(path, args...).Output()
			require.NoError(t, err)
			f, err := hostos.ParseFacts(string(out))
			require.NoError(t, err, "%s", out)
			bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
			require.NoError(t, err)
			require.Equal(t, string(bootID[:36]), f.BootID)
			require.Positive(t, f.CPUs)
			require.Positive(t, f.Memory)
			require.Positive(t, f.Space)
			require.NotEmpty(t, f.OS)
		})
	}
}

func TestFactsOfAnotherRoot(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "run"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/os-release"), []byte("NAME=\"Fedora Linux\"\nID='Fedora'\nVERSION_ID=\"41\"\nVARIANT_ID=iot\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "run/ostree-booted"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "boot_id"), []byte("b-1\n"), 0o600))
	cmd := exec.Command("sh", "-c", hostos.FactsScript)
	cmd.Env = append(os.Environ(), "COMMISSAIRE_OS_ROOT="+root, "COMMISSAIRE_BOOT_ID_FILE="+filepath.Join(root, "boot_id"))
	out, err := cmd.Output()
	require.NoError(t, err)
	f, err := hostos.ParseFacts(string(out))
	require.NoError(t, err)
	require.Equal(t, fleet.Facts{OS: "fedora", OSVersion: "41", OSTree: true, PackageManager: f.PackageManager, CPUs: f.CPUs, Memory: f.Memory, Space: f.Space, BootID: "b-1"}, f)
}

func TestHostileFacts(t *testing.T) {
	t.Parallel()
	for name, out := range map[string]string{
		"empty":           "",
		"no boot id":      "os=debian\nboot_id=\n",
		"no system":       "boot_id=x\n",
		"escape codes":    "os=\x1b[31mdebian\nboot_id=x\n",
		"negative memory": "os=debian\nboot_id=x\nmemory_kib=-5\n",
		"huge space":      "os=debian\nboot_id=x\nspace_kib=99999999999999999999\n",
		"cpus no number":  "os=debian\nboot_id=x\ncpus=many\n",
	} {
		_, err := hostos.ParseFacts(out)
		require.Error(t, err, name)
	}
}

// TestNumbersFitTheirColumns: the store keeps processors and MiB in 32 bits.
func TestNumbersFitTheirColumns(t *testing.T) {
	t.Parallel()
	const host = "os=debian\nboot_id=x\n"
	f, err := hostos.ParseFacts(host + "cpus=2147483647\nmemory_kib=2199023255551\nspace_kib=9007199254740991\n")
	require.NoError(t, err)
	require.Equal(t, []int64{math.MaxInt32, math.MaxInt32, (1<<53 - 1) << 10}, []int64{int64(f.CPUs), int64(f.Memory), f.Space})
	for fact, value := range map[string]string{
		"cpus": "2147483648", "memory_kib": "2199023255552", "space_kib": "9007199254740992",
	} {
		_, err := hostos.ParseFacts(host + fact + "=" + value + "\n")
		require.ErrorContains(t, err, fact)
	}
	for _, out := range []string{"cpus=99999999999", "cpus=-1", "memory_kib=1125899906842623"} {
		_, err := hostos.ParseFacts(host + out + "\n")
		require.Error(t, err, out)
	}
}

func FuzzParseFacts(f *testing.F) {
	f.Add("os=debian\nos_version=\"12\"\nostree=false\ncpus=2\nmemory_kib=1024\nspace_kib=10\nboot_id=a-b\n")
	f.Add("os=\"\nboot_id='\n=\n")
	f.Fuzz(func(t *testing.T, out string) {
		facts, err := hostos.ParseFacts(out)
		if err == nil && (facts.OS == "" || facts.BootID == "" || facts.CPUs < 0 || facts.CPUs > math.MaxInt32 || facts.Memory > math.MaxInt32 || facts.Memory < 0 || facts.Space < 0) {
			t.Fatalf("accepted %+v", facts)
		}
	})
}
