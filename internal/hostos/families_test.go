package hostos_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
)

// sample is what a family must answer. Each has a row in samples.
type sample struct {
	manager  string // of the facts that lead to it
	systems  []string
	ostree   bool
	bootc    bool
	upgrade  string // words of the command, or of its script
	deploy   string // words of the command for version 2; "" when it refuses
	leftover string // an answer by which something is left
	exit     int    // with that answer
	reboot   string // an answer by which a reboot is needed
}

var samples = map[string]sample{
	"apt": {
		manager: "apt", systems: []string{"debian", "ubuntu", "raspbian", "linuxmint"},
		upgrade: "--with-new-pkgs upgrade", leftover: "Inst two [1.0] (2.0 localhost [all])\n", reboot: "needed\n",
	},
	"dnf": {
		manager: "dnf", systems: []string{"fedora", "rocky", "almalinux"},
		upgrade: "update -y", leftover: "alpha.noarch 2.0-1 r\n", exit: 100, reboot: "needed\n",
	},
	"yum": {
		manager: "yum", systems: []string{"centos", "rhel", "redhat", "ol"},
		upgrade: "update -y", leftover: "alpha.noarch 2.0-1 r\n", exit: 100, reboot: "needed\n",
	},
	"zypper": {
		manager: "zypper", systems: []string{"opensuse", "opensuse-leap", "sles", "sled"},
		upgrade: "300 update -y", leftover: "alpha\n", reboot: "needed\n",
	},
	"rpm-ostree": {
		ostree: true, upgrade: `rpm-ostree "$@"`, deploy: "deploy 2",
		leftover: staged, reboot: staged,
	},
	"bootc": {
		bootc: true, upgrade: "bootc upgrade", deploy: "bootc switch example.org/os:2",
		leftover: stagedImage, reboot: stagedImage,
	},
}

const (
	staged      = `{"deployments":[{"version":"2","checksum":"00000000000000000000000000000002"},{"checksum":"00000000000000000000000000000001","booted":true}]}`
	stagedImage = `{"status":{"staged":{"image":{"image":{"image":"example.org/os:2"},"imageDigest":"sha256:00000000000000000000000000000002"}},` +
		`"booted":{"image":{"image":{"image":"example.org/os:1"},"imageDigest":"sha256:00000000000000000000000000000001"}}}}`
)

// TestFamiliesAreWhole: each family answers every question, and a new one needs a
// row above.
func TestFamiliesAreWhole(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, f := range hostos.Families() {
		s, ok := samples[f.Name()]
		require.True(t, ok, "family %s has no row in samples", f.Name())
		require.False(t, seen[f.Name()], "two families are called %s", f.Name())
		seen[f.Name()] = true

		got, err := hostos.FamilyOf("unheard-of", s.ostree, s.bootc, s.manager)
		require.NoError(t, err)
		require.Equal(t, f, got)
		for _, system := range s.systems {
			got, err = hostos.FamilyOf(system, s.ostree, s.bootc, "")
			require.NoError(t, err)
			require.Equal(t, f, got, system)
		}
		if s.manager != "" {
			out := "os=x\nboot_id=x\npackage_manager=" + s.manager + "\n"
			facts, err := hostos.ParseFacts(out)
			require.NoError(t, err)
			require.Equal(t, s.manager, facts.PackageManager)
			require.Regexp(t, `(?m)^for c in .*\b`+s.manager, hostos.FactsScript)
		}

		require.Contains(t, strings.Join(f.Upgrade(), " "), s.upgrade)
		now := hostos.Deployments{Booted: hostos.Deployment{Image: "example.org/os:1"}}
		deploy, err := f.Deploy("2", now)
		require.Equal(t, s.deploy != "", f.Stages(), f.Name())
		if f.Stages() {
			require.NoError(t, err)
			require.Contains(t, strings.Join(deploy, " "), s.deploy)
			require.NotEmpty(t, f.Deployments())
			deployments, err := f.ParseDeployments(0, s.leftover)
			require.NoError(t, err)
			require.False(t, deployments.Booted.IsZero())
			require.True(t, deployments.Staged.Is("2"))
			require.False(t, deployments.Booted.Is("2"))
		} else {
			require.Equal(t, fleet.NotReady, fleet.KindOf(err))
			require.ErrorContains(t, err, f.Name())
			require.Nil(t, f.Deployments())
		}
		_, err = f.ParseDeployments(1, "")
		require.Error(t, err, f.Name())

		require.NotEmpty(t, f.Leftover())
		left, err := f.ParseLeftover(s.exit, s.leftover)
		require.NoError(t, err, f.Name())
		require.Len(t, left, 1, f.Name())
		_, err = f.ParseLeftover(1, s.leftover)
		require.Error(t, err, f.Name())

		require.NotEmpty(t, f.RebootNeeded())
		needed, _, err := f.ParseRebootNeeded(0, s.reboot)
		require.NoError(t, err)
		require.True(t, needed, f.Name())
		_, _, err = f.ParseRebootNeeded(1, s.reboot)
		require.Error(t, err, f.Name())
		_, _, err = f.ParseRebootNeeded(0, "")
		require.Error(t, err, f.Name())
	}
	for name := range samples {
		require.True(t, seen[name], "no family %s", name)
	}
}

// TestScriptsAreScripts: every shell of a host can read every script.
func TestScriptsAreScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"dash", "bash", "busybox"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		args := []string{"-n", "-c"}
		if shell == "busybox" {
			args = []string{"sh", "-n", "-c"}
		}
		for _, f := range hostos.Families() {
			install, _ := f.Install([]string{"alpha"})
			for _, argv := range [][]string{f.Upgrade(), f.Leftover(), f.RebootNeeded(), f.Deployments(), f.Installed(nil), install} {
				if len(argv) < 3 || argv[0] != "sh" {
					continue
				}
				out, err := exec.Command(path, append(args, argv[2])...).CombinedOutput()
				require.NoError(t, err, "%s: %s: %s", shell, f.Name(), out)
			}
		}
	}
}

func TestWhichFamily(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		os            string
		ostree, bootc bool
		manager       string
		want          string
	}{
		{"fedora", true, true, "dnf", "bootc"},
		{"fedora", true, false, "dnf", "rpm-ostree"},
		{"fedora", false, false, "dnf", "dnf"},
		{"debian", false, false, "dnf", "dnf"}, // facts.sh knows better
		{"centos", false, false, "dnf", "dnf"},
		{"centos", false, false, "", "yum"},
		{"ubuntu", false, false, "", "apt"},
		{"alpine", false, false, "apt", "apt"},
	} {
		f, err := hostos.FamilyOf(c.os, c.ostree, c.bootc, c.manager)
		require.NoError(t, err)
		require.Equal(t, c.want, f.Name(), "%+v", c)
	}
	for _, c := range [][2]string{{"alpine", ""}, {"alpine", "apk"}, {"", ""}, {"debian", "apk"}} {
		_, err := hostos.FamilyOf(c[0], false, false, c[1])
		require.Equal(t, fleet.NotReady, fleet.KindOf(err), "%v", c)
	}
}

// TestRollingSystems: what is published as snapshots is upgraded by those.
func TestRollingSystems(t *testing.T) {
	t.Parallel()
	for _, manager := range []string{"zypper", ""} {
		rolling, err := hostos.FamilyOf("opensuse-tumbleweed", false, false, manager)
		require.NoError(t, err)
		require.Equal(t, "zypper", rolling.Name())
		require.Equal(t, []string{"300", "dist-upgrade", "-y", "--no-allow-vendor-change"}, rolling.Upgrade()[4:])
		leap, err := hostos.FamilyOf("opensuse-leap", false, false, manager)
		require.NoError(t, err)
		require.Equal(t, leap.Leftover(), rolling.Leftover())
		require.Equal(t, []string{"300", "update", "-y"}, leap.Upgrade()[4:])
	}
}

// TestOwnPackageManager: what a system is upgraded by is not always the first
// that is found on it.
func TestOwnPackageManager(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ release, has, want string }{
		{"ID=debian\n", "apt-get dnf zypper", "apt"},
		{"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "dnf apt-get", "apt"},
		{"ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "dnf zypper", "zypper"},
		{"ID='sles'\n", "dnf zypper", "zypper"},
		{"ID=fedora\n", "dnf5", "dnf"},
		{"ID=fedora\n", "dnf yum apt-get", "dnf"},
		{"ID=centos\nID_LIKE=\"rhel fedora\"\n", "yum", "yum"},
		{"ID=debian\n", "dnf", "dnf"},
		{"ID=alpine\n", "", ""},
	} {
		root := t.TempDir()
		require.NoError(t, os.Mkdir(root+"/etc", 0o700))
		require.NoError(t, os.WriteFile(root+"/etc/os-release", []byte(c.release), 0o600))
		require.NoError(t, os.Mkdir(root+"/bin", 0o700))
		for _, tool := range []string{"sh", "sed", "tr", "df", "awk", "cat", "getconf", "grep"} {
			path, err := exec.LookPath(tool)
			require.NoError(t, err)
			require.NoError(t, os.Symlink(path, root+"/bin/"+tool))
		}
		for _, name := range strings.Fields(c.has) {
			require.NoError(t, os.WriteFile(root+"/bin/"+name, []byte("#!/bin/sh\n"), 0o700))
		}
		cmd := exec.Command("sh", "-c", hostos.FactsScript)
		cmd.Env = []string{"PATH=" + root + "/bin", "COMMISSAIRE_OS_ROOT=" + root}
		out, err := cmd.Output()
		require.NoError(t, err)
		facts, err := hostos.ParseFacts(string(out))
		require.NoError(t, err)
		require.Equal(t, c.want, facts.PackageManager, "%+v", c)
	}
}

func TestDeployOfAnImage(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct{ image, version, want string }{
		{"quay.io:5000/example/os:42", "43", "quay.io:5000/example/os:43"},
		{"quay.io:5000/example/os", "43", "quay.io:5000/example/os:43"},
		{"quay.io/os@" + digest, "43", "quay.io/os:43"},
		{"quay.io/os:1@" + digest, "43", "quay.io/os:43"},
		{"quay.io/os:42", digest, "quay.io/os@" + digest},
		{"quay.io/os:42", "ghcr.io/other/os:1", "ghcr.io/other/os:1"},
		{"quay.io/os:42", "ghcr.io/os@" + digest, "ghcr.io/os@" + digest},
		{"quay.io/os:42", "os:1", "os:1"},
	} {
		f, err := hostos.FamilyOf("", false, true, "")
		require.NoError(t, err)
		argv, err := f.Deploy(c.version, hostos.Deployments{Booted: hostos.Deployment{Image: c.image}})
		require.NoError(t, err)
		require.Equal(t, []string{"bootc", "switch", c.want}, argv)
	}
	for _, f := range hostos.Families() {
		for _, version := range []string{"", "-o", "--reboot", "a b", "a;b", "$(a)", strings.Repeat("a", 257)} {
			_, err := f.Deploy(version, hostos.Deployments{Booted: hostos.Deployment{Image: "quay.io/os:42"}})
			require.Error(t, err, "%s %q", f.Name(), version)
		}
	}
}

// TestImageStaysSigned: another image is held to what the present one is.
func TestImageStaysSigned(t *testing.T) {
	t.Parallel()
	f, err := hostos.FamilyOf("", false, true, "")
	require.NoError(t, err)
	status, err := os.ReadFile("testdata/bootc.json")
	require.NoError(t, err)
	now, err := f.ParseDeployments(0, string(status))
	require.NoError(t, err)
	argv, err := f.Deploy("43", now)
	require.NoError(t, err)
	require.Equal(t, []string{"bootc", "switch", "--enforce-container-sigpolicy", "quay.io:5000/example/os:43"}, argv)

	now, err = f.ParseDeployments(0, strings.ReplaceAll(string(status), `"containerPolicy"`, `{"ostreeRemote":"fedora"}`))
	require.NoError(t, err)
	_, err = f.Deploy("43", now)
	require.Equal(t, fleet.NotReady, fleet.KindOf(err))

	now, err = f.ParseDeployments(0, strings.ReplaceAll(strings.ReplaceAll(string(status), `"containerPolicy"`, "null"), `"registry"`, `"containers-storage"`))
	require.NoError(t, err)
	argv, err = f.Deploy("43", now)
	require.NoError(t, err)
	require.Equal(t, []string{"bootc", "switch", "--transport", "containers-storage", "quay.io:5000/example/os:43"}, argv)
	_, err = f.Deploy("43", hostos.Deployments{})
	require.ErrorContains(t, err, "whole reference")
}

func TestCommandsOfAnOperation(t *testing.T) {
	t.Parallel()
	steps := map[bool]map[fleet.OperationKind]string{
		false: {
			fleet.KindRestart: "check reboot wait verify settle",
			fleet.KindUpgrade: "check upgrade verify-packages reboot-needed reboot wait verify settle",
		},
		true: {
			fleet.KindRestart: "check reboot wait verify settle",
			fleet.KindUpgrade: "check stage reboot-needed reboot wait verify settle",
			fleet.KindDeploy:  "check stage stage reboot-needed reboot wait verify settle",
		},
	}
	for _, f := range hostos.Families() {
		for _, kind := range fleet.Kinds {
			want, possible := steps[f.Stages()][kind]
			commands, err := hostos.Commands(f, kind, "2")
			if !possible {
				require.Error(t, err, "%s %s", f.Name(), kind)
				continue
			}
			require.NoError(t, err)
			var names []string
			for _, c := range commands {
				names = append(names, c.Step)
				require.Equal(t, c.Step == "wait", c.Argv == nil)
			}
			require.Equal(t, want, strings.Join(names, " "), "%s %s", f.Name(), kind)
		}
	}
}
