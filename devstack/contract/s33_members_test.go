package contract

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMembers(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	// cluster makes a cluster and hosts that are ready to join it.
	cluster := func(t *testing.T, name, body string, hosts ...string) {
		t.Helper()
		s.put(t, "cluster/"+name, body).status(http.StatusCreated)
		for _, h := range hosts {
			s.addName(t, h, "")
			s.setState(t, h, "disassociated")
		}
	}
	node := func(t *testing.T, host string) any {
		t.Helper()
		return s.get(t, "host/"+host+"/status").object()["container_manager"]
	}
	state := func(t *testing.T, host string) any {
		t.Helper()
		return s.get(t, "host/"+host).object()["status"]
	}

	fact(t, "3.3-1", func(t *testing.T) {
		cluster(t, "n1", "", "n1.example")
		s.get(t, "cluster/n1/hosts").is(http.StatusOK, "[]")
		s.put(t, "cluster/n1/hosts/n1.example", "").status(http.StatusOK)
		s.get(t, "cluster/n1/hosts").is(http.StatusOK, `["n1.example"]`)
		s.get(t, "cluster/n1-none/hosts").problem(http.StatusNotFound)
	})
	fact(t, "3.3-2 3.3-13", func(t *testing.T) {
		cluster(t, "n2", "", "n2a.example", "n2b.example")
		s.put(t, "cluster/n2/hosts", `{"old": [], "new": ["n2b.example", "n2a.example"]}`).is(http.StatusOK,
			`{"name": "n2", "status": "", "network": "default", "hostset": ["n2b.example", "n2a.example"], "container_manager": ""}`)
		s.put(t, "cluster/n2/hosts", `{"old": ["n2a.example", "n2b.example"], "new": ["n2a.example"]}`).status(http.StatusOK)
		s.get(t, "cluster/n2/hosts").is(http.StatusOK, `["n2a.example"]`)
	})
	fact(t, "3.3-3", func(t *testing.T) {
		cluster(t, "n3", "", "n3.example")
		s.get(t, "cluster/n3/hosts/n3.example").problem(http.StatusNotFound)
		s.put(t, "cluster/n3/hosts/n3.example", "").status(http.StatusOK)
		s.get(t, "cluster/n3/hosts/n3.example").is(http.StatusOK, `["n3.example"]`)
		s.get(t, "cluster/n3-none/hosts/n3.example").problem(http.StatusNotFound)
	})
	fact(t, "3.3-4", func(t *testing.T) {
		cluster(t, "n4", "", "n4.example")
		for _, body := range []string{"", "{}"} {
			s.put(t, "cluster/n4/hosts/n4.example", body).is(http.StatusOK, `["n4.example"]`)
		}
		s.put(t, "cluster/n4/hosts/n4-none.example", "").problem(http.StatusNotFound)
		s.put(t, "cluster/n4-none/hosts/n4.example", "").problem(http.StatusNotFound)
	})
	fact(t, "3.3-5", func(t *testing.T) {
		cluster(t, "n5", "", "n5.example")
		s.put(t, "cluster/n5/hosts/n5.example", "").status(http.StatusOK)
		for range 2 {
			s.delete(t, "cluster/n5/hosts/n5.example").is(http.StatusOK, "[]")
		}
		s.delete(t, "cluster/n5/hosts/n5-none.example").is(http.StatusOK, "[]")
		s.delete(t, "cluster/n5-none/hosts/n5.example").problem(http.StatusNotFound)
		s.get(t, "host/n5.example").status(http.StatusOK)
	})
	fact(t, "3.3-6", func(t *testing.T) {
		cluster(t, "n6", "", "n6.example")
		for _, unfit := range []string{"investigating", "bootstrapping", "failed"} {
			s.setState(t, "n6.example", unfit)
			s.put(t, "cluster/n6/hosts/n6.example", "").problem(http.StatusMethodNotAllowed)
			s.put(t, "cluster/n6/hosts", `{"old": [], "new": ["n6.example"]}`).problem(http.StatusMethodNotAllowed)
		}
		for _, fit := range []string{"active", "disassociated"} {
			s.setState(t, "n6.example", fit)
			s.put(t, "cluster/n6/hosts/n6.example", "").status(http.StatusOK)
			s.delete(t, "cluster/n6/hosts/n6.example").status(http.StatusOK)
		}
		s.put(t, "cluster/n6/hosts/n6.example", "").status(http.StatusOK)
		s.setState(t, "n6.example", "failed")
		s.put(t, "cluster/n6/hosts/n6.example", "").status(http.StatusOK)
		s.put(t, "cluster/n6/hosts", `{"old": ["n6.example"], "new": ["n6.example"]}`).status(http.StatusOK)
	})
	fact(t, "3.3-7", func(t *testing.T) {
		cluster(t, "n7", "", "n7a.example", "n7b.example")
		s.setState(t, "n7a.example", "active")
		s.put(t, "cluster/n7/hosts/n7a.example", "").status(http.StatusOK)
		require.Equal(t, "disassociated", state(t, "n7a.example"))
		s.setState(t, "n7b.example", "active")
		s.put(t, "cluster/n7/hosts", `{"old": ["n7a.example"], "new": ["n7a.example", "n7b.example"]}`).status(http.StatusOK)
		require.Equal(t, "disassociated", state(t, "n7b.example"))
	})
	fact(t, "3.3-8", func(t *testing.T) {
		s.put(t, "containermanager/n8", `{"type": "trivial"}`).status(http.StatusCreated)
		cluster(t, "n8", `{"container_manager": "n8"}`, "n8a.example", "n8b.example", "n8c.example")
		s.put(t, "cluster/n8/hosts/n8a.example", "").status(http.StatusOK)
		s.put(t, "cluster/n8/hosts", `{"old": ["n8a.example"], "new": ["n8a.example", "n8b.example"]}`).status(http.StatusOK)
		for _, h := range []string{"n8a.example", "n8b.example"} {
			require.Equal(t, "active", state(t, h))
			require.Equal(t, map[string]any{"node": h, "status": "ok"}, node(t, h))
		}
		require.Equal(t, "ok", s.get(t, "cluster/n8").object()["status"])

		cluster(t, "n8f", `{"container_manager": "n8-none"}`)
		s.put(t, "cluster/n8f/hosts/n8c.example", "").problem(http.StatusConflict)
		s.put(t, "cluster/n8f/hosts", `{"old": [], "new": ["n8c.example"]}`).problem(http.StatusConflict)
		s.get(t, "cluster/n8f/hosts").is(http.StatusOK, "[]")
		require.Equal(t, "disassociated", state(t, "n8c.example"))
		require.Equal(t, map[string]any{}, node(t, "n8c.example"))
	})
	fact(t, "3.3-9", func(t *testing.T) {
		cluster(t, "n9", "")
		s.put(t, "cluster/n9/hosts", "").problem(http.StatusBadRequest, "old", "new")
		s.put(t, "cluster/n9/hosts", `{"old": []}`).problem(http.StatusBadRequest, "new")
		s.put(t, "cluster/n9/hosts", `{"new": []}`).problem(http.StatusBadRequest, "old")
		s.put(t, "cluster/n9/hosts", `{"old": 1, "new": null}`).problem(http.StatusBadRequest, "old", "new")
		s.put(t, "cluster/n9-none/hosts", "{}").problem(http.StatusBadRequest, "old", "new") // before it looks for the cluster
	})
	fact(t, "3.3-10", func(t *testing.T) {
		s.put(t, "cluster/n10-none/hosts", `{"old": ["n10.example"], "new": []}`).problem(http.StatusNotFound)
	})
	fact(t, "3.3-11", func(t *testing.T) {
		cluster(t, "n11", "", "n11a.example", "n11b.example")
		s.put(t, "cluster/n11/hosts", `{"old": ["n11a.example"], "new": []}`).problem(http.StatusConflict)
		// Before it looks at the hosts.
		s.put(t, "cluster/n11/hosts", `{"old": ["n11a.example"], "new": ["n11-none.example"]}`).problem(http.StatusConflict)
		s.put(t, "cluster/n11/hosts", `{"old": [], "new": ["n11a.example", "n11b.example"]}`).status(http.StatusOK)
		s.put(t, "cluster/n11/hosts", `{"old": ["n11a.example"], "new": []}`).problem(http.StatusConflict)
		s.put(t, "cluster/n11/hosts", `{"old": ["n11b.example", "n11a.example", "n11b.example"], "new": ["n11a.example"]}`).status(http.StatusOK)
	})
	fact(t, "3.3-12", func(t *testing.T) {
		cluster(t, "n12", "", "n12a.example", "n12b.example")
		s.setState(t, "n12b.example", "bootstrapping")
		s.put(t, "cluster/n12/hosts", `{"old": [], "new": ["n12a.example", "n12-none.example"]}`).problem(http.StatusNotFound)
		s.put(t, "cluster/n12/hosts", `{"old": [], "new": ["n12a.example", "n12b.example"]}`).problem(http.StatusMethodNotAllowed)
		s.get(t, "cluster/n12/hosts").is(http.StatusOK, "[]")
	})
	fact(t, "3.3-14", func(t *testing.T) {
		s.put(t, "containermanager/n14", `{"type": "trivial"}`).status(http.StatusCreated)
		cluster(t, "n14", `{"container_manager": "n14"}`, "n14a.example", "n14b.example")
		s.put(t, "cluster/n14/hosts", `{"old": [], "new": ["n14a.example", "n14b.example"]}`).status(http.StatusOK)
		s.put(t, "cluster/n14/hosts", `{"old": ["n14a.example", "n14b.example"], "new": ["n14b.example"]}`).status(http.StatusOK)
		require.Equal(t, map[string]any{}, node(t, "n14a.example"))
		require.Equal(t, map[string]any{"node": "n14b.example", "status": "ok"}, node(t, "n14b.example"))
	})
	fact(t, "3.3-15", func(t *testing.T) {
		cluster(t, "n15", "")
		s.put(t, "cluster/n15/hosts", `{"old": "", "new": ""}`).problem(http.StatusBadRequest, "old", "new")
	})
	fact(t, "3.3-16", func(t *testing.T) {
		const rivals = 8
		var hosts []string
		for i := range rivals {
			hosts = append(hosts, fmt.Sprintf("n16-%d.example", i))
		}
		cluster(t, "n16", "", hosts...)
		won := make([]int, rivals)
		var wg sync.WaitGroup
		for i, h := range hosts {
			wg.Go(func() { won[i] = s.put(t, "cluster/n16/hosts", `{"old": [], "new": ["`+h+`"]}`).code })
		}
		wg.Wait()
		winner := ""
		for i, code := range won {
			if code == http.StatusOK {
				require.Empty(t, winner)
				winner = hosts[i]
				continue
			}
			require.Equal(t, http.StatusConflict, code)
		}
		s.get(t, "cluster/n16/hosts").is(http.StatusOK, `["`+winner+`"]`)
	})
	fact(t, "3.3-17", func(t *testing.T) {
		s.put(t, "containermanager/n17", `{"type": "trivial"}`).status(http.StatusCreated)
		cluster(t, "n17", `{"container_manager": "n17"}`, "n17.example")
		s.put(t, "cluster/n17/hosts/n17.example", "").status(http.StatusOK)
		s.delete(t, "cluster/n17/hosts/n17.example").is(http.StatusOK, "[]")
		require.Equal(t, "active", state(t, "n17.example"))
		require.Equal(t, map[string]any{}, node(t, "n17.example"))
		// A manager that is gone is no obstacle either.
		s.put(t, "cluster/n17/hosts/n17.example", "").status(http.StatusOK)
		s.delete(t, "containermanager/n17").is(http.StatusOK, "[]")
		s.delete(t, "cluster/n17/hosts/n17.example").is(http.StatusOK, "[]")
	})
	fact(t, "3.3-18", func(t *testing.T) {
		cluster(t, "n18", "", "n18.example")
		cluster(t, "n18-other", "")
		s.put(t, "cluster/n18/hosts/n18.example", "").status(http.StatusOK)
		s.put(t, "cluster/n18-other/hosts/n18.example", "").problem(http.StatusConflict)
		s.put(t, "cluster/n18-other/hosts", `{"old": [], "new": ["n18.example"]}`).problem(http.StatusConflict)
	})
}
