package e2e

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/privatepg"
	"commissaire/internal/remote/remotetest"
)

// restarted wants the restart of the cluster ended well, each host having
// rebooted once.
func (s *site) restarted(hosts ...*remotetest.Host) {
	s.t.Helper()
	op := s.ended("kind=restart&cluster=" + harness.Cluster)
	require.Equal(s.t, "succeeded", op.State, op.Reason)
	require.Equal(s.t, "finished", s.restart(harness.Cluster).Status)
	s.rebootedOnce(hosts...)
	s.rolledInOrder(hosts)
}

func TestServerIsKilledDuringARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	s.orderRestart(harness.Cluster)
	s.rebooting(hosts[0])
	harness.Kill(s.Server)
	s.rebooting(hosts[1]) // it goes on without an API
	var err error
	s.Server, err = s.Start("server")
	require.NoError(t, err)
	require.NoError(t, s.Ready(t.Context()))
	s.restarted(hosts...)
}

// reads are requests that need Postgres only.
var reads = []string{
	"clusters", "cluster/" + harness.Cluster, "cluster/" + harness.Cluster + "/hosts", "cluster/" + harness.Cluster + "/restart",
	"hosts", "networks", "operations",
}

func TestTemporalIsStoppedDuringARestart(t *testing.T) {
	t.Parallel()
	own := ownStack(t)
	s := newSiteOn(t, harness.Options{Postgres: own.postgres, Temporal: own.address(), Hosts: 3})
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	s.ask(http.StatusCreated, http.MethodPut, "cluster/other", map[string]any{})
	s.orderRestart(harness.Cluster)
	s.rebooting(hosts[0])

	require.NoError(t, own.stopTemporal())
	s.until(limit, "the API to notice", func() bool { code, _ := s.page("/readyz"); return code == http.StatusServiceUnavailable })
	const rows = `SELECT (SELECT count(*) FROM operation) + (SELECT count(*) FROM host) + (SELECT count(*) FROM host_run)`
	before := s.count(rows)
	newHost := s.HostBody(hosts[0])
	delete(newHost, "cluster")
	for range 3 {
		s.refused(http.StatusServiceUnavailable, http.MethodPut, "cluster/other/restart", nil)
		s.refused(http.StatusServiceUnavailable, http.MethodPut, hostPath(hosts[0])+"/bootstrap", nil)
		s.refused(http.StatusServiceUnavailable, http.MethodPut, "host/new.example", newHost)
		for _, path := range append(reads, hostPath(hosts[0]), hostPath(hosts[0])+"/status", hostPath(hosts[0])+"/bootstrap") {
			s.ask(http.StatusOK, http.MethodGet, path, nil)
		}
		code, _ := s.page("/livez")
		require.Equal(t, http.StatusOK, code)
		code, body := s.page("/readyz")
		require.Equal(t, http.StatusServiceUnavailable, code, body)
	}
	require.Equal(t, before, s.count(rows), "what was refused is not stored")

	require.NoError(t, own.startTemporal(t.Context()))
	s.restarted(hosts...)
	require.NoError(t, s.Ready(t.Context()))
	s.orderRestart("other")
	require.Equal(t, "succeeded", s.ended("cluster=other").State)
}

func TestPostgresIsStoppedDuringARestart(t *testing.T) {
	t.Parallel()
	for name, both := range map[string]bool{"only ours": false, "Temporal's too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own, o := ownStack(t), harness.Options{Temporal: shared.address(), Hosts: 3}
			if both {
				o.Temporal = own.address()
			}
			o.Postgres = own.postgres
			s := newSiteOn(t, o)
			s.worker()
			hosts := s.Fleet.Hosts()
			s.bootstrap(harness.Cluster, hosts...)
			s.ask(http.StatusCreated, http.MethodPut, "cluster/other", map[string]any{})
			s.orderRestart(harness.Cluster)
			s.rebooting(hosts[0])

			// Somebody asks all the time: before, during and after.
			has, answers := s.probe()
			s.until(limit, "who asks to be answered", func() bool { return has(http.StatusOK) })
			require.NoError(t, own.postgres.Stop(privatepg.Immediate))
			s.until(limit, "the API to notice", func() bool { code, _ := s.page("/readyz"); return code == http.StatusServiceUnavailable })
			for _, path := range append(reads, hostPath(hosts[0])) {
				s.refused(http.StatusServiceUnavailable, http.MethodGet, path, nil)
			}
			s.refused(http.StatusServiceUnavailable, http.MethodPut, "cluster/other/restart", nil)
			s.refused(http.StatusServiceUnavailable, http.MethodPut, hostPath(hosts[0])+"/bootstrap", nil)
			code, _ := s.page("/livez")
			require.Equal(t, http.StatusOK, code)
			s.until(limit, "who asks to be refused", func() bool { return has(http.StatusServiceUnavailable) })

			require.NoError(t, own.startPostgres(t.Context()))
			require.NoError(t, s.Ready(t.Context()))
			s.restarted(hosts...)
			seen := answers()
			for code := range seen {
				require.Contains(t, []int{http.StatusOK, http.StatusCreated, http.StatusServiceUnavailable}, code, "answers: %v", seen)
			}
		})
	}
}

// probe reads and orders all the time until stop is called, which gives the statuses of
// all answers. has says whether there was an answer with a status yet.
func (s *site) probe() (has func(status int) bool, stop func() map[int]int) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var mu sync.Mutex // guards seen
	seen := map[int]int{}
	note := func(status int) {
		mu.Lock()
		defer mu.Unlock()
		seen[status]++
	}
	has = func(status int) bool {
		mu.Lock()
		defer mu.Unlock()
		return seen[status] > 0
	}
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			for _, request := range [][2]string{{http.MethodGet, "hosts"}, {http.MethodPut, "cluster/other/restart"}, {http.MethodGet, "operations"}} {
				r, err := s.Request(ctx, request[0], request[1], nil)
				if err != nil {
					continue // the test has ended
				}
				if note(r.Code); r.Code/100 != 2 && r.Code != http.StatusServiceUnavailable {
					s.t.Logf("%v: %d %s", request, r.Code, r.Body)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return has, func() map[int]int {
		cancel()
		done.Wait()
		s.t.Logf("answers: %v", slices.Collect(maps.Keys(seen)))
		return seen
	}
}
