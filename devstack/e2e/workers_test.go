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
	var unames []gate
	for _, h := range hosts {
		unames = append(unames, s.gate(h, "uname", "-a"))
		h.SetReboot(remotetest.Reboot{Shutdown: time.Second})
	}
	first := s.worker()
	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{})
	for _, h := range hosts {
		s.addHost(h, harness.Cluster)
	}
	for _, g := range unames {
		g.reached()
	}
	s.stopped(first) // it waits for no command
	for _, g := range unames {
		g.open()
	}
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

// stopped sends SIGTERM to a worker and wants it to end well.
func (s *site) stopped(w *exec.Cmd) {
	s.t.Helper()
	require.NoError(s.t, w.Process.Signal(syscall.SIGTERM))
	late := time.AfterFunc(limit, func() { _ = w.Process.Kill() })
	defer late.Stop()
	require.NoError(s.t, w.Wait())
}
