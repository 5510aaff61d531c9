package hostos_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
)

// TestSystems asks each system of testdata/os who it is, by the script that hosts
// run. A file there is the os-release of a system; its first line names the commands
// that it has, and what it booted from.
func TestSystems(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/os/*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var found strings.Builder
	led := map[string]bool{}
	for _, file := range files {
		out := ask(t, file)
		fmt.Fprintf(&found, "%s: ", filepath.Base(file))
		f, err := hostos.Detect(out)
		if err != nil {
			require.Equal(t, fleet.NotReady, fleet.KindOf(err))
			fmt.Fprintf(&found, "refused: %v\n", err)
			continue
		}
		led[f.Name()] = true
		facts, err := hostos.ParseFacts(out)
		require.NoError(t, err)
		same, err := hostos.FamilyOf(facts.OS, facts.OSTree, facts.Bootc, facts.PackageManager)
		require.NoError(t, err)
		require.Equal(t, f, same, file)
		fmt.Fprintln(&found, f.Name())
		for _, argv := range f.EnableRepositories(facts.OS, facts.OSVersion) {
			fmt.Fprintf(&found, "  before packages: %s\n", strings.Join(argv, " "))
		}
	}
	for _, f := range hostos.Families() {
		require.True(t, led[f.Name()], "no system in testdata/os is of the family %s", f.Name())
	}
	golden(t, "testdata/systems.txt", found.String())
}

// ask runs the script of facts on a host that is made of one file.
func ask(t *testing.T, file string) string {
	t.Helper()
	release, err := os.ReadFile(file)
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(release), "\n")
	root := t.TempDir()
	bin := filepath.Join(root, "bin")
	for _, dir := range []string{"etc", "run", "bin"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/os-release"), release, 0o600))
	for _, tool := range []string{"sh", "sed", "tr", "df", "awk", "cat", "getconf", "grep", "timeout"} {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(bin, tool)))
	}
	script := "#!/bin/sh\n"
	if strings.Contains(first, "bootc-booted") {
		script += "echo '{\"status\":{\"type\":\"bootcHost\"}}'\n"
	}
	for _, name := range strings.Fields(strings.TrimPrefix(first, "# has ")) {
		switch name {
		case "ostree-booted":
			require.NoError(t, os.WriteFile(filepath.Join(root, "run", name), nil, 0o600))
		case "bootc-booted":
		default:
			write(t, filepath.Join(bin, name), script)
		}
	}
	cmd := exec.Command("sh", "-c", hostos.FactsScript)
	cmd.Env = []string{"PATH=" + bin, "COMMISSAIRE_OS_ROOT=" + root}
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// write makes a program.
func write(t *testing.T, path, script string) {
	t.Helper()
	// A process that is born while the file is open holds it open, too, for a moment, and
	// nobody can run it then.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(path, []byte(script), 0o700))
}

func TestDetectNeedsFacts(t *testing.T) {
	t.Parallel()
	_, err := hostos.Detect("os=debian\n")
	require.ErrorContains(t, err, "boot id")
	_, err = hostos.Detect("os=debian\nboot_id=x\n")
	require.ErrorContains(t, err, "the system is debian)", "that it should have apt does not help")
}

func FuzzDetect(f *testing.F) {
	f.Add("os=alpine\nos_version=3\nboot_id=x\nother_managers=apk pacman\n")
	f.Add("os=debian\nboot_id=x\npackage_manager=apt\nother_managers=\x1b[31m\n")
	f.Add("os=opensuse-microos\nboot_id=x\npackage_manager=zypper\n")
	f.Fuzz(func(t *testing.T, out string) {
		_, err := hostos.Detect(out)
		if err != nil && (len(err.Error()) > 2000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' })) {
			t.Fatalf("%q", err)
		}
	})
}
