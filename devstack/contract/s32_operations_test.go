package contract

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

func TestOperations(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "3.2-1", func(t *testing.T) {
		for _, kind := range []string{"deploy", "upgrade", "restart"} {
			s.get(t, "cluster/o1-none/"+kind).problem(http.StatusNotFound)
			s.put(t, "cluster/o1", "").status(http.StatusCreated)
			s.get(t, "cluster/o1/"+kind).problem(http.StatusNotFound)
		}
		s.put(t, "cluster/o1/upgrade", "").status(http.StatusCreated)
		s.get(t, "cluster/o1/upgrade").status(http.StatusOK)
		s.get(t, "cluster/o1/restart").problem(http.StatusNotFound)
	})
	fact(t, "3.2-2 3.2-4 6.4-1", func(t *testing.T) {
		for kind, done := range map[string]string{"upgrade": "upgraded", "restart": "restarted"} {
			s.put(t, "cluster/o2-none/"+kind, "").problem(http.StatusNotFound)
			name := "o2-" + kind
			s.put(t, "cluster/"+name, "").status(http.StatusCreated)
			a := s.put(t, "cluster/"+name+"/"+kind, "").status(http.StatusCreated)
			record := a.keys("name", "status", done, "in_process", "started_at", "finished_at")
			require.Equal(t, []any{}, record[done])
			require.Equal(t, []any{}, record["in_process"])
			require.Equal(t, "in_process", record["status"])
			require.Equal(t, "", record["finished_at"])
			s.get(t, "cluster/"+name+"/"+kind).is(http.StatusOK, a.body) // no worker runs: it is the record
		}
	})
	fact(t, "3.2-3", func(t *testing.T) {
		s.put(t, "cluster/o3", "").status(http.StatusCreated)
		for _, body := range []string{"", "{}", `{"version": ""}`, `{"version": 7}`, `{"version": null}`, `{"version": ["7"]}`} {
			s.put(t, "cluster/o3/deploy", body).problem(http.StatusBadRequest, "version")
		}
		s.put(t, "cluster/o3-none/deploy", `{"version": "7.2.6"}`).problem(http.StatusNotFound)
		s.get(t, "cluster/o3/deploy").problem(http.StatusNotFound)
		record := s.put(t, "cluster/o3/deploy", `{"version": "7.2.6"}`).status(http.StatusCreated).object()
		require.Equal(t, "7.2.6", record["version"])
	})
	fact(t, "3.2-5", func(t *testing.T) {
		for _, kind := range []string{"upgrade", "restart"} {
			name := "o5-" + kind
			s.put(t, "cluster/"+name, "").status(http.StatusCreated)
			s.put(t, "cluster/"+name+"/"+kind, `{"colour": "red"}`).problem(http.StatusBadRequest, "colour")
			s.put(t, "cluster/"+name+"/"+kind, `{"name": "other"}`).problem(http.StatusBadRequest, "name")
			s.put(t, "cluster/"+name+"/"+kind, `{"name": "`+name+`", "policy": {"max_unavailable": 2}}`).status(http.StatusCreated)
		}
	})
	fact(t, "3.2-6", func(t *testing.T) {
		s.put(t, "cluster/o6", "").status(http.StatusCreated)
		first := s.put(t, "cluster/o6/restart", "").status(http.StatusCreated)
		s.put(t, "cluster/o6/restart", "").is(http.StatusOK, first.body)
		require.NotNil(t, s.put(t, "cluster/o6/upgrade", "").problem(http.StatusConflict).Holder)

		s.put(t, "cluster/o6d", "").status(http.StatusCreated)
		first = s.put(t, "cluster/o6d/deploy", `{"version": "7.2.6"}`).status(http.StatusCreated)
		s.put(t, "cluster/o6d/deploy", `{"version": "7.2.6"}`).is(http.StatusOK, first.body)
		holder := s.put(t, "cluster/o6d/deploy", `{"version": "7.2.7"}`).problem(http.StatusConflict).Holder
		require.Equal(t, s.operation(t, "cluster=o6d")["id"], holder.Operation)
	})
}

// Two clusters at once, and the answer to a PUT while they are at work.
func TestOperationsSideBySide(t *testing.T) {
	t.Parallel()
	s := ownSite(t, harness.Options{Machines: []remotetest.HostConfig{{Name: "a"}, {Name: "b"}}})
	a, b := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1]
	s.addHosts(t, "a", a)
	s.addHosts(t, "b", b)
	fact(t, "3.2-7", func(t *testing.T) {
		// The one waits for the other's reboot: this ends only when both are at work at a time.
		require.NoError(t, a.OnCommand("systemctl", `[ "$1" != reboot ] || { until [ -e `+b.Dir()+`/at-work ]; do sleep 0.1; done; touch `+a.Dir()+`/at-work; }`))
		require.NoError(t, b.OnCommand("systemctl", `[ "$1" != reboot ] || { touch `+b.Dir()+`/at-work; until [ -e `+a.Dir()+`/at-work ]; do sleep 0.1; done; }`))
		s.put(t, "cluster/a/restart", "").status(http.StatusCreated)
		answer := s.put(t, "cluster/b/restart", "").status(http.StatusCreated)
		require.Equal(t, "in_process", answer.object()["status"], "it does not wait for the restart")
		for _, cluster := range []string{"a", "b"} {
			require.Equal(t, "finished", s.ended(t, cluster, "restart")["status"])
		}
	})
}
