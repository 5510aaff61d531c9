package hostos_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
	"commissaire/internal/remote"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
)

// site is a host with its family, as the product finds it.
type site struct {
	*remotetest.Host
	conn   *remote.Conn
	family hostos.Family
}

func hosts(t *testing.T, configs ...remotetest.HostConfig) []site {
	t.Helper()
	fleet := remotetest.NewHosts(t, configs...)
	dialer := remote.NewDialer(remote.Options{DialTimeout: time.Minute, HandshakeTimeout: time.Minute, RequestTimeout: time.Minute, KeepAliveInterval: 20 * time.Second})
	var sites []site
	for _, h := range fleet.Hosts() {
		s := site{Host: h}
		s.connect(t, dialer, fleet.ClientKey())
		result, err := s.conn.Script(t.Context(), hostos.FactsScript)
		require.NoError(t, err)
		facts, err := hostos.ParseFacts(string(result.Stdout))
		require.NoError(t, err)
		s.family, err = hostos.FamilyOf(facts.OS, facts.OSTree, facts.Bootc, facts.PackageManager)
		require.NoError(t, err)
		require.Equal(t, h.Name(), s.family.Name(), "facts lead to the family: %+v", facts)
		sites = append(sites, s)
	}
	return sites
}

func (s *site) connect(t *testing.T, d *remote.Dialer, key string) {
	t.Helper()
	conn, err := d.Dial(t.Context(), remote.Target{
		Address: s.Address(), Port: s.Port(), User: s.User(), HostKey: s.HostKey(), Key: secret.NewText([]byte(key)),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	s.conn = conn
}

func (s *site) read(t *testing.T, argv []string) (int, string, string) {
	t.Helper()
	result, err := s.conn.Read(t.Context(), argv)
	require.NoError(t, err)
	return result.ExitCode, string(result.Stdout), string(result.Stderr)
}

func (s *site) must(t *testing.T, argv []string) string {
	t.Helper()
	exit, out, errors := s.read(t, argv)
	require.Zero(t, exit, "%s: %s%s", argv, out, errors)
	return out
}

func (s *site) left(t *testing.T) []string {
	t.Helper()
	exit, out, errors := s.read(t, s.family.Leftover())
	left, err := s.family.ParseLeftover(exit, out)
	require.NoError(t, err, "%s%s", out, errors)
	return left
}

func (s *site) rebootNeeded(t *testing.T) (bool, string) {
	t.Helper()
	exit, out, errors := s.read(t, s.family.RebootNeeded())
	needed, why, err := s.family.ParseRebootNeeded(exit, out)
	require.NoError(t, err, "%s%s", out, errors)
	return needed, why
}

// impatient is an upgrade that waits a second for a lock.
func impatient(argv []string) []string {
	short := append([]string(nil), argv...)
	for i, word := range short {
		if word == "300" {
			short[i] = "1"
		}
	}
	return short
}

var packageHosts = []remotetest.HostConfig{
	{Name: "apt", OS: remotetest.OS{ID: "debian", VersionID: "12"}},
	{Name: "dnf", OS: remotetest.OS{ID: "fedora", VersionID: "43"}},
	{Name: "yum", OS: remotetest.OS{ID: "centos", VersionID: "7"}},
	{Name: "zypper", OS: remotetest.OS{ID: "opensuse-leap", VersionID: "15.6"}},
}

// command is the ledger's name of a family's tool.
func command(name string) string {
	if name == "apt" {
		return "apt-get"
	}
	return name
}

func TestUpgradeOfPackages(t *testing.T) {
	t.Parallel()
	for _, s := range hosts(t, packageHosts...) {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			require.Empty(t, s.left(t))
			require.NoError(t, s.Publish("openssl", "2.0"))
			require.Len(t, s.left(t), 1)
			require.True(t, strings.HasPrefix(s.left(t)[0], "openssl"))
			require.Zero(t, s.Count(command(s.Name()), ""), "questions change nothing")

			s.must(t, s.family.Upgrade())
			require.Equal(t, "2.0", s.Package("openssl"))
			require.Empty(t, s.left(t))
			needed, _ := s.rebootNeeded(t)
			require.False(t, needed)

			require.NoError(t, s.Publish("systemd", "2.0"))
			s.must(t, s.family.Upgrade())
			needed, why := s.rebootNeeded(t)
			require.True(t, needed)
			if s.Name() != "zypper" { // which does not say
				require.Contains(t, why, "systemd")
			}
			require.Equal(t, 2, s.Count(command(s.Name()), ""), "one line each")
		})
	}
}

// TestLockedPackages: a lock ends in bounded time and says who has it; one that
// goes in time does no harm.
func TestLockedPackages(t *testing.T) {
	t.Parallel()
	configs := append([]remotetest.HostConfig{{Name: "rpm-ostree", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}}}, packageHosts...)
	for _, s := range hosts(t, configs...) {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			require.NoError(t, s.Lock())
			exit, out, errors := s.read(t, impatient(s.family.Upgrade()))
			require.NotZero(t, exit)
			require.Contains(t, hostos.Diagnose([]byte(out+errors)), "holds the package manager's lock", "%s%s", out, errors)
			require.Zero(t, s.Count(command(s.Name()), ""))

			done := make(chan int, 1)
			go func() {
				result, err := s.conn.Read(t.Context(), s.family.Upgrade())
				if err != nil {
					result.ExitCode = -1
				}
				done <- result.ExitCode
			}()
			require.NoError(t, s.Unlock())
			require.Zero(t, <-done)
			require.Equal(t, 1, s.Count(command(s.Name()), ""))
		})
	}
}

func TestHalfConfigured(t *testing.T) {
	t.Parallel()
	s := hosts(t, packageHosts[0])[0]
	require.NoError(t, s.HalfConfigure("openssl"))
	require.Equal(t, []string{"openssl (not fully installed)"}, s.left(t))
	require.NoError(t, s.HalfConfigure(""))
	require.Empty(t, s.left(t))
}

// TestZypperSaysMore: its exit codes from 100 on are information, but for some.
func TestZypperSaysMore(t *testing.T) {
	t.Parallel()
	s := hosts(t, packageHosts[3])[0]
	for code, want := range map[string]int{"100": 0, "102": 0, "103": 0, "104": 104, "105": 105, "106": 106, "107": 107, "8": 8} {
		require.NoError(t, s.OnCommand("zypper", "exit "+code))
		exit, _, _ := s.read(t, s.family.Upgrade())
		require.Equal(t, want, exit, code)
	}
	// A zypper that does not know the question, and one that cannot answer it.
	require.NoError(t, s.OnCommand("zypper", "exit 2"))
	needed, _ := s.rebootNeeded(t)
	require.False(t, needed)
	require.NoError(t, s.OnCommand("zypper", "exit 7"))
	exit, out, _ := s.read(t, s.family.RebootNeeded())
	_, _, err := s.family.ParseRebootNeeded(exit, out)
	require.Error(t, err)
}

func TestStagingFamilies(t *testing.T) {
	t.Parallel()
	for _, s := range hosts(t,
		remotetest.HostConfig{Name: "rpm-ostree", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
		remotetest.HostConfig{Name: "bootc", OS: remotetest.OS{ID: "fedora", VersionID: "43", Bootc: true}},
	) {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			now := s.deployments(t)
			require.Equal(t, "1.0", now.Booted.Version)
			require.True(t, now.Staged.IsZero())
			require.Empty(t, s.left(t))

			require.NoError(t, s.PublishOSTree("1.1"))
			s.must(t, s.family.Upgrade())
			require.Equal(t, "1.1", s.deployments(t).Staged.Version)
			needed, why := s.rebootNeeded(t)
			require.True(t, needed)
			require.Equal(t, "1.1 is staged", why)

			require.NoError(t, s.PublishOSTree("1.2"))
			argv, err := s.family.Deploy("1.2", s.deployments(t))
			require.NoError(t, err)
			s.must(t, argv)
			next := s.deployments(t).Staged
			require.True(t, next.Is("1.2"))
			require.True(t, next.Is(next.Checksum))
			require.Equal(t, 2, s.Count(s.Name(), ""))

			argv, err = s.family.Deploy("9.9", s.deployments(t))
			require.NoError(t, err)
			exit, _, _ := s.read(t, argv)
			require.NotZero(t, exit, "a version that nobody has")
			require.Equal(t, "1.2", s.Staged())
		})
	}
}

func (s *site) deployments(t *testing.T) hostos.Deployments {
	t.Helper()
	now, err := s.family.ParseDeployments(0, s.must(t, s.family.Deployments()))
	require.NoError(t, err)
	return now
}

// TestLongStatus: hosts that boot container images print manifests in their
// status, longer than what is read of an answer.
func TestLongStatus(t *testing.T) {
	t.Parallel()
	s := hosts(t, remotetest.HostConfig{Name: "rpm-ostree", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}})[0]
	require.NoError(t, s.OnCommand("rpm-ostree", `cat <<END
{
  "deployments" : [
    {
      "base-commit-meta" : {
        "ostree.manifest" : "$(head -c 200000 /dev/zero | tr '\0' x)\"}",
        "ostree.config" : "$(head -c 200000 /dev/zero | tr '\0' x)"
      },
      "version" : "1.0",
      "checksum" : "00000000000000000000000000000001",
      "booted" : true
    }
  ]
}
END
exit 0`))
	require.Equal(t, "1.0", s.deployments(t).Booted.Version)
}
