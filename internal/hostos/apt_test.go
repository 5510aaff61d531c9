package hostos_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
)

// The packages of docker.com and of Debian, as far as they are in each other's way.
const (
	dockerCom = `Package: containerd.io
Status: install ok installed
Architecture: all
Version: 1.7.27-1
Maintainer: x <x@example.org>
Provides: containerd (= 1.7.27), runc
Conflicts: containerd, runc
Replaces: containerd, runc
Description: x

Package: docker-ce
Status: install ok installed
Architecture: all
Version: 5:28.0.0-1
Maintainer: x <x@example.org>
Depends: containerd.io (>= 1.7.27)
Description: x

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1
Maintainer: x <x@example.org>
Provides: tool
Description: x

`
	debian = `Package: containerd
Version: 1.6.20
Architecture: all
Maintainer: x <x@example.org>
Depends: runc
Filename: ./containerd.deb
Size: 1
Description: x

Package: runc
Version: 1.1.4
Architecture: all
Maintainer: x <x@example.org>
Filename: ./runc.deb
Size: 1
Description: x

Package: tool
Version: 1
Architecture: all
Maintainer: x <x@example.org>
Filename: ./tool.deb
Size: 1
Description: x

`
)

// aptWorld is a system of its own for the real apt-get and dpkg, which is asked only:
// apt-get simulates. It has the packages of dockerCom, and those of debian to install.
func aptWorld(t *testing.T) (env []string) {
	t.Helper()
	for _, tool := range []string{"apt-get", "dpkg-query"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed here", tool) // nor can it be, on systems of other families; CI is Debian
		}
	}
	root := t.TempDir()
	for _, dir := range []string{"repo", "lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d", "etc/trusted.gpg.d", "dpkg/info", "dpkg/updates", "log"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for name, content := range map[string]string{
		"dpkg/status":      dockerCom,
		"repo/Packages":    debian,
		"etc/sources.list": fmt.Sprintf("deb [trusted=yes] file:%s/repo ./\n", root),
		"apt.conf": fmt.Sprintf(`Dir::State "%[1]s"; Dir::State::status "%[1]s/dpkg/status"; Dir::Cache "%[1]s/cache"; Dir::Log "%[1]s/log"; Dir::Etc "%[1]s/etc";
APT::Architecture "amd64"; APT::Sandbox::User ""; APT::Get::Simulate "true";
`, root),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
	}
	return append(os.Environ(), "LC_ALL=C", "APT_CONFIG="+filepath.Join(root, "apt.conf"), "DPKG_ADMINDIR="+filepath.Join(root, "dpkg"))
}

func runHere(t *testing.T, env, argv []string) (exit int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var out, errs strings.Builder
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &errs
	if err := cmd.Run(); err != nil {
		failed := (*exec.ExitError)(nil)
		require.True(t, errors.As(err, &failed), err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestAptKeepsWhatIsThere: an install never takes away what stands in its way, and
// what another package provides is there.
func TestAptKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	env := aptWorld(t)
	f := family(t, "apt")
	asked := []string{"containerd", "runc", "docker-ce", "tool", "docker", "unheard-of"}
	for _, shell := range []string{"dash", "bash", "busybox"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		argv := append([]string{path}, f.Installed(asked)[1:]...)
		if shell == "busybox" {
			argv = append([]string{path, "sh"}, argv[1:]...)
		}
		exit, out, said := runHere(t, env, argv)
		missing, err := hostos.ParseInstalled(asked, exit, out)
		require.NoError(t, err, "%s: %s", shell, said)
		require.Equal(t, []string{"tool", "docker", "unheard-of"}, missing, shell)
	}

	argv, err := f.Install([]string{"containerd"})
	require.NoError(t, err)
	exit, out, said := runHere(t, env, argv)
	require.Equal(t, 100, exit, "%s%s", out, said)
	require.NotContains(t, out, "\nRemv ")
	require.Contains(t, out, "docker-ce", "people see what was in the way")
	require.Contains(t, hostos.Diagnose([]byte(out+said)), "cannot stand beside others")

	argv, err = f.Install([]string{"tool"})
	require.NoError(t, err)
	exit, out, said = runHere(t, env, argv)
	require.Zero(t, exit, said)
	require.Contains(t, out, "\nInst tool ")
}
