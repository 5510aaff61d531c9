package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// orphanLimit: the dispatcher looks every minute.
const orphanLimit = time.Minute + limit

// Operations whose workflows somebody terminates in Temporal do not hold their
// cluster and their host for ever.
func TestTerminatedWorkflowsHoldNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "COMMISSAIRE_REBOOT_TIMEOUT=1h")
	s.worker()
	gone, slow := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1]
	s.bootstrap(harness.Cluster, gone)
	gone.SetReboot(remotetest.Reboot{NeverReturns: true})
	s.orderRestart(harness.Cluster)
	uname := s.gate(slow, "uname", "-a")
	s.addHost(slow, "")
	s.rebooting(gone)
	uname.reached()
	for _, id := range []string{"cluster/default/" + harness.Cluster, "host/default/" + slow.Address()} {
		require.NoError(t, s.Temporal.TerminateWorkflow(t.Context(), id, "", "a test"))
	}
	// An operation younger than a minute is left alone; the test does not wait for that.
	_, err := s.DB.Exec(t.Context(), `UPDATE operation SET started = started - interval '2 minutes' WHERE finished IS NULL`)
	require.NoError(t, err)
	for _, filter := range []string{"kind=restart", "host=" + slow.Address()} {
		var op operationView
		s.until(orphanLimit, "the dispatcher to notice", func() bool {
			op = s.latest(filter)
			return op.State != "running"
		})
		require.Equal(t, "failed", op.State)
		require.Contains(t, op.Reason, "its workflow in Temporal was terminated")
	}
	require.Equal(t, "failed", s.restart(harness.Cluster).Status)
	require.Equal(t, "failed", s.host(slow).Status)
	require.Contains(t, s.host(slow).Reason, "terminated")

	gone.SetReboot(remotetest.Reboot{})
	require.NoError(t, gone.Start(t.Context()))
	s.orderRestart(harness.Cluster)
	require.NoError(t, slow.OnCommand("uname", "")) // the old command hangs on
	s.ask(http.StatusCreated, http.MethodPut, hostPath(slow)+"/bootstrap", nil)
	s.ready(slow)
	op := s.ended("kind=restart")
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, 2, reboots(gone))
}
