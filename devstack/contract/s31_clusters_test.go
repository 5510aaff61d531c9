package contract

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClusters(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "3.1-2", func(t *testing.T) {
		s.put(t, "cluster/c2", "").status(http.StatusCreated)
		s.addName(t, "c2.example", "c2")
		s.get(t, "cluster/c2").is(http.StatusOK, `{"name": "c2", "status": "failed", "network": "default", "hostset": ["c2.example"], "container_manager": "",
			"hosts": {"total": 1, "available": 0, "unavailable": 1}}`)
		s.get(t, "cluster/c2-none").problem(http.StatusNotFound)
	})
	fact(t, "3.1-3", func(t *testing.T) {
		s.put(t, "network/c3", "").status(http.StatusCreated)
		s.put(t, "cluster/c3", `{"network": "c3", "container_manager": "later"}`).is(http.StatusCreated, `{"name": "c3", "status": "", "network": "c3", "container_manager": "later"}`)
		for field, body := range map[string]string{"network": `{"network": 1}`, "container_manager": `{"container_manager": []}`, "hostset": `{"hostset": "x"}`, "status": `{"status": 1}`} {
			s.put(t, "cluster/c3-bad", body).problem(http.StatusBadRequest, field)
		}
		s.get(t, "cluster/c3-bad").problem(http.StatusNotFound)
	})
	fact(t, "3.1-4", func(t *testing.T) {
		s.put(t, "cluster/c4", "").status(http.StatusCreated)
		s.delete(t, "cluster/c4").is(http.StatusOK, "[]")
		s.get(t, "cluster/c4").problem(http.StatusNotFound)
		s.delete(t, "cluster/c4").problem(http.StatusNotFound)
	})
	fact(t, "3.1-5", func(t *testing.T) {
		s.addName(t, "c5.example", "")
		s.put(t, "cluster/c5", `{"type": "kubernetes", "status": "ok", "hostset": ["c5.example"], "name": "c5"}`).
			is(http.StatusCreated, `{"name": "c5", "status": "", "network": "default", "container_manager": ""}`)
		s.get(t, "cluster/c5/hosts").is(http.StatusOK, "[]")
	})
	fact(t, "3.1-6", func(t *testing.T) {
		network := func(cluster, body string) any {
			return s.put(t, "cluster/"+cluster, body).status(http.StatusCreated).object()["network"]
		}
		require.Equal(t, "default", network("c6", `{"network": "nowhere"}`))
		require.Equal(t, "nowhere", network("c6", `{"network": "nowhere"}`))
		require.Equal(t, "", network("c6-empty", `{"network": ""}`))
		s.put(t, "cluster/c6-null", `{"network": null}`).problem(http.StatusBadRequest, "network")
		s.put(t, "cluster/c6-number", `{"network": 7}`).problem(http.StatusBadRequest, "network")
	})
	fact(t, "3.1-7", func(t *testing.T) {
		s.put(t, "cluster/c7", `{"container_manager": "nowhere"}`).is(http.StatusCreated, `{"name": "c7", "status": "", "network": "default", "container_manager": "nowhere"}`)
		s.addName(t, "c7.example", "")
		s.setState(t, "c7.example", "active")
		s.put(t, "cluster/c7/hosts/c7.example", "").problem(http.StatusConflict)
	})
	fact(t, "3.1-8", func(t *testing.T) {
		s.put(t, "network/c8", "").status(http.StatusCreated)
		s.put(t, "cluster/c8", `{"network": "c8", "container_manager": "m"}`).status(http.StatusCreated)
		s.addName(t, "c8.example", "c8")
		s.put(t, "cluster/c8", "").is(http.StatusCreated, `{"name": "c8", "status": "", "network": "c8", "container_manager": "m"}`)
		s.put(t, "cluster/c8", `{"container_manager": ""}`).is(http.StatusCreated, `{"name": "c8", "status": "", "network": "c8", "container_manager": ""}`)
		s.get(t, "cluster/c8/hosts").is(http.StatusOK, `["c8.example"]`)
	})
	fact(t, "3.1-9", func(t *testing.T) {
		s.put(t, "cluster/c9", "").status(http.StatusCreated)
		s.addName(t, "c9.example", "c9")
		s.setState(t, "c9.example", "active")
		record := s.put(t, "cluster/c9/restart", "").status(http.StatusCreated).object()
		s.delete(t, "cluster/c9").is(http.StatusOK, "[]")
		require.Equal(t, "active", s.get(t, "host/c9.example").object()["status"])
		require.Equal(t, record["started_at"], s.get(t, "cluster/c9/restart").object()["started_at"])
	})
	fact(t, "3.1-10 9-16", func(t *testing.T) {
		s.put(t, "containermanager/c10", `{"type": "trivial"}`).status(http.StatusCreated)
		for _, name := range []string{"c10-a", "c10-b"} {
			s.put(t, "cluster/"+name, `{"container_manager": "c10"}`).status(http.StatusCreated)
			s.addName(t, name+".example", "")
			s.setState(t, name+".example", "disassociated")
			s.put(t, "cluster/"+name+"/hosts/"+name+".example", "").status(http.StatusOK)
		}
		s.delete(t, "cluster/c10-a").is(http.StatusOK, "[]")
		require.Equal(t, map[string]any{}, s.get(t, "host/c10-a.example/status").object()["container_manager"])
		require.Equal(t, map[string]any{"node": "c10-b.example", "status": "ok"}, s.get(t, "host/c10-b.example/status").object()["container_manager"])
		require.Equal(t, "active", s.get(t, "host/c10-a.example").object()["status"])
	})
}
