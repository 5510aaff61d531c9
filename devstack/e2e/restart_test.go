package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// The second of three hosts never comes back: the first stays restarted, the
// third is untouched, and everything that can be read says where it stopped.
func TestARestartStopsAtTheFirstFailure(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, "COMMISSAIRE_REBOOT_TIMEOUT=40s") // sat out once; two others have to be back in it
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	hosts[1].SetReboot(remotetest.Reboot{NeverReturns: true})
	third, err := hosts[2].Ledger()
	require.NoError(t, err)
	s.orderRestart(harness.Cluster)
	op := s.restartFailed(harness.Cluster, hosts[1], "wait", "did not come back with a new boot id in time", "connection refused")

	require.Equal(t, 1, reboots(hosts[0]))
	require.Equal(t, 1, reboots(hosts[1]))
	ledger, err := hosts[2].Ledger()
	require.NoError(t, err)
	require.Equal(t, third, ledger, "the third host is untouched")
	v := s.restart(harness.Cluster)
	require.Equal(t, []string{hosts[0].Address()}, v.Restarted)
	require.Equal(t, []string{hosts[1].Address()}, v.InProcess)
	runs := s.hostRuns(op.ID)
	require.Equal(t, []string{"succeeded", "failed", "skipped"}, []string{runs[0].State, runs[1].State, runs[2].State})
	for i, status := range []string{"disassociated", "failed", "disassociated"} {
		require.Equal(t, status, s.host(hosts[i]).Status)
	}

	// Mended, it is repeated without deleting anything.
	hosts[1].SetReboot(remotetest.Reboot{})
	require.NoError(t, hosts[1].Start(t.Context()))
	s.orderRestart(harness.Cluster)
	again := s.ended("kind=restart")
	require.Equal(t, "succeeded", again.State, again.Reason)
	require.NotEqual(t, op.ID, again.ID)
	require.Equal(t, []int{2, 2, 1}, []int{reboots(hosts[0]), reboots(hosts[1]), reboots(hosts[2])})
	require.Equal(t, "disassociated", s.host(hosts[1]).Status)
}

// restartFailed wants the restart of a cluster ended by a host's failure.
func (s *site) restartFailed(cluster string, h *remotetest.Host, step string, because ...string) operationView {
	s.t.Helper()
	op := s.ended("kind=restart&cluster=" + cluster)
	require.Equal(s.t, "failed", op.State)
	require.Equal(s.t, "failed", s.restart(cluster).Status)
	require.Contains(s.t, op.Reason, "host "+h.Address()+": step "+step+": ")
	for _, part := range because {
		require.Contains(s.t, op.Reason, part)
	}
	v := s.host(h)
	require.Equal(s.t, "failed", v.Status)
	require.Contains(s.t, op.Reason, v.Reason)
	return op
}

// What can happen to one host that reboots. Each has a cluster of its own.
func TestReboots(t *testing.T) {
	t.Parallel()
	cases := []struct {
		cluster string
		run     func(*site, *remotetest.Host, string)
	}{
		{"same-boot-id", sameBootID},
		{"slow-shutdown", slowShutdown},
		{"new-host-key", newHostKey},
		{"command-fails", commandFails},
	}
	s := newSite(t, len(cases), "COMMISSAIRE_REBOOT_TIMEOUT=40s") // the same
	countLogins(t, s)
	s.worker()
	for i, c := range cases {
		t.Run(c.cluster, func(t *testing.T) {
			t.Parallel()
			s, h := s.in(t), s.Fleet.Hosts()[i]
			s.bootstrap(c.cluster, h)
			c.run(s, h, c.cluster)
		})
	}
}

// The host comes back, but its boot id says that it never rebooted.
func sameBootID(s *site, h *remotetest.Host, cluster string) {
	h.SetReboot(remotetest.Reboot{SameBootID: true})
	s.orderRestart(cluster)
	s.restartFailed(cluster, h, "wait", "still answers with the old boot id")
	require.Equal(s.t, 1, reboots(h), "it is not told twice")
}

// The old boot answers for another 5 s: that is neither a success nor a reason
// to tell the host again.
func slowShutdown(s *site, h *remotetest.Host, cluster string) {
	h.SetReboot(remotetest.Reboot{Shutdown: 5 * time.Second})
	old := h.BootID()
	s.orderRestart(cluster)
	s.rebooting(h)
	s.until(limit, "the host to be in its new boot", func() bool {
		if h.BootID() != old {
			return true
		}
		v := s.restart(cluster)
		// The host may have rebooted between the two looks.
		require.True(s.t, v.Status == "in_process" || h.BootID() != old, "it has not rebooted yet, but is %s", v.Status)
		return false
	})
	op := s.ended("cluster=" + cluster)
	require.Equal(s.t, "succeeded", op.State, op.Reason)
	s.rebootedOnce(h)
}

// The host comes back with another host key: nobody logs in any more.
func newHostKey(s *site, h *remotetest.Host, cluster string) {
	h.SetReboot(remotetest.Reboot{NewHostKey: true})
	pinned := s.host(h).HostKey
	s.orderRestart(cluster)
	s.until(limit, "the new boot", func() bool { return h.Reboots() == 1 })
	before := logins(s.t, h)
	s.restartFailed(cluster, h, "wait", "host-key-changed", pinned, fingerprint(s.t, h.HostKey()))
	require.Positive(s.t, before)
	require.Equal(s.t, before, logins(s.t, h), "no command reached it after the reboot")

	h.SetReboot(remotetest.Reboot{})
	s.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/hostkey", map[string]any{"key": h.HostKey()})
	s.orderRestart(cluster)
	op := s.ended("cluster=" + cluster)
	require.Equal(s.t, "succeeded", op.State, op.Reason)
	require.Equal(s.t, 2, reboots(h))
}

func commandFails(s *site, h *remotetest.Host, cluster string) {
	require.NoError(s.t, h.OnCommand("systemctl", `[ "$1" != reboot ] || { echo first; echo "Call to Reboot failed: Access denied" >&2; exit 3; }`))
	old := h.BootID()
	s.orderRestart(cluster)
	op := s.restartFailed(cluster, h, "reboot", "exit code 3; it said: first / Call to Reboot failed: Access denied")
	require.Equal(s.t, old, h.BootID())
	require.Equal(s.t, "first\nCall to Reboot failed: Access denied\n", string(s.output(op.ID, h.Address(), "reboot")))

	require.NoError(s.t, h.OnCommand("systemctl", ""))
	s.orderRestart(cluster)
	again := s.ended("cluster=" + cluster)
	require.Equal(s.t, "succeeded", again.State, again.Reason)
	s.rebootedOnce(h)
}
