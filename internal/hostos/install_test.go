package hostos_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/remote/remotetest"
)

func TestParseInstalled(t *testing.T) {
	t.Parallel()
	asked := []string{"podman", "cri-o", "kubelet"}
	missing, err := hostos.ParseInstalled(asked, 0, "installed podman\nmissing cri-o\nmissing kubelet\n")
	require.NoError(t, err)
	require.Equal(t, []string{"cri-o", "kubelet"}, missing)
	missing, err = hostos.ParseInstalled(nil, 0, "")
	require.NoError(t, err)
	require.Empty(t, missing)
	for _, out := range []string{"", "installed podman\nmissing cri-o\n", "installed podman\ninstalled cri-o\nmaybe kubelet\n", "installed podman cri-o kubelet\n"} {
		_, err = hostos.ParseInstalled(asked, 0, out)
		require.ErrorContains(t, err, "does not say whether", out)
	}
	_, err = hostos.ParseInstalled(asked, 1, "installed podman\ninstalled cri-o\ninstalled kubelet\n")
	require.ErrorContains(t, err, "exit code 1")
}

func FuzzParseInstalled(f *testing.F) {
	f.Add("podman", 0, "installed podman\n")
	f.Add("podman", 0, "missing podman\n")
	f.Add("", 0, "installed \n")
	f.Add("a b", 0, "missing a b\r\n")
	f.Fuzz(func(t *testing.T, name string, exit int, out string) {
		missing, err := hostos.ParseInstalled([]string{name}, exit, out)
		switch {
		case err != nil && missing != nil:
			t.Fatalf("%v and %v", missing, err)
		case err == nil && len(missing) == 0 && !strings.Contains(out, "installed "+name):
			t.Fatalf("%q is called installed by %q", name, out)
		}
	})
}

// TestNoNamesOfPackages: what could be an option, a pattern or a script never becomes
// part of a command.
func TestNoNamesOfPackages(t *testing.T) {
	t.Parallel()
	for _, f := range hostos.Families() {
		if f.Stages() {
			continue
		}
		for _, names := range [][]string{nil, {""}, {"podman", ""}, {"podman-"}, {"podman^"}, {"-o"}, {"--root=/x"}, {"a b"}, {"*"}, {"a;b"}, {"a\n"}, {"./a.rpm"}, {"/a.deb"}, {"http://x/a.rpm"}, {strings.Repeat("a", 129)}} {
			_, err := f.Install(names)
			require.Equal(t, fleet.Invalid, fleet.KindOf(err), "%s %q", f.Name(), names)
		}
	}
}

func TestInstallPackages(t *testing.T) {
	t.Parallel()
	for _, s := range hosts(t, packageHosts...) {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			asked := []string{"openssl", "podman", "cri-o"}
			require.Equal(t, []string{"podman", "cri-o"}, s.missing(t, asked))
			require.Zero(t, s.Count(command(s.Name()), ""), "a question changes nothing")

			argv, err := s.family.Install([]string{"podman", "cri-o"})
			require.NoError(t, err)
			require.NoError(t, s.Lock())
			exit, out, errors := s.read(t, impatient(argv))
			require.NotZero(t, exit)
			require.Contains(t, hostos.Diagnose([]byte(out+errors)), "holds the package manager's lock")
			require.NoError(t, s.Unlock())

			s.must(t, argv)
			require.Empty(t, s.missing(t, asked))
			require.Equal(t, 1, s.Count(command(s.Name()), ""))
		})
	}
}

func (s *site) missing(t *testing.T, packages []string) []string {
	t.Helper()
	exit, out, _ := s.read(t, s.family.Installed(packages))
	missing, err := hostos.ParseInstalled(packages, exit, out)
	require.NoError(t, err)
	return missing
}

func TestNothingIsInstalledOnImages(t *testing.T) {
	t.Parallel()
	for _, f := range hostos.Families() {
		if f.Stages() {
			_, err := f.Install([]string{"podman"})
			require.Equal(t, fleet.NotReady, fleet.KindOf(err))
			require.ErrorContains(t, err, "into the image")
		}
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	s := hosts(t, remotetest.HostConfig{Name: "rpm-ostree", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}})[0]
	argv, err := s.family.Rollback()
	require.NoError(t, err)
	exit, out, errors := s.read(t, argv)
	require.NotZero(t, exit)
	require.Contains(t, out+errors, "No rollback deployment")

	require.NoError(t, os.WriteFile(filepath.Join(s.Dir(), "ostree/rollback"), []byte("0.9\n"), 0o600))
	require.NoError(t, s.Lock())
	exit, out, errors = s.read(t, impatient(argv))
	require.NotZero(t, exit)
	require.Contains(t, hostos.Diagnose([]byte(out+errors)), "holds the package manager's lock")
	require.NoError(t, s.Unlock())
	s.must(t, argv)
	require.Equal(t, "0.9", s.deployments(t).Staged.Version, "it boots next")
	needed, why := s.rebootNeeded(t)
	require.True(t, needed)
	require.Equal(t, "0.9 is staged", why)

	packages := slices.DeleteFunc(hostos.Families(), hostos.Family.Stages)
	require.NotEmpty(t, packages)
	for _, f := range packages {
		_, err := f.Rollback()
		require.Equal(t, fleet.NotReady, fleet.KindOf(err))
		require.ErrorContains(t, err, "upgrades by "+f.Name())
	}
}
