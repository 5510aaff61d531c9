package api

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/profile"
)

func TestClusters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /clusters", "", 200, `[]`)
	b.v0(t, "GET /cluster/web", "", 404, "")
	b.v0(t, "DELETE /cluster/web", "", 404, "")
	b.v0(t, "PUT /cluster/web", "", 201, `{"name":"web","status":"","network":"default","container_manager":""}`)
	b.v0(t, "PUT /cluster/app", `{}`, 201, "")
	b.v0(t, "GET /clusters", "", 200, `["app","web"]`)
	b.v0(t, "GET /cluster/web", "", 200,
		`{"name":"web","status":"ok","network":"default","hostset":[],"container_manager":"","hosts":{"total":0,"available":0,"unavailable":0}}`)
	b.v0(t, "DELETE /cluster/web", "", 200, `[]`)
	b.v0(t, "DELETE /cluster/web", "", 404, "")
	b.v0(t, "GET /clusters", "", 200, `["app"]`)
}

func TestPutCluster(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /network/net1", `{"type":"flannel_server"}`, 201, "")
	b.v0(t, "PUT /cluster/c", `{"network":"net1","container_manager":"k"}`, 201, `{"name":"c","status":"","network":"net1","container_manager":"k"}`)
	b.v0(t, "PUT /cluster/c", `{"container_manager":""}`, 201, `{"name":"c","status":"","network":"net1","container_manager":""}`)
	b.v0(t, "PUT /cluster/c", ``, 201, `{"name":"c","status":"","network":"net1","container_manager":""}`)
	b.v0(t, "PUT /cluster/d", `{"network":"nowhere"}`, 201, `{"name":"d","status":"","network":"default","container_manager":""}`)
	b.v0(t, "PUT /cluster/d", `{"type":"kubernetes","name":"d","status":"ok","hostset":["192.0.2.9"]}`, 201, "")
	b.v0(t, "GET /cluster/d/hosts", "", 200, `[]`)
	b.readyHost(t, "192.0.2.1", "c")
	b.v0(t, "PUT /cluster/c", `{"network":"default"}`, 201, "")
	b.v0(t, "GET /cluster/c/hosts", "", 200, `["192.0.2.1"]`)

	for body, blame := range map[string]string{
		`{"network":null}`:           "network",
		`{"network":1}`:              "network",
		`{"network":"a b"}`:          "network",
		`{"container_manager":[]}`:   "container_manager",
		`{"container_manager":"$x"}`: "container_manager",
		`{"profile":"atomic"}`:       "profile",
		`{"profile":null}`:           "profile",
		`{"status":1}`:               "status",
		`{"hostset":"x"}`:            "hostset",
		`{"name":"other"}`:           "name",
		`{"Network":"default"}`:      "Network",
		`{"nonsense":1}`:             "nonsense",
	} {
		a := b.v0(t, "PUT /cluster/new", body, 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), body)
	}
	b.v0(t, "GET /cluster/new", "", 404, "")
}

// TestClusterProfile: who does not know of profiles sees none.
func TestClusterProfile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range profile.Names() {
		b.v0(t, "PUT /cluster/p", `{"profile":"`+name+`"}`, 201, `{"name":"p","status":"","network":"default","container_manager":"","profile":"`+name+`"}`)
	}
	b.v0(t, "PUT /cluster/p", `{"profile":"none"}`, 201, "")
	b.v0(t, "PUT /cluster/p", `{"network":"default"}`, 201, `{"name":"p","status":"","network":"default","container_manager":"","profile":"none"}`)
	b.v0(t, "GET /cluster/p", "", 200,
		`{"name":"p","status":"ok","network":"default","hostset":[],"container_manager":"","hosts":{"total":0,"available":0,"unavailable":0},"profile":"none"}`)
	b.v0(t, "PUT /cluster/p", `{"profile":""}`, 201, `{"name":"p","status":"","network":"default","container_manager":""}`)
}

func TestClusterStatus(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	status := func(want string, counts string) {
		t.Helper()
		a := b.v0(t, "GET /cluster/c", "", 200, "")
		require.Equal(t, want, field(t, a, "status"))
		require.Contains(t, a.body, `"hosts":`+counts)
	}
	b.readyHost(t, "192.0.2.1", "c")
	b.readyHost(t, "192.0.2.2", "c")
	status("failed", `{"total":2,"available":0,"unavailable":2}`)
	b.makeActive(t, "192.0.2.1")
	status("degraded", `{"total":2,"available":1,"unavailable":1}`)
	b.makeActive(t, "192.0.2.2")
	status("ok", `{"total":2,"available":2,"unavailable":0}`)
	b.v0(t, "DELETE /cluster/c", "", 200, "")
	a := b.v0(t, "GET /host/192.0.2.1", "", 200, "")
	require.Equal(t, "active", field(t, a, "status"), "hosts stay as they are")
}

func TestMembers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, request := range []string{
		"GET /cluster/no/hosts", "GET /cluster/no/hosts/h", "PUT /cluster/no/hosts/h", "DELETE /cluster/no/hosts/h",
	} {
		b.v0(t, request, "", 404, "")
	}
	b.v0(t, "PUT /cluster/c", "", 201, "")
	b.v0(t, "PUT /cluster/other", "", 201, "")
	b.v0(t, "GET /cluster/c/hosts", "", 200, `[]`)
	b.v0(t, "GET /cluster/c/hosts/192.0.2.1", "", 404, "")
	b.v0(t, "PUT /cluster/c/hosts/192.0.2.1", "", 404, "")
	b.addHost(t, "192.0.2.1", "")
	b.v0(t, "PUT /cluster/c/hosts/192.0.2.1", "", 405, "")
	b.endBootstrap(t, "192.0.2.1", "succeeded")
	b.v0(t, "PUT /cluster/c/hosts/192.0.2.1", "{}", 200, `["192.0.2.1"]`)
	b.v0(t, "PUT /cluster/c/hosts/192.0.2.1", "", 200, `["192.0.2.1"]`)
	b.v0(t, "PUT /cluster/other/hosts/192.0.2.1", "", 409, "")
	b.v0(t, "GET /cluster/c/hosts/192.0.2.1", "", 200, `["192.0.2.1"]`)
	b.v0(t, "GET /cluster/c/hosts", "", 200, `["192.0.2.1"]`)
	b.v0(t, "DELETE /cluster/c/hosts/192.0.2.1", "{}", 200, `[]`)
	b.v0(t, "DELETE /cluster/c/hosts/192.0.2.1", "", 200, `[]`)
	b.v0(t, "DELETE /cluster/c/hosts/never.seen", "", 200, `[]`)
	b.v0(t, "GET /cluster/c/hosts", "", 200, `[]`)
	a := b.v0(t, "PUT /cluster/c/hosts/192.0.2.1", `{"x":1}`, 400, "")
	require.Equal(t, []string{"x"}, blamed(t, a))
}

func TestReplaceMembers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/no/hosts", `{"old":[],"new":[]}`, 404, "")
	b.v0(t, "PUT /cluster/c", "", 201, "")
	b.readyHost(t, "192.0.2.1", "")
	b.readyHost(t, "192.0.2.2", "")
	b.addHost(t, "192.0.2.3", "")
	record := func(hosts string) string {
		return `{"name":"c","status":"","network":"default","hostset":` + hosts + `,"container_manager":""}`
	}
	b.v0(t, "PUT /cluster/c/hosts", `{"old":[],"new":["192.0.2.1","192.0.2.2"]}`, 200, record(`["192.0.2.1","192.0.2.2"]`))
	b.v0(t, "PUT /cluster/c/hosts", `{"old":["192.0.2.2","192.0.2.1","192.0.2.1"],"new":["192.0.2.2"]}`, 200, record(`["192.0.2.2"]`))
	b.v0(t, "PUT /cluster/c/hosts", `{"old":[],"new":["192.0.2.1"]}`, 409, "")
	b.v0(t, "PUT /cluster/c/hosts", `{"old":["192.0.2.2"],"new":["192.0.2.1","192.0.2.3"]}`, 405, "")
	b.v0(t, "PUT /cluster/c/hosts", `{"old":["192.0.2.2"],"new":["192.0.2.1","192.0.2.4"]}`, 404, "")
	b.v0(t, "GET /cluster/c/hosts", "", 200, `["192.0.2.2"]`)
	for body, blame := range map[string]string{
		``:                                      "new",
		`{"old":[]}`:                            "new",
		`{"new":[]}`:                            "old",
		`{"old":"","new":""}`:                   "new",
		`{"old":[1],"new":[]}`:                  "old[0]",
		`{"old":[],"new":["a b"]}`:              "new[0]",
		`{"old":[],"new":["a","fe80::1%eth0"]}`: "new[1]",
		`{"old":[],"new":["a","b:c"]}`:          "new[1]",
		`{"old":[],"new":[],"x":1}`:             "x",
	} {
		a := b.v0(t, "PUT /cluster/c/hosts", body, 400, "")
		require.Contains(t, blamed(t, a), blame, body)
	}
}
