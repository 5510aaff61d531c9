package contract

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// The choices that stand above the contract.
func TestChoices(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "T-1 0-1", func(t *testing.T) {
		s.get(t, "cluster/nowhere").problem(http.StatusNotFound)
		s.put(t, "cluster/t-1", "{").problem(http.StatusBadRequest, "body")
		s.get(t, "clusters", anonymous).problem(http.StatusForbidden)
		s.addName(t, "t-1.example", "")
		s.put(t, "cluster/t-1", "").status(http.StatusCreated)
		s.put(t, "cluster/t-1/hosts/t-1.example", "").problem(http.StatusMethodNotAllowed)
		p := s.put(t, "host/t-1.example", jsonOf(t, M{"ssh_priv_key": newKey(t)})).problem(http.StatusConflict)
		require.Equal(t, "/api/v0/host/t-1.example", p.Instance)
	})
	fact(t, "T-2", func(t *testing.T) {
		s.put(t, "cluster/t-2", `{"colour": "red"}`).problem(http.StatusBadRequest, "colour")
		s.get(t, "cluster/t-2").problem(http.StatusNotFound)
		s.put(t, "network/t-2", `{"typ": "flannel_etcd"}`).problem(http.StatusBadRequest, "typ")
		key := newKey(t)
		s.put(t, "host/t-2.example", jsonOf(t, M{"ssh_priv_key": key, "hostkey": "x"})).problem(http.StatusBadRequest, "hostkey")
		s.get(t, "host/t-2.example").problem(http.StatusNotFound)

		s.put(t, "cluster/t-2", `{"type": "kubernetes", "name": "t-2"}`).status(http.StatusCreated)
		s.put(t, "host/t-2.example", jsonOf(t, M{"ssh_priv_key": key, "host": "t-2.example", "address": "t-2.example", "name": "t-2.example"})).status(http.StatusCreated)
		s.put(t, "cluster/t-2", `{"name": "other"}`).problem(http.StatusBadRequest, "name")
		s.put(t, "host/t-2.example", jsonOf(t, M{"ssh_priv_key": key, "address": "192.0.2.2"})).problem(http.StatusBadRequest, "address")
	})
}

// Those of the twenty that need no host; the others are with their sections.
func TestTwenty(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "0-2", func(t *testing.T) {
		d := s.serve(t, serving{}) // which counts the failures of this test alone
		for _, who := range []change{anonymous, login(harness.User, "wrong")} {
			for _, path := range []string{"clusters", "nowhere", "cluster/none", "/nowhere"} {
				a := d.get(t, path, who)
				a.problem(http.StatusForbidden)
				require.Empty(t, a.header.Get("WWW-Authenticate"))
			}
			d.ask(t, http.MethodDelete, "network/default", "", who).problem(http.StatusForbidden)
		}
		s.get(t, "nowhere").problem(http.StatusNotFound)
	})
	fact(t, "0-3", func(t *testing.T) {
		key := newKey(t)
		for range 2 {
			s.put(t, "network/f03", `{"type": "flannel_server"}`).status(http.StatusCreated)
			s.put(t, "cluster/f03", "").status(http.StatusCreated)
			s.put(t, "host/f03.example", jsonOf(t, M{"ssh_priv_key": key})).status(http.StatusCreated)
		}
		s.setState(t, "f03.example", "active")
		s.put(t, "cluster/f03/hosts/f03.example", "").status(http.StatusOK)
		s.put(t, "cluster/f03/hosts", `{"old": ["f03.example"], "new": []}`).status(http.StatusOK)
	})
	fact(t, "0-4", func(t *testing.T) {
		s.put(t, "cluster/f04", "").status(http.StatusCreated)
		s.put(t, "network/f04", "").status(http.StatusCreated)
		s.put(t, "containermanager/f04", `{"type": "trivial"}`).status(http.StatusCreated)
		s.addName(t, "f04.example", "f04")
		s.delete(t, "cluster/f04/hosts/f04.example").is(http.StatusOK, "[]")
		s.delete(t, "cluster/f04/hosts/f04.example").is(http.StatusOK, "[]")
		for _, path := range []string{"cluster/f04", "network/f04", "containermanager/f04", "host/f04.example"} {
			s.delete(t, path).is(http.StatusOK, "[]")
			s.delete(t, path).problem(http.StatusNotFound)
		}
	})
	fact(t, "0-5", func(t *testing.T) {
		s.put(t, "network/f05", `{"type": "flannel_server"}`).status(http.StatusCreated)
		for i, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8", "nonsense"} {
			path := "network/f05-" + string(rune('a'+i))
			a := s.put(t, path, `{"type": "flannel_server"}`, header("Content-Type", kind)).status(http.StatusCreated).object()
			require.Equal(t, "flannel_server", a["type"])
		}
		s.put(t, "network/f05-empty", "").is(http.StatusCreated, `{"name": "f05-empty", "type": "flannel_etcd", "options": {}}`)
	})
	fact(t, "0-6", func(t *testing.T) {
		s.put(t, "cluster/f06", `{}`).keys("name", "status", "network", "container_manager")
		s.get(t, "cluster/f06").keys("name", "status", "network", "hostset", "container_manager", "hosts")
		s.put(t, "cluster/f06/hosts", `{"old": [], "new": []}`).keys("name", "status", "network", "hostset", "container_manager")
	})
	fact(t, "0-7", func(t *testing.T) {
		require.Empty(t, s.put(t, "cluster/f07", "").object()["status"])
		require.Equal(t, "ok", s.get(t, "cluster/f07").object()["status"])
		require.Empty(t, s.put(t, "cluster/f07/hosts", `{"old": [], "new": []}`).object()["status"])
		require.Empty(t, s.put(t, "cluster/f07", "").object()["status"])
	})
	fact(t, "0-10", func(t *testing.T) {
		s.put(t, "cluster/f10", "").status(http.StatusCreated)
		s.addName(t, "f10.example", "f10")
		s.put(t, "cluster/f10", `{"network": "default"}`).status(http.StatusCreated)
		s.get(t, "cluster/f10/hosts").is(http.StatusOK, `["f10.example"]`)
	})
	fact(t, "0-11", func(t *testing.T) {
		s.get(t, "cluster/f11").problem(http.StatusNotFound)
		s.get(t, "cluster/f11/hosts/f11.example").problem(http.StatusNotFound)
	})
	fact(t, "0-12", func(t *testing.T) {
		s.put(t, "cluster/f12/deploy", `{"version": "7.2.6"}`).problem(http.StatusNotFound)
		s.get(t, "cluster/f12/deploy").problem(http.StatusNotFound)
	})
	fact(t, "0-20", func(t *testing.T) {
		for _, path := range []string{"health", "healthz", "version", "secrets", "status"} {
			s.get(t, path).problem(http.StatusNotFound)
			s.get(t, path, anonymous).problem(http.StatusForbidden)
		}
		for _, method := range []string{http.MethodPatch, http.MethodPost} {
			s.ask(t, method, "cluster/f20", "{}").problem(http.StatusNotFound)
		}
		require.Empty(t, s.get(t, "clusters").header.Get("X-Version"))
	})
}

// Those of the twenty that need hosts.
func TestTwentyOnHosts(t *testing.T) {
	t.Parallel()
	s := ownSite(t, harness.Options{Machines: []remotetest.HostConfig{
		{Name: "h1"}, {Name: "h2"},
		{Name: "fedora", OS: remotetest.OS{ID: "fedora", VersionID: "43"}},
		{Name: "atomic", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
	}})
	h1, h2, fedora, atomic := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1], s.Fleet.Hosts()[2], s.Fleet.Hosts()[3]

	fact(t, "0-13", func(t *testing.T) {
		// The caller is 127.0.0.1, where no sshd of the fleet listens.
		body := jsonOf(t, M{"ssh_priv_key": newKey(t)})
		require.Equal(t, "127.0.0.1", s.put(t, "host", body).status(http.StatusCreated).object()["address"])
		s.delete(t, "host/127.0.0.1").status(http.StatusOK)
	})
	fact(t, "0-14", func(t *testing.T) {
		body := s.HostBody(h1)
		delete(body, "cluster")
		require.Equal(t, "investigating", s.put(t, "host/"+h1.Address(), jsonOf(t, body)).object()["status"])
		order := []string{"investigating", "bootstrapping", "disassociated"}
		at := 0
		s.until(t, "the host to be bootstrapped", func() bool {
			status, _ := s.get(t, "host/"+h1.Address()).object()["status"].(string)
			for at < len(order) && order[at] != status {
				at++ // it may pass through one between two looks, but never back
			}
			require.Less(t, at, len(order), "%s after %v", status, order)
			return status == "disassociated"
		})
		failing := M{"ssh_priv_key": newKey(t), "port": h2.Port(), "remote_user": h2.User()}
		s.put(t, "host/"+h2.Address(), jsonOf(t, failing)).status(http.StatusCreated)
		s.until(t, "the bootstrap with a wrong key to fail", func() bool {
			return s.get(t, "host/"+h2.Address()).object()["status"] == "failed"
		})
		s.delete(t, "host/"+h2.Address()).status(http.StatusOK)
	})
	fact(t, "0-8", func(t *testing.T) {
		s.put(t, "cluster/f08", "").status(http.StatusCreated)
		s.put(t, "cluster/f08/hosts/"+h1.Address(), "").status(http.StatusOK)
		c := s.get(t, "cluster/f08").object()
		require.Equal(t, "failed", c["status"])
		require.Equal(t, map[string]any{"total": 1., "available": 0., "unavailable": 1.}, c["hosts"])
	})
	fact(t, "0-9 0-18", func(t *testing.T) {
		before := h1.BootID()
		first := s.put(t, "cluster/f08/restart", "").status(http.StatusCreated).
			keys("name", "status", "restarted", "in_process", "started_at", "finished_at")
		require.Equal(t, "f08", first["name"])
		require.Equal(t, "", first["finished_at"])
		require.Equal(t, "finished", s.ended(t, "f08", "restart")["status"])
		require.NotEqual(t, before, h1.BootID())
		require.Equal(t, 1, h1.Count("systemctl", "reboot"))

		// One that dies while it restarts is no success.
		s.addHosts(t, "f18", h2)
		require.NoError(t, h2.OnCommand("systemctl", `[ "$1" != reboot ] || exit 1`))
		s.put(t, "cluster/f18/restart", "").status(http.StatusCreated)
		require.Equal(t, "failed", s.ended(t, "f18", "restart")["status"])
	})
	fact(t, "0-15", func(t *testing.T) {
		s.put(t, "containermanager/f15", `{"type": "trivial"}`).status(http.StatusCreated)
		s.put(t, "cluster/f15", `{"container_manager": "f15"}`).status(http.StatusCreated)
		s.addHosts(t, "f15", fedora)
		require.Equal(t, "active", s.get(t, "host/"+fedora.Address()).object()["status"])
		require.Equal(t, "ok", s.get(t, "cluster/f15").object()["status"])
	})
	fact(t, "0-17", func(t *testing.T) {
		require.NoError(t, fedora.Publish("bash", "2.0"))
		s.put(t, "cluster/f15/upgrade", "").status(http.StatusCreated)
		require.Equal(t, "finished", s.ended(t, "f15", "upgrade")["status"])
		require.Zero(t, fedora.Count("rpm-ostree", ""))
		require.Equal(t, "2.0", fedora.Package("bash"))
	})
	fact(t, "0-19", func(t *testing.T) {
		// The one host of a cluster with a manager stays its node while it restarts.
		s.put(t, "cluster/f15/restart", "").status(http.StatusCreated)
		s.until(t, "the restart to end", func() bool {
			require.Equal(t, map[string]any{"node": fedora.Address(), "status": "ok"},
				s.get(t, "host/"+fedora.Address()+"/status").object()["container_manager"])
			return s.get(t, "cluster/f15/restart").object()["status"] != "in_process"
		})
		require.Equal(t, "finished", s.ended(t, "f15", "restart")["status"])
	})
	fact(t, "0-16 7-3 9-8 9-19", func(t *testing.T) {
		s.addHosts(t, "f16", atomic)
		require.NoError(t, atomic.PublishOSTree("7.2.6"))
		s.put(t, "cluster/f16/deploy", `{"version": "7.2.6"}`).status(http.StatusCreated)
		require.Equal(t, "finished", s.ended(t, "f16", "deploy")["status"])
		require.Equal(t, "7.2.6", atomic.Booted())
		require.Equal(t, 1, atomic.Count("rpm-ostree", "deploy 7.2.6"))
		require.NoError(t, atomic.PublishOSTree("7.3.0"))
		s.put(t, "cluster/f16/upgrade", "").status(http.StatusCreated)
		require.Equal(t, "finished", s.ended(t, "f16", "upgrade")["status"])
		require.Equal(t, 1, atomic.Count("rpm-ostree", "upgrade"))
		require.Equal(t, "7.3.0", atomic.Booted())
		require.Equal(t, "fedora", s.get(t, "host/"+atomic.Address()).object()["os"])
		require.Zero(t, atomic.Count("dnf", ""), "it is not treated as a Fedora of packages")
	})
}
