package contract

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNetworksAndContainerManagers(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	both := []struct{ list, one, kind string }{
		{"networks", "network", "flannel_server"},
		{"containermanagers", "containermanager", "trivial"},
	}
	fact(t, "3.6-1 3.6-2", func(t *testing.T) {
		for _, b := range both {
			s.get(t, b.one+"/w1").problem(http.StatusNotFound)
			s.put(t, b.one+"/w1", `{"type": "`+b.kind+`", "options": {"address": "192.0.2.1"}}`).status(http.StatusCreated)
			s.get(t, b.one+"/w1").is(http.StatusOK, `{"name": "w1", "type": "`+b.kind+`", "options": {"address": "192.0.2.1"}}`)
			var names []string
			s.get(t, b.list).into(&names)
			require.Contains(t, names, "w1")
		}
	})
	fact(t, "3.6-3 3.6-5", func(t *testing.T) {
		for _, b := range both {
			body := `{"type": "` + b.kind + `", "options": {"a": 1, "token": "one"}}`
			s.put(t, b.one+"/w3", body).status(http.StatusCreated)
			s.put(t, b.one+"/w3", body).status(http.StatusCreated)
			for _, other := range []string{
				`{"type": "` + b.kind + `", "options": {"a": 2, "token": "one"}}`,
				`{"type": "` + b.kind + `", "options": {"a": 1, "token": "two"}}`,
				`{"type": "` + b.kind + `", "options": {"a": 1, "token": "[redacted]"}}`,
			} {
				s.put(t, b.one+"/w3", other).problem(http.StatusConflict)
			}
			if b.one == "network" {
				s.put(t, "network/w3", `{"type": "flannel_etcd", "options": {"a": 1, "token": "one"}}`).problem(http.StatusConflict)
				s.put(t, "network/w3", "").problem(http.StatusConflict)
			}
			s.put(t, b.one+"/w3", `{"type": "nonsense"}`).problem(http.StatusBadRequest, "type")
			s.put(t, b.one+"/w3", `{"type": "`+b.kind+`", "options": "x"}`).problem(http.StatusBadRequest, "options")
			s.put(t, b.one+"/w3", body).status(http.StatusCreated)
			s.delete(t, b.one+"/w3").status(http.StatusOK)
			s.put(t, b.one+"/w3", `{"type": "`+b.kind+`"}`).is(http.StatusCreated, `{"name": "w3", "type": "`+b.kind+`", "options": {}}`)
		}
	})
	fact(t, "3.6-4", func(t *testing.T) {
		s.put(t, "network/w4", "").status(http.StatusCreated)
		s.put(t, "containermanager/w4", `{"type": "trivial"}`).status(http.StatusCreated)
		s.put(t, "cluster/w4", `{"network": "w4", "container_manager": "w4"}`).status(http.StatusCreated)
		s.addName(t, "w4.example", "")
		s.setState(t, "w4.example", "active")
		s.put(t, "cluster/w4/hosts/w4.example", "").status(http.StatusOK)
		for _, b := range both {
			s.delete(t, b.one+"/w4").is(http.StatusOK, "[]")
			s.delete(t, b.one+"/w4").problem(http.StatusNotFound)
		}
		require.Equal(t, "w4", s.get(t, "cluster/w4").object()["network"])
		require.Equal(t, "w4", s.get(t, "cluster/w4").object()["container_manager"])
	})
}

// What only the older server had.
func TestOlderServer(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "3.7-1", func(t *testing.T) {
		s.get(t, "status").problem(http.StatusNotFound)
		s.get(t, "/readyz", anonymous).status(http.StatusOK)
	})
	fact(t, "3.7-4", func(t *testing.T) {
		s.put(t, "cluster/v4", `{"type": "host_only"}`).keys("name", "status", "network", "container_manager")
		s.delete(t, "cluster/v4").is(http.StatusOK, "[]")
	})
}
