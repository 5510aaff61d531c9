package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// often is how often hosts are checked in these tests.
const often = "COMMISSAIRE_WATCH_INTERVAL=1s"

type watchView struct {
	Status, Reason string
	LastCheck      string `json:"last_check"`
	Watch          *struct {
		State, Reason string
		Failures      int
		CheckedAt     string `json:"checked_at"`
		RebootedAt    string `json:"rebooted_at"`
	}
}

func (s *site) watched(h *remotetest.Host) (v watchView) {
	s.t.Helper()
	s.get(hostPath(h), &v)
	return v
}

// isFound waits until the checks of a host find this.
func (s *site) isFound(h *remotetest.Host, state string) (v watchView) {
	s.t.Helper()
	s.until(limit, h.Address()+" to be found "+state, func() bool {
		v = s.watched(h)
		return v.Watch != nil && v.Watch.State == state
	})
	return v
}

// foundAgain waits for a check that begins from now on to find this.
func (s *site) foundAgain(h *remotetest.Host, state string) (v watchView) {
	s.t.Helper()
	now := fleet.FormatTime(time.Now().UTC())
	s.until(limit, h.Address()+" to be found "+state+" again", func() bool {
		v = s.watched(h)
		return v.Watch != nil && v.Watch.CheckedAt > now && v.Watch.State == state
	})
	return v
}

// Hosts are watched from their bootstrap on: one goes away and comes back, another is
// rebooted by somebody, a third presents another key, and a fourth is deleted.
func TestHostsAreWatched(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5, often)
	s.worker()
	hosts := s.Fleet.Hosts()
	away, rebooted, other, deleted, alone := hosts[0], hosts[1], hosts[2], hosts[3], hosts[4]
	s.bootstrap("web", hosts[:4]...)
	s.addHost(alone, "")
	s.ready(alone)
	for _, h := range hosts {
		v := s.isFound(h, "healthy")
		require.Empty(t, v.Watch.RebootedAt)
		require.NotEmpty(t, v.LastCheck)
	}

	require.NoError(t, away.Refuse())
	require.NoError(t, rebooted.Stop())
	require.NoError(t, rebooted.Start(t.Context()))
	require.NoError(t, other.NewHostKey(t.Context()))
	s.ask(http.StatusOK, http.MethodDelete, hostPath(deleted), nil)

	s.until(limit, "the host that is away to fail", func() bool { return s.watched(away).Status == "failed" })
	lost := s.watched(away)
	require.Regexp(t, `^unreachable at 3 checks in a row: connect: `, lost.Reason)
	require.GreaterOrEqual(t, lost.Watch.Failures, 3)
	require.NotEqual(t, lost.LastCheck, lost.Watch.CheckedAt, "the last check did not reach it")
	s.until(limit, "the host with another key to fail", func() bool { return s.watched(other).Status == "failed" })
	require.Equal(t, "key-changed", s.watched(other).Watch.State)
	s.until(limit, "the reboot to be noted", func() bool { return s.watched(rebooted).Watch.RebootedAt != "" })
	require.Equal(t, "disassociated", s.watched(rebooted).Status)
	s.ask(http.StatusNotFound, http.MethodGet, hostPath(deleted), nil)
	require.Zero(t, s.count(`SELECT count(*) FROM host WHERE address = $1`, deleted.Address()))
	require.Equal(t, "disassociated", s.watched(alone).Status)
	s.until(limit, "the metric", func() bool {
		_, page := s.page("/metrics")
		return strings.Contains(page, `commissaire_watched_hosts{found="key-changed"} 1`)
	})

	require.NoError(t, away.Accept(t.Context()))
	s.ask(http.StatusCreated, http.MethodPut, hostPath(other)+"/hostkey", map[string]any{"key": other.HostKey()})
	require.Equal(t, "failed", s.isFound(other, "healthy").Status, "another machine wants a bootstrap")
	s.ask(http.StatusCreated, http.MethodPut, hostPath(other)+"/bootstrap", nil)
	for _, h := range []*remotetest.Host{away, other} {
		s.until(limit, h.Address()+" to be found again", func() bool { return s.watched(h).Status == "disassociated" })
		require.Empty(t, s.watched(h).Reason)
	}
}

// A reboot by a rollout is no news for the watcher, and a host that is away for that does
// not fail.
func TestTheWatcherLeavesHostsToOperations(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, often, "COMMISSAIRE_WATCH_FAILURES=1")
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap("web", hosts...)
	for _, h := range hosts {
		h.SetReboot(remotetest.Reboot{Shutdown: 2 * time.Second, Downtime: 3 * time.Second})
		s.isFound(h, "healthy")
	}
	s.orderRestart("web")
	require.Equal(t, "succeeded", s.ended("cluster=web").State)
	for _, h := range hosts {
		v := s.foundAgain(h, "healthy")
		require.Empty(t, v.Watch.RebootedAt, "the rollout did that")
		require.Equal(t, "disassociated", v.Status)
	}
	s.rebootedOnce(hosts...)
	require.Zero(t, s.count(`SELECT count(*) FROM host WHERE watch_since > state_since AND state = 'failed'`))
}

// Twenty clusters are cut off, and their hosts answer nothing. What is done on others does
// not wait for their checks, of which each takes 10 s: behind them, in four slots, a step
// would wait for 40 s, and a bootstrap has more than four.
func TestOperationsDoNotWaitForChecks(t *testing.T) {
	t.Parallel()
	s := newSite(t, 21, "COMMISSAIRE_WATCH_INTERVAL=5s", "COMMISSAIRE_WORKER_SLOTS=4")
	s.worker()
	hosts := s.Fleet.Hosts()
	well, silent := hosts[0], hosts[1:]
	for i, h := range silent {
		cluster := fmt.Sprint("silent-", i)
		s.ask(http.StatusCreated, http.MethodPut, "cluster/"+cluster, map[string]any{})
		s.addHost(h, cluster)
	}
	s.addHost(well, "")
	s.ready(hosts...)
	for _, h := range silent {
		require.NoError(t, h.Hang())
		t.Cleanup(func() { _ = h.Unhang() })
	}
	for _, h := range silent {
		s.isFound(h, "unreachable")
	}
	before := s.watched(silent[0]).Watch.Failures
	s.ask(http.StatusCreated, http.MethodPut, hostPath(well)+"/bootstrap", nil)
	require.Equal(t, "succeeded", s.ended("host="+well.Address()).State)
	require.Less(t, s.watched(silent[0]).Watch.Failures-before, 12, "a bootstrap takes less than two minutes of checks, on a busy machine too")
	s.foundAgain(well, "healthy")
}

// schedules lists the ids of all in the namespace of the site.
func (s *site) schedules() (ids []string, every map[string]time.Duration) {
	s.t.Helper()
	list, err := s.Temporal.ScheduleClient().List(s.t.Context(), client.ScheduleListOptions{})
	require.NoError(s.t, err)
	every = map[string]time.Duration{}
	for list.HasNext() {
		e, err := list.Next()
		require.NoError(s.t, err)
		ids = append(ids, e.ID)
		if len(e.Spec.Intervals) == 1 {
			every[e.ID] = e.Spec.Intervals[0].Every
		}
	}
	slices.Sort(ids)
	return ids, every
}

func (s *site) schedulesAre(want ...string) {
	s.t.Helper()
	var ids []string
	s.until(limit, "the schedules "+strings.Join(want, ", "), func() bool {
		ids, _ = s.schedules()
		return slices.Equal(ids, want)
	})
}

// Schedules come and go with clusters, follow the settings, and are gone when nothing is
// watched. Those of others stay.
func TestSchedulesFollowClusters(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0, "COMMISSAIRE_WATCH_INTERVAL=1h")
	s.schedulesAre("watch/default")
	for _, id := range []string{"watch/mine", "nightly"} {
		_, err := s.Temporal.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
			ID: id, Paused: true, Action: &client.ScheduleWorkflowAction{ID: id, Workflow: workflows.Rollout, TaskQueue: "none", Args: []any{workflows.RolloutInput{}}},
		})
		require.NoError(t, err)
	}
	for _, name := range []string{"a", "b"} {
		s.ask(http.StatusCreated, http.MethodPut, "cluster/"+name, map[string]any{})
	}
	s.schedulesAre("nightly", "watch/default", "watch/default/a", "watch/default/b", "watch/mine")
	s.ask(http.StatusOK, http.MethodDelete, "cluster/a", nil)
	s.schedulesAre("nightly", "watch/default", "watch/default/b", "watch/mine")

	restart := func(interval string) {
		harness.Kill(s.Server)
		var err error
		s.Server, err = s.Start("server", "COMMISSAIRE_WATCH_INTERVAL="+interval)
		require.NoError(t, err)
		require.NoError(t, s.Ready(t.Context()))
	}
	require.NoError(t, s.Temporal.ScheduleClient().GetHandle(t.Context(), "watch/default").Delete(t.Context()))
	restart("2h")
	s.until(limit, "the interval to change", func() bool {
		_, every := s.schedules()
		return every["watch/default"] == 2*time.Hour && every["watch/default/b"] == 2*time.Hour
	})
	described, err := s.Temporal.ScheduleClient().GetHandle(t.Context(), "watch/default/b").Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, 12*time.Minute, described.Schedule.Spec.Jitter)
	restart("0s")
	s.schedulesAre("nightly", "watch/mine")
}
