package contract

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	put := func(t *testing.T, address string, body M) answer {
		t.Helper()
		return s.put(t, "host/"+address, jsonOf(t, body))
	}
	bootstraps := func(t *testing.T, address string) int {
		t.Helper()
		var page struct{ Operations []any }
		s.get(t, "operations?kind=bootstrap&host="+address).into(&page)
		return len(page.Operations)
	}

	fact(t, "3.4-2 3.4-3", func(t *testing.T) {
		s.get(t, "host/h2.example").problem(http.StatusNotFound)
		a := put(t, "h2.example", M{"ssh_priv_key": newKey(t)}).status(http.StatusCreated)
		s.get(t, "host/h2.example").is(http.StatusOK, a.body)
		var hosts []map[string]any
		s.get(t, "hosts").into(&hosts)
		require.Contains(t, hosts, a.object()) // full records
	})
	fact(t, "3.4-4", func(t *testing.T) {
		key := newKey(t)
		a := s.put(t, "host", jsonOf(t, M{"address": "h4.example", "ssh_priv_key": key})).status(http.StatusCreated)
		require.Equal(t, "h4.example", a.object()["address"])
		s.get(t, "host/h4.example").status(http.StatusOK)

		// Without one it is the caller, whatever it says of itself.
		forwarded := header("X-Forwarded-For", "192.0.2.44")
		require.Equal(t, "127.0.0.1", s.put(t, "host", jsonOf(t, M{"ssh_priv_key": key}), forwarded).status(http.StatusCreated).object()["address"])
		s.delete(t, "host/127.0.0.1").status(http.StatusOK)
		s.get(t, "host/192.0.2.44").problem(http.StatusNotFound)

		// What a proxy says counts when the proxy is trusted, and its own word only.
		behind := s.serve(t, serving{env: []string{"COMMISSAIRE_TRUSTED_PROXIES=127.0.0.0/8"}})
		a = behind.ask(t, http.MethodPut, "host", jsonOf(t, M{"ssh_priv_key": key}), header("X-Forwarded-For", "203.0.113.9, 192.0.2.45"))
		require.Equal(t, "192.0.2.45", a.status(http.StatusCreated).object()["address"])
		s.get(t, "host/203.0.113.9").problem(http.StatusNotFound)
	})
	fact(t, "3.4-5", func(t *testing.T) {
		s.addName(t, "h5.example", "")
		s.delete(t, "host/h5.example").is(http.StatusOK, "[]")
		s.get(t, "host/h5.example").problem(http.StatusNotFound)
		s.delete(t, "host/h5.example").problem(http.StatusNotFound)
	})
	fact(t, "3.4-6", func(t *testing.T) {
		key := s.addName(t, "h6.example", "")
		s.get(t, "host/h6.example/creds").is(http.StatusOK, jsonOf(t, M{"address": "h6.example", "ssh_priv_key": key, "remote_user": "root"}))
		s.get(t, "host/h6-none.example/creds").problem(http.StatusNotFound)
	})
	fact(t, "3.4-7", func(t *testing.T) {
		s.addName(t, "h7.example", "")
		s.get(t, "host/h7.example/status").keys("type", "host", "container_manager")
		s.get(t, "host/h7-none.example/status").problem(http.StatusNotFound)
	})
	fact(t, "3.4-8", func(t *testing.T) {
		s.put(t, "cluster/h8", "").status(http.StatusCreated)
		key := newKey(t)
		put(t, "h8.example", M{"ssh_priv_key": key, "remote_user": "ops", "cluster": "h8"}).status(http.StatusCreated)
		s.get(t, "cluster/h8/hosts").is(http.StatusOK, `["h8.example"]`)
		s.get(t, "host/h8.example/creds").is(http.StatusOK, jsonOf(t, M{"address": "h8.example", "ssh_priv_key": key, "remote_user": "ops"}))
	})
	fact(t, "3.4-9", func(t *testing.T) {
		facts := M{"status": "active", "os": "fedora", "cpus": 4, "memory": 1, "space": 2, "last_check": "2016-01-01T00:00:00.000000"}
		body := M{"ssh_priv_key": newKey(t)}
		for name, value := range facts {
			body[name] = value
		}
		stored := put(t, "h9.example", body).status(http.StatusCreated).object()
		for name := range facts {
			require.NotEqual(t, facts[name], stored[name], name)
		}
		require.Equal(t, "investigating", stored["status"])
	})
	fact(t, "3.4-10 6.3-1 9-17", func(t *testing.T) {
		bad := []any{nil, "", "not base64", base64.StdEncoding.EncodeToString([]byte("no key")), 7}
		for _, key := range bad {
			put(t, "h10.example", M{"ssh_priv_key": key}).problem(http.StatusBadRequest, "ssh_priv_key")
		}
		put(t, "h10.example", M{}).problem(http.StatusBadRequest, "ssh_priv_key")
		s.get(t, "host/h10.example").problem(http.StatusNotFound)
		require.Contains(t, s.get(t, "/openapi.yaml").body, "Private SSH key of remote_user on the host")
	})
	fact(t, "3.4-11 3.4-12 3.4-13 3.4-14 3.4-18 3.4-19 3.4-20 3.4-21 3.4-22", func(t *testing.T) {
		for _, cluster := range []string{"h11", "h11-other"} {
			s.put(t, "cluster/"+cluster, "").status(http.StatusCreated)
		}
		key := newKey(t)
		put(t, "h11.example", M{"ssh_priv_key": key, "cluster": "h11-none"}).problem(http.StatusConflict)
		s.get(t, "host/h11.example").problem(http.StatusNotFound)
		first := put(t, "h11.example", M{"ssh_priv_key": key, "cluster": "h11"}).status(http.StatusCreated)

		put(t, "h11.example", M{"ssh_priv_key": key}).is(http.StatusCreated, first.body)
		put(t, "h11.example", M{"ssh_priv_key": key, "cluster": "h11"}).is(http.StatusCreated, first.body)
		put(t, "h11.example", M{"ssh_priv_key": key, "cluster": "h11-other"}).problem(http.StatusConflict)
		put(t, "h11.example", M{"ssh_priv_key": key, "cluster": "h11-none"}).problem(http.StatusConflict)
		put(t, "h11.example", M{"ssh_priv_key": newKey(t)}).problem(http.StatusConflict)
		put(t, "h11.example", M{}).problem(http.StatusConflict)
		// The cluster is looked at before the key.
		put(t, "h11.example", M{"ssh_priv_key": newKey(t), "cluster": "h11-none"}).problem(http.StatusConflict)

		put(t, "h11.example", M{"ssh_priv_key": key, "remote_user": "other", "os": "x"}).is(http.StatusCreated, first.body)
		require.Equal(t, "root", s.get(t, "host/h11.example/creds").object()["remote_user"])
		require.Equal(t, 1, bootstraps(t, "h11.example"))
		s.get(t, "cluster/h11-other/hosts").is(http.StatusOK, "[]")
	})
	fact(t, "3.4-15 3.7-3", func(t *testing.T) {
		s.put(t, "cluster/h15", "").status(http.StatusCreated)
		s.addName(t, "h15.example", "h15")
		require.Equal(t, "investigating", s.get(t, "host/h15.example").object()["status"])
		s.get(t, "cluster/h15/hosts").is(http.StatusOK, `["h15.example"]`)
		require.Equal(t, 1, bootstraps(t, "h15.example"))
	})
	fact(t, "3.4-16", func(t *testing.T) {
		s.put(t, "cluster/h16", "").status(http.StatusCreated)
		put(t, "h16.example", M{"ssh_priv_key": newKey(t), "cluster": "h16", "cpus": "four"}).problem(http.StatusBadRequest, "cpus")
		s.get(t, "host/h16.example").problem(http.StatusNotFound)
		s.get(t, "host/h16.example/creds").problem(http.StatusNotFound)
		s.get(t, "cluster/h16/hosts").is(http.StatusOK, "[]")
	})
	fact(t, "3.4-17 6.1-2 9-15", func(t *testing.T) {
		put(t, "h17.example", M{"ssh_priv_key": newKey(t), "source": "cloudforms"}).problem(http.StatusBadRequest, "source")
		put(t, "h17.example", M{"ssh_priv_key": newKey(t), "source": ""}).status(http.StatusCreated)
		require.Equal(t, "", s.get(t, "host/h17.example").object()["source"])
	})
	fact(t, "3.4-23", func(t *testing.T) {
		s.addName(t, "h23.example", "")
		s.setState(t, "h23.example", "active")
		s.delete(t, "host/h23.example").is(http.StatusOK, "[]")
		s.addName(t, "h23.example", "") // with another key
		require.Equal(t, "investigating", s.get(t, "host/h23.example").object()["status"])
		require.Equal(t, 2, bootstraps(t, "h23.example"))
	})
	fact(t, "3.4-24", func(t *testing.T) {
		s.put(t, "containermanager/h24", `{"type": "trivial"}`).status(http.StatusCreated)
		s.put(t, "cluster/h24", `{"container_manager": "h24"}`).status(http.StatusCreated)
		s.addName(t, "h24.example", "")
		s.setState(t, "h24.example", "disassociated")
		s.put(t, "cluster/h24/hosts/h24.example", "").status(http.StatusOK)
		s.delete(t, "host/h24.example").is(http.StatusOK, "[]")
		s.get(t, "cluster/h24/hosts").is(http.StatusOK, "[]")
		s.get(t, "host/h24.example/creds").problem(http.StatusNotFound)
		s.addName(t, "h24.example", "")
		require.Equal(t, map[string]any{}, s.get(t, "host/h24.example/status").object()["container_manager"])
	})
}

func TestHostStatus(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	s.put(t, "containermanager/s", `{"type": "trivial"}`).status(http.StatusCreated)
	s.put(t, "cluster/s", `{"container_manager": "s"}`).status(http.StatusCreated)
	s.addName(t, "s-node.example", "")
	s.setState(t, "s-node.example", "disassociated")
	s.addName(t, "s-pending.example", "s") // a member, but not registered yet
	s.addName(t, "s-alone.example", "")

	fact(t, "3.5-1", func(t *testing.T) {
		for _, h := range []string{"s-node", "s-pending", "s-alone"} {
			require.Equal(t, "host_only", s.get(t, "host/"+h+".example/status").object()["type"])
		}
	})
	fact(t, "3.5-2 3.5-4", func(t *testing.T) {
		s.put(t, "cluster/s/hosts/s-node.example", "").status(http.StatusOK)
		s.get(t, "host/s-node.example/status").is(http.StatusOK, `{"type": "host_only", "host": {"last_check": "", "status": "active"},
			"container_manager": {"node": "s-node.example", "status": "ok"}}`)
	})
	fact(t, "3.5-3", func(t *testing.T) {
		s.put(t, "cluster/s-none", `{"container_manager": "s-none"}`).status(http.StatusCreated)
		s.addName(t, "s-lost.example", "s-none")
		for _, h := range []string{"s-pending", "s-alone", "s-lost"} {
			require.Equal(t, map[string]any{}, s.get(t, "host/"+h+".example/status").object()["container_manager"])
		}
	})
	fact(t, "3.5-5", func(t *testing.T) {
		s.get(t, "host/s-node.example/status?raw=true").problem(http.StatusBadRequest, "raw")
	})
}
