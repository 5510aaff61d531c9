package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// Every host that is in trouble ends within its deadline and with its own clear
// reason, and the other hosts go on.
func TestHostsInTrouble(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a full disk takes root: a small tmpfs")
	}
	// Whose commands do not end has a cluster where steps have a short deadline. On a busy
	// machine that would come too soon for what ends the other hosts.
	clusters := map[string][]string{
		harness.Cluster: {"hangs", "gone", "full", "samekey", "fine1"},
		"endless":       {"locked", "slow", "fine2"},
	}
	var configs []remotetest.HostConfig
	for _, names := range clusters {
		for _, name := range names {
			configs = append(configs, remotetest.HostConfig{Name: name})
		}
	}
	s := newSiteWith(t, configs, "COMMISSAIRE_UNREACHABLE_AFTER=40s", "COMMISSAIRE_REBOOT_TIMEOUT=40s", "COMMISSAIRE_SSH_KEEPALIVE=1s", "COMMISSAIRE_SSH_HANDSHAKE_TIMEOUT=4s")
	first := s.worker()
	by := map[string]*remotetest.Host{}
	for _, h := range s.Fleet.Hosts() {
		by[h.Name()] = h
	}
	for cluster, names := range clusters {
		var members []*remotetest.Host
		for _, name := range names {
			members = append(members, by[name])
		}
		s.bootstrap(cluster, members...)
	}
	for _, h := range by {
		require.NoError(t, h.Publish("systemd", "2.0"))
	}
	harness.Kill(first) // its connections would outlive what follows
	s.worker()
	require.NoError(t, by["hangs"].Hang())
	t.Cleanup(func() { _ = by["hangs"].Unhang() })
	by["gone"].SetReboot(remotetest.Reboot{NeverReturns: true})
	fill(t, by["full"].StateDir())
	require.NoError(t, by["locked"].Lock())
	require.NoError(t, by["slow"].OnCommand("apt-get", `case " $* " in *" -s "*|*update*) ;; *upgrade*) echo "Unpacking something large"; sleep 600 ;; esac`))
	by["samekey"].SetReboot(remotetest.Reboot{NewHostKey: true})

	ops := map[string]operationView{}
	for cluster, members := range map[string]map[string]any{
		harness.Cluster: {"max_unavailable": "100%", "max_failures": 4},
		"endless":       {"max_unavailable": "100%", "max_failures": 2, "step_timeout": "40s"},
	} {
		s.ask(http.StatusCreated, http.MethodPut, "cluster/"+cluster+"/upgrade", policy(members))
		ops[cluster] = s.latest("kind=upgrade&cluster=" + cluster)
	}
	reasons := map[string]string{}
	states := map[string]string{}
	for cluster, sum := range map[string]string{harness.Cluster: "4 of 5", "endless": "2 of 3"} {
		op := s.end(ops[cluster])
		for i, run := range s.hostRuns(op.ID) {
			reasons[clusters[cluster][i]], states[clusters[cluster][i]] = run.Reason, run.State
		}
		require.Equal(t, "failed", op.State)
		require.Contains(t, op.Reason, sum+" hosts failed, which max_failures allows", "%v", reasons)
	}
	for name, want := range map[string][]string{
		"hangs":   {"step check: gave up after 40s"},
		"gone":    {"step wait: the host did not come back with a new boot id in time"},
		"full":    {"no space left on the disk"},
		"locked":  {"step upgrade:", "lock"},
		"slow":    {"step upgrade: no result within the step's deadline"},
		"samekey": {"host-key-changed"},
	} {
		for _, text := range want {
			require.Contains(t, reasons[name], text, name)
		}
		require.Equal(t, "failed", states[name], name)
	}
	for _, name := range []string{"fine1", "fine2"} {
		require.Equal(t, "succeeded", states[name], reasons[name])
		require.Equal(t, "2.0", by[name].Package("systemd"))
		s.rebootedOnce(by[name])
	}
	require.Equal(t, 1, boots(by["samekey"]))
}

// fill makes a folder of a host a disk that is full.
func fill(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(dir+"/runs", 0o700))
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=8", "tmpfs", dir).CombinedOutput()
	if err != nil {
		t.Skipf("no tmpfs can be mounted here: %s", out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	require.NoError(t, os.MkdirAll(dir+"/runs", 0o700))
	_ = os.WriteFile(dir+"/filler", make([]byte, 64<<10), 0o600)
}
