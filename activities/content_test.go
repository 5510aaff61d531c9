package activities_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/activities"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/profile"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

const (
	mirrorFile     = "/etc/containerd/certs.d/docker.io/hosts.toml"
	registriesFile = "/etc/containers/registries.conf.d/50-commissaire.conf"
	dockerFile     = "/etc/sysconfig/docker"
)

// contentSteps are those that a profile adds to a bootstrap.
var contentSteps = []string{workflows.StepInstall, workflows.StepConfigure, workflows.StepServices}

var settings = profile.Settings{RegistryMirror: "http://mirror:5000", Etcd: profile.Etcd{URL: "http://etcd:2379"}}

// prepared is a host that a bootstrap has looked at.
func prepared(t *testing.T, os remotetest.OS) *rig {
	t.Helper()
	r := open(t, pgtest.New(t), track{os: os})
	r.add(t, r.host.Port())
	r.settings = settings
	r.looked(t)
	return r
}

// looked carries out the first steps of a bootstrap.
func (r *rig) looked(t *testing.T) {
	t.Helper()
	for _, step := range bootstrapSteps {
		_, err := r.do(r.crew(t), step, how{})
		require.NoError(t, err)
	}
}

// again begins another bootstrap.
func (r *rig) again(t *testing.T) {
	t.Helper()
	r.end(t, fleet.HostPrepared)
	op, _, err := r.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindBootstrap, Host: r.host.Address()})
	require.NoError(t, err)
	r.begin(t, op)
	r.looked(t)
}

// content carries out a step of a profile.
func (r *rig) content(c *crew, name, step string, h how) error {
	c.hosts.Settings = func() (profile.Settings, error) { return r.settings, nil }
	in := workflows.ContentStep{Profile: name, HostStep: workflows.HostStep{HostRef: r.ref(), Step: step, Attempt: 1, Unreachable: patience}}
	var err error
	switch step {
	case workflows.StepInstall:
		_, err = execute(h, workflows.Install, c.hosts.Install, in)
	case workflows.StepConfigure:
		_, err = execute(h, workflows.Configure, c.hosts.Configure, in)
	case workflows.StepServices:
		_, err = execute(h, workflows.Services, c.hosts.Services, in)
	}
	return err
}

func (r *rig) apply(t *testing.T, name string) {
	t.Helper()
	for _, step := range contentSteps {
		require.NoError(t, r.content(r.crew(t), name, step, how{}), step)
	}
}

func (r *rig) onHost(path string) string { return filepath.Join(r.host.Dir(), "root", path) }

func (r *rig) read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(r.onHost(path))
	require.NoError(t, err)
	return string(b)
}

func (r *rig) notes(t *testing.T) (notes []string) {
	t.Helper()
	for _, step := range contentSteps {
		row := r.row(t, step)
		require.Equal(t, fleet.StepSucceeded, row.State, step)
		notes = append(notes, row.Reason)
	}
	return notes
}

func TestBootstrapContentTwice(t *testing.T) {
	t.Parallel()
	r := prepared(t, remotetest.OS{ID: "debian", VersionID: "12"})
	r.apply(t, profile.ContainerHost)
	require.Equal(t, []string{"installed containerd", "1 of 1 file changed", "containerd: enabled and running as before"}, r.notes(t))
	require.Contains(t, r.output(t, workflows.StepInstall), "Installed containerd 1.0")
	require.Equal(t, `--- /dev/null
+++ /etc/containerd/certs.d/docker.io/hosts.toml
@@ -0,0 +1,4 @@
+server = "https://registry-1.docker.io"
+
+[host."http://mirror:5000"]
+  capabilities = ["pull", "resolve"]
1 of 1 file changed
note: Who pulls by containerd's CRI, such as a kubelet or crictl, gets images from the mirror only when config_path in /etc/containerd/config.toml is "/etc/containerd/certs.d"; nerdctl looks there by itself.
`, r.output(t, workflows.StepConfigure))
	right := r.read(t, mirrorFile)

	before := r.effects(t)
	r.again(t)
	r.apply(t, profile.ContainerHost)
	require.Equal(t, []string{"all packages are there already", "1 file is as it should be", "containerd: enabled and running as before"}, r.notes(t))
	require.Equal(t, map[string]int{"uname -a": 1}, r.since(t, before), "nothing was changed")

	// Somebody changes the file, twice.
	for _, wrong := range []string{"server = \"elsewhere\"", "again\n"} {
		require.NoError(t, os.WriteFile(r.onHost(mirrorFile), []byte(wrong), 0o600))
		require.NoError(t, os.Chmod(r.onHost(mirrorFile), 0o600))
		r.again(t)
		r.apply(t, profile.ContainerHost)
		require.Equal(t, right, r.read(t, mirrorFile))
		said := r.output(t, workflows.StepConfigure)
		require.Contains(t, said, mirrorFile+": mode 0600 becomes 0644\n"+mirrorFile+": changed; what was there may hold secrets and is not shown\n")
		require.NotContains(t, said, strings.TrimSpace(wrong))
		require.Equal(t, "server = \"elsewhere\"", r.read(t, mirrorFile+".before-commissaire"), "the first one is kept")
	}
	// Only the mode, which is nothing to keep.
	require.NoError(t, os.Remove(r.onHost(mirrorFile+".before-commissaire")))
	require.NoError(t, os.Chmod(r.onHost(mirrorFile), 0o640))
	r.again(t)
	r.apply(t, profile.ContainerHost)
	require.Contains(t, r.output(t, workflows.StepConfigure), mirrorFile+": mode 0640 becomes 0644\n1 of 1 file changed\n")
	require.NoFileExists(t, r.onHost(mirrorFile+".before-commissaire"))
}

// TestLongFiles: of a file that is longer than what is read of an answer it is known, too,
// that it is as it should be.
func TestLongFiles(t *testing.T) {
	t.Parallel()
	one, err := os.ReadFile("../internal/profile/testdata/pem/ca.crt")
	require.NoError(t, err)
	r := prepared(t, remotetest.OS{ID: "rhel", VersionID: "7.9"})
	r.settings.Etcd = profile.Etcd{URL: "https://etcd:2379", CA: bytes.Repeat(one, 200_000/len(one))}
	r.apply(t, profile.Atomic2017)
	before := r.effects(t)
	r.again(t)
	r.apply(t, profile.Atomic2017)
	require.Equal(t, []string{"all packages are there already", "3 files are as they should be", "flanneld, docker: enabled and running as before"}, r.notes(t))
	require.Equal(t, map[string]int{"uname -a": 1}, r.since(t, before), "nothing was changed")
}

// TestNoBackupOfOurs: PATH.before-commissaire is what somebody else has written.
func TestNoBackupOfOurs(t *testing.T) {
	t.Parallel()
	r := prepared(t, remotetest.OS{ID: "debian", VersionID: "12"})
	for _, mirror := range []string{"http://one:5000", "http://two:5000", "http://one:5000"} {
		r.settings.RegistryMirror = mirror
		r.apply(t, profile.ContainerHost)
		require.Contains(t, r.read(t, mirrorFile), mirror)
		require.NoFileExists(t, r.onHost(mirrorFile+".before-commissaire"), "nothing was there before us")
		r.again(t)
	}
	require.NoError(t, os.WriteFile(r.onHost(mirrorFile), []byte("another's\n"), 0o644))
	r.apply(t, profile.ContainerHost)
	require.Equal(t, "another's\n", r.read(t, mirrorFile+".before-commissaire"))
}

func TestBootstrapContentOfImages(t *testing.T) {
	t.Parallel()
	r := prepared(t, remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true})
	r.apply(t, profile.ContainerHost)
	require.Equal(t, []string{"an image brings its own packages; nothing is installed", "1 of 1 file changed", "the profile has no services for this host"}, r.notes(t))

	// What somebody else has written is shown when all on the host may read it.
	for _, was := range []struct {
		mode os.FileMode
		says string
	}{
		{0o644, "--- " + registriesFile + "\n+++ " + registriesFile + "\n@@ -1 +1,6 @@\n-password = \"c2VjcmV0\"\n\\ No newline at end of file\n+[[registry]]\n"},
		{0o640, registriesFile + ": mode 0640 becomes 0644\n" + registriesFile + ": changed; what was there is closed to others and is not shown\n"},
	} {
		require.NoError(t, os.WriteFile(r.onHost(registriesFile), []byte(`password = "c2VjcmV0"`), was.mode))
		require.NoError(t, os.Chmod(r.onHost(registriesFile), was.mode))
		r.again(t)
		r.apply(t, profile.ContainerHost)
		said := r.output(t, workflows.StepConfigure)
		require.True(t, strings.HasPrefix(said, was.says), said)
		require.Equal(t, was.mode == 0o644, strings.Contains(said, "c2VjcmV0"))
	}
}

// TestUnknownSystem: a host that no package manager of ours is on ends in what was found.
func TestUnknownSystem(t *testing.T) {
	t.Parallel()
	r := prepared(t, remotetest.OS{ID: "opensuse-microos", VersionID: "20251020"})
	said := requireRefused(t, string(fleet.StepFailed), r.content(r.crew(t), profile.ContainerHost, workflows.StepInstall, how{}))
	require.Contains(t, said, "changes by transactional-update, which is not supported (the system is opensuse-microos 20251020, the host has zypper")
}

func TestAtomic2017(t *testing.T) {
	t.Parallel()
	r := prepared(t, remotetest.OS{ID: "rhel", VersionID: "7.9"})
	before := r.effects(t)
	r.apply(t, profile.Atomic2017)
	require.Equal(t, []string{"installed libselinux-python, flannel, docker", "2 of 2 files changed", "flanneld, docker: enabled and running"}, r.notes(t))
	did := r.since(t, before)
	for what, n := range map[string]int{
		"subscription-manager repos --enable=rhel-7-server-extras-rpms --enable=rhel-7-server-optional-rpms": 1,
		"systemctl enable -- flanneld": 1, "systemctl enable -- docker": 1, "systemctl restart -- flanneld": 1, "systemctl restart -- docker": 1,
	} {
		require.Equal(t, n, did[what], "%s of %v", what, did)
	}
	entries, err := r.host.Ledger()
	require.NoError(t, err)
	var order []string
	for _, e := range entries {
		if e.What != "boot" && e.What != "uname" {
			order = append(order, strings.Fields(e.What + " " + e.Args)[0]+" "+strings.Fields(e.Args)[len(strings.Fields(e.Args))-1])
		}
	}
	require.Equal(t, []string{
		"subscription-manager --enable=rhel-7-server-optional-rpms", "yum libselinux-python", "yum flannel", "yum docker",
		"systemctl flanneld", "systemctl flanneld", "systemctl docker", "systemctl docker",
	}, order)

	require.NoError(t, os.WriteFile(r.onHost(dockerFile), []byte("OPTIONS=''\n"), 0o644))
	before = r.effects(t)
	r.again(t)
	r.apply(t, profile.Atomic2017)
	require.Equal(t, []string{"all packages are there already", "1 of 2 files changed", "flanneld, docker: enabled and running"}, r.notes(t))
	require.Equal(t, map[string]int{"uname -a": 1, "systemctl restart -- docker": 1}, r.since(t, before), "only who reads the file is restarted")
	require.Contains(t, r.output(t, workflows.StepServices), "docker: restarted, since a file that it reads has changed\n")
}

// cutOff is a store that a worker loses at its nth call; the worker is gone then.
type cutOff struct {
	activities.HostStore
	left *int
	die  context.CancelFunc
}

var errGone = errors.New("the worker is gone")

func (c cutOff) call() error {
	if *c.left--; *c.left < 0 {
		c.die()
		return errGone
	}
	return nil
}

func (c cutOff) Surroundings(ctx context.Context, address string) (store.Surroundings, error) {
	if err := c.call(); err != nil {
		return store.Surroundings{}, err
	}
	return c.HostStore.Surroundings(ctx, address)
}

func (c cutOff) BeginStep(ctx context.Context, id, address, name string, attempt int) (fleet.Step, error) {
	if err := c.call(); err != nil {
		return fleet.Step{}, err
	}
	return c.HostStore.BeginStep(ctx, id, address, name, attempt)
}

func (c cutOff) AppendOutput(ctx context.Context, step, offset int64, data []byte) (int64, error) {
	if err := c.call(); err != nil {
		return 0, err
	}
	return c.HostStore.AppendOutput(ctx, step, offset, data)
}

func (c cutOff) EndStep(ctx context.Context, end store.StepEnd) (fleet.Step, error) {
	if err := c.call(); err != nil {
		return fleet.Step{}, err
	}
	return c.HostStore.EndStep(ctx, end)
}

// TestKilledBetween: a worker dies before each of its calls to the record, which are
// before and after each thing that it does to the host. Another one goes on: all files
// are right, and each service was restarted once.
func TestKilledBetween(t *testing.T) {
	t.Parallel()
	var deaths atomic.Int32
	t.Run("in", func(t *testing.T) { // which ends when all of them have
		for _, dies := range contentSteps[1:] {
			t.Run(dies, func(t *testing.T) {
				t.Parallel()
				killedIn(t, dies, &deaths)
			})
		}
	})
	require.Greater(t, deaths.Load(), int32(8))
}

// killedIn kills the worker before each of the calls that a step makes, in turn.
func killedIn(t *testing.T, dies string, deaths *atomic.Int32) {
	t.Helper()
	r := prepared(t, remotetest.OS{ID: "centos", VersionID: "7"})
	r.apply(t, profile.Atomic2017)
	right := r.read(t, dockerFile)
	for n, over := 0, false; !over; n++ {
		require.Less(t, n, 50)
		require.NoError(t, os.WriteFile(r.onHost(dockerFile), []byte("by hand\n"), 0o644))
		r.again(t)
		before := r.effects(t)
		for _, step := range contentSteps {
			if step == dies {
				left := n
				ctx, die := context.WithCancel(t.Context())
				c := r.crew(t)
				whole := c.hosts.Store
				c.hosts.Store = func(tenant string) activities.HostStore { return cutOff{whole(tenant), &left, die} }
				err := r.content(c, profile.Atomic2017, step, how{ctx: ctx})
				die()
				require.Contains(t, []string{right, "by hand\n"}, r.read(t, dockerFile))
				if over = err == nil; !over {
					deaths.Add(1)
				}
			}
			require.NoError(t, r.content(r.crew(t), profile.Atomic2017, step, how{}))
			r.output(t, step)
		}
		require.Equal(t, right, r.read(t, dockerFile))
		require.Equal(t, map[string]int{"systemctl restart -- docker": 1}, r.since(t, before), "%s, killed before call %d", dies, n)
		require.Contains(t, r.output(t, workflows.StepConfigure), dockerFile+": changed; ", "that it was another is on record")
		marks, err := os.ReadDir(filepath.Join(r.host.StateDir(), "restart"))
		require.NoError(t, err)
		require.Empty(t, marks)
		left, err := filepath.Glob(filepath.Dir(r.onHost(dockerFile)) + "/.*")
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

// TestKilledInstalls: another worker attaches to what the first one began.
func TestKilledInstalls(t *testing.T) {
	t.Parallel()
	r := prepared(t, remotetest.OS{ID: "debian", VersionID: "12"})
	require.NoError(t, r.host.OnCommand("apt-get", `case " $* " in *" install "*) echo begun; while [ ! -e "$H/go" ]; do sleep 0.05; done ;; esac`))
	ctx, die := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- r.content(r.crew(t), profile.ContainerHost, workflows.StepInstall, how{ctx: ctx}) }()
	eventually(t, func() bool { return r.row(t, workflows.StepInstall).OutputTo > 0 }, "it installs")
	die()
	require.Error(t, await(t, first))
	require.NoError(t, os.WriteFile(filepath.Join(r.host.Dir(), "go"), nil, 0o600))
	require.NoError(t, r.content(r.crew(t), profile.ContainerHost, workflows.StepInstall, how{}))
	require.Equal(t, 1, r.host.Count("apt-get", ""))
	require.Contains(t, r.output(t, workflows.StepInstall), "begun\n")
	require.Equal(t, "all packages are there", r.row(t, workflows.StepInstall).Reason)
}

func TestContentThatCannotBe(t *testing.T) {
	t.Parallel()
	r := prepared(t, remotetest.OS{ID: "debian", VersionID: "12"})
	said := requireRefused(t, string(fleet.StepFailed), r.content(r.crew(t), profile.Atomic2017, workflows.StepInstall, how{}))
	require.Contains(t, said, "profile atomic-2017: the profile atomic-2017 is for Fedora, CentOS and RHEL")

	// Each failure ends its bootstrap; the next one goes on from what there is.
	r.again(t)
	require.NoError(t, r.host.OnCommand("apt-get", `case " $* " in *" install "*) echo "E: Unable to locate package containerd" >&2; exit 100 ;; esac`))
	said = requireRefused(t, string(fleet.StepFailed), r.content(r.crew(t), profile.ContainerHost, workflows.StepInstall, how{}))
	require.Contains(t, said, "apt ended with exit code 100")
	require.NoError(t, r.host.OnCommand("apt-get", ""))

	r.again(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(r.onHost(mirrorFile)), 0o755))
	require.NoError(t, os.Symlink("/etc/passwd", r.onHost(mirrorFile)))
	said = requireRefused(t, string(fleet.StepFailed), r.content(r.crew(t), profile.ContainerHost, workflows.StepConfigure, how{}))
	require.Contains(t, said, mirrorFile+" is a symbolic link on the host, which is left alone")
	require.NoError(t, os.Remove(r.onHost(mirrorFile)))

	r.again(t)
	said = requireRefused(t, string(fleet.StepFailed), r.content(r.crew(t), profile.ContainerHost, workflows.StepServices, how{}))
	require.Contains(t, said, "service containerd cannot run on the host: its unit is not-found")

	r.again(t)
	require.NoError(t, r.content(r.crew(t), profile.ContainerHost, workflows.StepInstall, how{}))
	require.NoError(t, os.Remove(filepath.Join(r.host.Dir(), "units/containerd.active")))
	require.NoError(t, os.WriteFile(filepath.Join(r.host.Dir(), "journal"), []byte("one\ncontainerd: no room\n"), 0o600))
	require.NoError(t, r.host.OnCommand("systemctl", `case $1 in restart) : >"$H/units/containerd.failed"; echo "Job for containerd.service failed." >&2; exit 1 ;; esac`))
	said = requireRefused(t, string(fleet.StepFailed), r.content(r.crew(t), profile.ContainerHost, workflows.StepServices, how{}))
	require.Equal(t, "restart service containerd ended with exit code 1", said, "what hosts say is in Postgres only")
	require.Contains(t, r.row(t, workflows.StepServices).Reason, "containerd: no room")
	require.Contains(t, r.output(t, workflows.StepServices), "journal of containerd:\none\ncontainerd: no room\n")
}

// TestSecretsOfHosts: keys reach the host and nothing else.
func TestSecretsOfHosts(t *testing.T) {
	t.Parallel()
	cert, err := os.ReadFile("../internal/profile/testdata/pem/client.crt")
	require.NoError(t, err)
	key, err := os.ReadFile("../internal/profile/testdata/pem/client.key")
	require.NoError(t, err)
	r := prepared(t, remotetest.OS{ID: "fedora", VersionID: "43"})
	c := r.crew(t)
	own := settings
	own.Etcd = profile.Etcd{URL: "https://etcd:2379", Cert: cert, Key: secret.NewText(key)}
	for i := range 2 {
		in := workflows.ContentStep{Profile: profile.Atomic2017, HostStep: workflows.HostStep{HostRef: r.ref(), Step: workflows.StepConfigure, Attempt: 1, Unreachable: patience}}
		c.hosts.Settings = func() (profile.Settings, error) { return own, nil }
		_, err = execute(how{}, workflows.Configure, c.hosts.Configure, in)
		require.NoError(t, err)
		require.Equal(t, string(key), r.read(t, "/etc/etcd/key.crt"))
		said := r.output(t, workflows.StepConfigure)
		require.Contains(t, said, []string{"/etc/etcd/key.crt: new; its content is not shown\n", "/etc/etcd/key.crt: changed; its content is not shown\n"}[i])
		require.NotContains(t, said, "PRIVATE KEY")
		require.NotContains(t, said, "old secret")
		require.NoError(t, os.WriteFile(r.onHost("/etc/etcd/key.crt"), []byte("old secret\n"), 0o600))
		r.again(t)
	}
	info, err := os.Stat(r.onHost("/etc/etcd/key.crt"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	require.NoFileExists(t, r.onHost("/etc/etcd/key.crt.before-commissaire"), "no old key of ours stays")
}
