package hostos_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
)

func family(t testing.TB, name string) hostos.Family {
	t.Helper()
	for _, f := range hostos.Families() {
		if f.Name() == name {
			return f
		}
	}
	t.Fatalf("no family %s", name)
	return nil
}

func answer(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	return string(b)
}

// The answers in testdata are those of apt 2.6 with dpkg 1.21, dnf 4.14 and dnf
// 5.4; yum's, rpm-ostree's and bootc's follow their documentation.
func TestLeftover(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		family, file string
		exit         int
		want         []string
	}{
		{"apt", "apt.txt", 0, []string{"four", "libc6", "two", "bad (not fully installed)"}},
		{"dnf", "dnf4.txt", 100, []string{"alpha-a-package-with-quite-a-long-name-so-that-columns-break-perhaps.noarch", "alpha.noarch", "kernel-core.noarch"}},
		{"dnf", "dnf5.txt", 100, []string{"alpha.noarch", "kernel-core.noarch"}},
		{"yum", "yum.txt", 100, []string{"NetworkManager.x86_64", "a-package-with-quite-a-long-name-so-that-columns-break.noarch", "openssl-libs.x86_64"}},
		{"rpm-ostree", "rpmostree.json", 0, []string{"43.20251024.3.0"}},
		{"bootc", "bootc.json", 0, []string{"42.20250602.0"}},
	} {
		left, err := family(t, c.family).ParseLeftover(c.exit, answer(t, c.file))
		require.NoError(t, err)
		require.Equal(t, c.want, left, c.file)
	}
	for _, name := range []string{"apt", "dnf", "yum", "zypper"} {
		left, err := family(t, name).ParseLeftover(0, "\n")
		require.NoError(t, err)
		require.Empty(t, left)
	}
	_, err := family(t, "dnf").ParseLeftover(100, "nothing to read\n")
	require.Error(t, err, "updates that cannot be named are no success")
	left, err := family(t, "zypper").ParseLeftover(0, strings.Repeat("alpha\n", 1000))
	require.NoError(t, err)
	require.Len(t, left, 100)
}

func TestRebootNeeded(t *testing.T) {
	t.Parallel()
	f := family(t, "dnf")
	needed, why, err := f.ParseRebootNeeded(0, "needed\nupdated since it booted:\nkernel\n\x1b[31mglibc\n")
	require.NoError(t, err)
	require.True(t, needed)
	require.Equal(t, "updated since it booted: kernel [31mglibc", why)
	needed, why, err = f.ParseRebootNeeded(0, "not-needed\n")
	require.NoError(t, err)
	require.False(t, needed)
	require.Empty(t, why)
	_, _, err = f.ParseRebootNeeded(0, "neededx\n")
	require.Error(t, err)

	needed, why, err = family(t, "rpm-ostree").ParseRebootNeeded(0, answer(t, "rpmostree.json"))
	require.NoError(t, err)
	require.True(t, needed)
	require.Equal(t, "43.20251024.3.0 is staged", why)
}

func TestDeployments(t *testing.T) {
	t.Parallel()
	f := family(t, "rpm-ostree")
	now, err := f.ParseDeployments(0, answer(t, "rpmostree.json"))
	require.NoError(t, err)
	require.Equal(t, "43.20251010.3.1", now.Booted.Version)
	require.Equal(t, "c9d2b3f0a61e7a1e43d5a1d5ae3cc1bfbc7d0a5fa3c4d1d4d2f12f0f7a3ab3b2", now.Booted.Checksum)
	require.Equal(t, "ostree-remote-image:fedora:docker://quay.io/fedora/fedora-coreos:stable", now.Booted.Image)
	require.True(t, now.Staged.Is("43.20251024.3.0"))
	require.True(t, now.Staged.Is("0e5c7a4b1e2e7a1e43d5a1d5ae3cc1bfbc7d0a5fa3c4d1d4d2f12f0f7a3ab3b2"), "below its layered packages")
	require.False(t, now.Staged.Is("43.20250929.3.0"))

	// What can be rolled back to stands behind the booted one.
	now, err = f.ParseDeployments(0, `{"deployments":[{"checksum":"00000000000000000000000000000001","booted":true},{"checksum":"00000000000000000000000000000002"}]}`)
	require.NoError(t, err)
	require.True(t, now.Staged.IsZero())

	f = family(t, "bootc")
	now, err = f.ParseDeployments(0, answer(t, "bootc.json"))
	require.NoError(t, err)
	require.Equal(t, "42.20250501.0", now.Booted.Version)
	require.Equal(t, "quay.io:5000/example/os:42", now.Booted.Image)
	require.Equal(t, "sha256:b1f1c2f2f31b60ac1bc56ce2ed3a9d9a9e5c2aeb0b0f3ad2a4e4cb6d5fa2a33c", now.Staged.Checksum)
	now, err = f.ParseDeployments(0, strings.NewReplacer(`"staged":`, `"rollback":`, `"rollback":null,`, "", `"rollbackQueued":false`, `"rollbackQueued":true`).Replace(answer(t, "bootc.json")))
	require.NoError(t, err)
	require.Equal(t, "42.20250602.0", now.Staged.Version, "a rollback is what boots next")
}

// TestHostileDeployments: what a host names goes into a command and to people.
func TestHostileDeployments(t *testing.T) {
	t.Parallel()
	for _, out := range []string{
		``, `null`, `{}`, `[]`, `{"deployments":null}`, `{"deployments":[{}]}`, `{"deployments":"x"}`,
		`{"deployments":[{"booted":true}]}`,
		`{"deployments":[{"booted":true,"checksum":"-x"}]}`,
		`{"deployments":[{"booted":true,"checksum":"00000000000000000000000000000001","container-image-reference":"-o"}]}`,
		`{"deployments":[{"booted":true,"checksum":"00000000000000000000000000000001"},{"booted":true,"checksum":"00000000000000000000000000000001"}]}`,
	} {
		_, err := family(t, "rpm-ostree").ParseDeployments(0, out)
		require.Error(t, err, out)
	}
	for old, hostile := range map[string]string{
		`"quay.io:5000/example/os:42"`: `"--mutate-in-place"`,
		`"registry"`:                   `"--x"`,
		`"sha256:a1`:                   `"sha256:"a1`,
		`"booted":{`:                   `"other":{`,
	} {
		_, err := family(t, "bootc").ParseDeployments(0, strings.ReplaceAll(answer(t, "bootc.json"), old, hostile))
		require.Error(t, err, hostile)
	}
	now, err := family(t, "rpm-ostree").ParseDeployments(0, `{"deployments":[{"booted":true,"checksum":"00000000000000000000000000000001","version":"\u001b[31m"}]}`)
	require.NoError(t, err)
	require.Empty(t, now.Booted.Version)
}

func FuzzParseLeftover(f *testing.F) {
	for _, file := range []string{"apt.txt", "dnf4.txt", "dnf5.txt", "yum.txt"} {
		f.Add(0, answer(f, file))
		f.Add(100, answer(f, file))
	}
	f.Add(0, "alpha\n-o\n")
	f.Fuzz(func(t *testing.T, exit int, out string) {
		for _, known := range hostos.Families() {
			left, err := known.ParseLeftover(exit, out)
			if err != nil && left != nil || len(left) > 100 {
				t.Fatalf("%s: %v and %v", known.Name(), left, err)
			}
			for _, name := range left {
				if name == "" || name[0] == '-' || len(name) > 200 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Fatalf("%s: %q", known.Name(), name)
				}
			}
		}
	})
}

func FuzzParseRebootNeeded(f *testing.F) {
	f.Add(0, "needed\nkernel 6.2 is installed and 6.1 runs\n")
	f.Add(0, "not-needed\n")
	f.Add(1, staged)
	f.Fuzz(func(t *testing.T, exit int, out string) {
		for _, known := range hostos.Families() {
			needed, why, err := known.ParseRebootNeeded(exit, out)
			if err != nil && (needed || why != "") || len(why) > 700 || strings.ContainsFunc(why, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%s: %v %q %v", known.Name(), needed, why, err)
			}
		}
	})
}

func FuzzParseDeployments(f *testing.F) {
	f.Add("2", answer(f, "rpmostree.json"))
	f.Add("os:2", answer(f, "bootc.json"))
	f.Add("2", staged)
	f.Add("2", stagedImage)
	f.Fuzz(func(t *testing.T, version, out string) {
		for _, known := range hostos.Families() {
			now, err := known.ParseDeployments(0, out)
			if err != nil {
				continue
			}
			if now.Booted.Checksum == "" {
				t.Fatalf("%s: nothing is booted", known.Name())
			}
			argv, err := known.Deploy(version, now)
			if err != nil {
				continue
			}
			if last := argv[len(argv)-1]; last == "" || last[0] == '-' {
				t.Fatalf("%s: %q", known.Name(), argv)
			}
		}
	})
}
