package contract

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// orderOf gives the members of a JSON object in the order they were sent.
func orderOf(t *testing.T, a answer) (names []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(a.body))
	_, err := d.Token()
	require.NoError(t, err)
	for d.More() {
		name, err := d.Token()
		require.NoError(t, err)
		names = append(names, name.(string))
		var skipped json.RawMessage
		require.NoError(t, d.Decode(&skipped))
	}
	return names
}

func TestModels(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "2-1", func(t *testing.T) {
		a := s.put(t, "cluster/m1", `{"type": "host_only"}`)
		a.is(http.StatusCreated, `{"name": "m1", "status": "", "network": "default", "container_manager": ""}`)
		require.Equal(t, []string{"name", "status", "network", "container_manager"}, orderOf(t, a))
		s.get(t, "cluster/m1").is(http.StatusOK, `{"name": "m1", "status": "ok", "network": "default", "hostset": [], "container_manager": "",
			"hosts": {"total": 0, "available": 0, "unavailable": 0}}`)
	})
	fact(t, "2-5", func(t *testing.T) {
		s.addName(t, "m5.example", "")
		a := s.get(t, "host/m5.example")
		require.Equal(t, []string{"address", "status", "os", "cpus", "memory", "space", "last_check", "source"}, orderOf(t, a)[:8])
		h := a.object()
		for name, want := range map[string]any{"address": "m5.example", "status": "investigating", "os": "", "cpus": 0., "memory": 0., "space": 0., "last_check": "", "source": ""} {
			require.Equal(t, want, h[name], name)
		}
	})
	fact(t, "2-6", func(t *testing.T) {
		key := s.addName(t, "m6.example", "")
		a := s.get(t, "host/m6.example/creds")
		a.is(http.StatusOK, jsonOf(t, M{"address": "m6.example", "ssh_priv_key": key, "remote_user": "root"}))
		require.Equal(t, []string{"address", "ssh_priv_key", "remote_user"}, orderOf(t, a))
		_, err := base64.StdEncoding.DecodeString(key)
		require.NoError(t, err)
	})
	fact(t, "2-7", func(t *testing.T) {
		s.addName(t, "m7.example", "")
		a := s.get(t, "host/m7.example/status")
		a.is(http.StatusOK, `{"type": "host_only", "host": {"last_check": "", "status": "investigating"}, "container_manager": {}}`)
		require.Equal(t, []string{"type", "host", "container_manager"}, orderOf(t, a))
	})
	fact(t, "2-8", func(t *testing.T) {
		a := s.put(t, "network/m8", "")
		a.is(http.StatusCreated, `{"name": "m8", "type": "flannel_etcd", "options": {}}`)
		require.Equal(t, []string{"name", "type", "options"}, orderOf(t, a))
	})
	fact(t, "2-10", func(t *testing.T) {
		s.get(t, "watcherrecords").problem(http.StatusNotFound)
		s.get(t, "watcher").problem(http.StatusNotFound)
	})
	fact(t, "2-13 2-18", func(t *testing.T) {
		s.put(t, "cluster/m18", "").status(http.StatusCreated)
		hosts := []string{"m18-a.example", "m18-b.example"}
		for _, h := range hosts {
			s.addName(t, h, "m18")
		}
		state := func(status string, available, unavailable float64) {
			c := s.get(t, "cluster/m18").object()
			require.Equal(t, status, c["status"])
			require.Equal(t, map[string]any{"total": available + unavailable, "available": available, "unavailable": unavailable}, c["hosts"])
		}
		state("failed", 0, 2)
		s.setState(t, hosts[0], "active")
		state("degraded", 1, 1)
		s.setState(t, hosts[1], "active")
		state("ok", 2, 0)
		s.setState(t, hosts[1], "bootstrapping")
		state("degraded", 1, 1)
		for _, h := range hosts {
			s.delete(t, "host/"+h).status(http.StatusOK)
		}
		state("ok", 0, 0)
	})
	fact(t, "2-16", func(t *testing.T) {
		for _, kind := range []string{"flannel_etcd", "flannel_server"} {
			s.put(t, "network/m16-"+kind, `{"type": "`+kind+`"}`).status(http.StatusCreated)
		}
		for _, kind := range []string{"flanneld_service", "FLANNEL_ETCD", ""} {
			s.put(t, "network/m16", `{"type": "`+kind+`"}`).problem(http.StatusBadRequest, "type")
		}
	})
}

// A new installation.
func TestNewInstallation(t *testing.T) {
	t.Parallel()
	s := ownSite(t, harness.Options{})
	fact(t, "2-20 3.1-1 3.4-1 3.7-2 9-4", func(t *testing.T) {
		for _, path := range []string{"clusters", "hosts", "containermanagers"} {
			s.get(t, path).is(http.StatusOK, "[]")
		}
		s.get(t, "networks").is(http.StatusOK, `["default"]`)
		s.put(t, "cluster/b", "").status(http.StatusCreated)
		s.put(t, "cluster/a", "").status(http.StatusCreated)
		var names []string
		s.get(t, "clusters").into(&names)
		require.ElementsMatch(t, []string{"a", "b"}, names)
	})
	fact(t, "2-19", func(t *testing.T) {
		s.get(t, "network/default").is(http.StatusOK, `{"name": "default", "type": "flannel_etcd", "options": {}}`)
		s.delete(t, "network/default").is(http.StatusOK, "[]")
		s.get(t, "networks").is(http.StatusOK, "[]")
		require.Equal(t, "default", s.put(t, "cluster/m19", "").object()["network"])
	})
}

// Models that take a host.
func TestModelsOfHosts(t *testing.T) {
	t.Parallel()
	s := ownSite(t, harness.Options{Machines: []remotetest.HostConfig{
		{Name: "atomic", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
		{Name: "centos", OS: remotetest.OS{ID: "centos", VersionID: "7"}},
		{Name: "alien", OS: remotetest.OS{ID: "plan9", VersionID: "4"}},
	}})
	atomic, centos, alien := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1], s.Fleet.Hosts()[2]
	s.addHosts(t, "models", atomic)
	require.NoError(t, atomic.PublishOSTree("7.2.6"))

	fact(t, "2-2 2-11 2-14", func(t *testing.T) {
		order := []string{"name", "status", "version", "deployed", "in_process", "started_at", "finished_at"}
		a := s.put(t, "cluster/models/deploy", `{"version": "7.2.6"}`)
		require.Equal(t, order, orderOf(t, a.status(http.StatusCreated)))
		require.Equal(t, "in_process", a.object()["status"])
		record := s.ended(t, "models", "deploy")
		require.Equal(t, "finished", record["status"])
		require.Equal(t, "7.2.6", record["version"])
		require.Equal(t, []any{atomic.Address()}, record["deployed"])
		require.Equal(t, []any{}, record["in_process"])
		require.Equal(t, order, orderOf(t, s.get(t, "cluster/models/deploy")))

		s.put(t, "cluster/models/deploy", `{"version": "no-such"}`).status(http.StatusCreated)
		record = s.ended(t, "models", "deploy")
		require.Equal(t, "failed", record["status"])
		require.Equal(t, []any{atomic.Address()}, record["in_process"])
	})
	fact(t, "2-3", func(t *testing.T) {
		a := s.put(t, "cluster/models/upgrade", "").status(http.StatusCreated)
		require.Equal(t, []string{"name", "status", "upgraded", "in_process", "started_at", "finished_at"}, orderOf(t, a))
		require.Equal(t, []any{atomic.Address()}, s.ended(t, "models", "upgrade")["upgraded"])
	})
	fact(t, "2-4", func(t *testing.T) {
		a := s.put(t, "cluster/models/restart", "").status(http.StatusCreated)
		require.Equal(t, []string{"name", "status", "restarted", "in_process", "started_at", "finished_at"}, orderOf(t, a))
		require.Equal(t, []any{atomic.Address()}, s.ended(t, "models", "restart")["restarted"])
	})
	fact(t, "2-12", func(t *testing.T) {
		var hosts []struct{ Status string }
		s.get(t, "hosts").into(&hosts)
		for _, h := range hosts {
			require.True(t, slices.Contains([]string{"investigating", "bootstrapping", "active", "disassociated", "failed"}, h.Status), h.Status)
		}
	})
	fact(t, "2-15 6.3-5", func(t *testing.T) {
		s.addHosts(t, "others", centos, alien)
		require.Equal(t, "fedora", s.get(t, "host/"+atomic.Address()).object()["os"])
		require.Equal(t, true, s.get(t, "host/"+atomic.Address()).object()["ostree"])
		require.Equal(t, "centos", s.get(t, "host/"+centos.Address()).object()["os"])
		h := s.get(t, "host/"+alien.Address()).object()
		require.Equal(t, "plan9", h["os"])
		require.Equal(t, "disassociated", h["status"])
		s.put(t, "cluster/others/restart", "").status(http.StatusCreated)
		require.Equal(t, "finished", s.ended(t, "others", "restart")["status"])
	})
}
