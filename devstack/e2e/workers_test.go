package e2e

import (
	"net/http"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// Workers come and go in the middle of steps: one is stopped, one is killed, and
// mostly there are two. Every command runs once.
func TestWorkersHandOver(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	hosts := s.Fleet.Hosts()
	for _, h := range hosts {
		s.slowUname(h, "3")
		h.SetReboot(remotetest.Reboot{Shutdown: time.Second})
	}
	first := s.worker()
	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{})
	for _, h := range hosts {
		s.addHost(h, harness.Cluster)
	}
	for _, h := range hosts {
		s.unameRuns(h)
	}
	s.stopped(first)
	second := s.worker()
	s.ready(hosts...)
	for _, h := range hosts {
		require.Equal(t, 1, h.Count("uname", "-a"))
	}

	third := s.worker()
	s.orderRestart(harness.Cluster)
	s.rebooting(hosts[0])
	harness.Kill(second)
	s.rebooting(hosts[1])
	fourth := s.worker()
	s.stopped(third)
	s.rebooting(hosts[2])
	s.stopped(fourth)
	s.worker()
	s.restarted(hosts...)
}

// stopped sends SIGTERM to a worker and wants it to end well, and soon.
func (s *site) stopped(w *exec.Cmd) {
	s.t.Helper()
	began := time.Now()
	require.NoError(s.t, w.Process.Signal(syscall.SIGTERM))
	require.NoError(s.t, w.Wait())
	require.Less(s.t, time.Since(began), 15*time.Second)
	s.t.Logf("a worker stopped after %s", time.Since(began).Round(10*time.Millisecond))
}
