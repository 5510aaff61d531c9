package e2e

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

func TestClusterIsDeletedDuringARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	reboot := s.gate(hosts[0], "systemctl", "reboot")
	s.orderRestart(harness.Cluster)
	reboot.reached()
	s.ask(http.StatusOK, http.MethodDelete, "cluster/"+harness.Cluster, nil)
	reboot.open()
	op := s.ended("kind=restart&cluster=" + harness.Cluster)
	require.Equal(t, "cancelled", op.State)
	require.Equal(t, `cluster "web" was deleted`, op.Reason)
	s.rebootedOnce(hosts[0])
	var states []string
	for _, run := range s.hostRuns(op.ID) {
		states = append(states, run.State)
	}
	require.Equal(t, []string{"succeeded", "skipped", "skipped"}, states, "the host at work is brought to its end")
	for _, h := range hosts[1:] {
		require.Zero(t, reboots(h))
		require.Equal(t, "disassociated", s.host(h).Status)
	}
}

func TestMembersLeaveDuringARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	reboot := s.gate(hosts[0], "systemctl", "reboot")
	s.orderRestart(harness.Cluster)
	reboot.reached()
	s.ask(http.StatusOK, http.MethodDelete, "cluster/"+harness.Cluster+"/hosts/"+hosts[1].Address(), nil)
	s.ask(http.StatusOK, http.MethodDelete, hostPath(hosts[2]), nil)
	reboot.open()
	op := s.ended("kind=restart")
	require.Equal(t, "succeeded", op.State, op.Reason)
	s.rebootedOnce(hosts[0], hosts[3])
	require.Zero(t, reboots(hosts[1]))
	require.Zero(t, reboots(hosts[2]))
	runs := s.hostRuns(op.ID)
	require.Equal(t, hostRunView{Address: hosts[1].Address(), State: "skipped", Reason: "the host left the cluster before its turn"}, runs[1])
	require.Equal(t, hostRunView{Address: hosts[2].Address(), State: "skipped", Reason: "the host was removed before its turn"}, runs[2])
	require.Equal(t, []string{hosts[0].Address(), hosts[3].Address()}, s.restart(harness.Cluster).Restarted)
}

// A host is removed while it is bootstrapped, and added again at once: the
// second one is a new host, and the first bootstrap does not touch it.
func TestHostIsDeletedDuringItsBootstrap(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.worker()
	h := s.Fleet.Hosts()[0]
	uname := s.gate(h, "uname", "-a")
	s.addHost(h, "")
	uname.reached()
	s.ask(http.StatusOK, http.MethodDelete, hostPath(h), nil)
	s.refused(http.StatusNotFound, http.MethodGet, hostPath(h), nil)
	uname.open()
	s.addHost(h, "")
	s.ready(h)
	var page struct{ Operations []operationView }
	s.get("operations?host="+h.Address(), &page)
	require.Len(t, page.Operations, 2)
	require.Equal(t, "succeeded", page.Operations[0].State)
	require.Equal(t, "cancelled host removed by "+harness.User, page.Operations[1].State+" "+page.Operations[1].Reason)
}

// Of any number of equal orders one begins an operation; the others get its
// record.
func TestConcurrentOrdersAreOne(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	for round, n := range []int{2, 30} {
		reboot := s.gate(hosts[0], "systemctl", "reboot") // it is under way until all have their answers
		answers := make([]*harness.Response, n)
		errs := make([]error, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				errs[i] = harness.Until(t.Context(), limit, "an answer", func() (_ bool, err error) {
					answers[i], err = s.Request(t.Context(), http.MethodPut, "cluster/"+harness.Cluster+"/restart", nil)
					return err == nil && answers[i].Code != http.StatusServiceUnavailable, err // Temporal may be late
				})
			})
		}
		all.Wait()
		reboot.open()
		created := 0
		for i, r := range answers {
			require.NoError(t, errs[i])
			require.Contains(t, []int{http.StatusOK, http.StatusCreated}, r.Code, "%s", r.Body)
			if r.Code == http.StatusCreated {
				created++
			}
			var v restartView
			require.NoError(t, json.Unmarshal(r.Body, &v))
			require.Equal(t, "in_process", v.Status)
			require.Equal(t, harness.Cluster, v.Name)
			var first restartView
			require.NoError(t, json.Unmarshal(answers[0].Body, &first))
			require.Equal(t, first.StartedAt, v.StartedAt)
		}
		require.Equal(t, 1, created)
		require.Equal(t, round+1, s.count(`SELECT count(*) FROM operation WHERE kind = 'restart'`))
		op := s.ended("kind=restart")
		require.Equal(t, "succeeded", op.State, op.Reason)
		require.Equal(t, round+1, reboots(hosts[0]))
	}
}
