package api

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestContainerManagers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /containermanagers", "", 200, "[]")
	b.v0(t, "GET /containermanager/kube", "", 404, "")
	b.v0(t, "DELETE /containermanager/kube", "", 404, "")
	b.v0(t, "PUT /containermanager/plain", "", 201, `{"name":"plain","type":"openshift","options":{}}`)

	const put = `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"hunter2","tls":{"client_key_data":"hunter2"},"certificate_key_path":"/etc/key"}}`
	const shown = `{"name":"kube","type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"[redacted]","tls":{"client_key_data":"[redacted]"},"certificate_key_path":"/etc/key"}}`
	b.v0(t, "PUT /containermanager/kube", put, 201, shown)
	b.v0(t, "PUT /containermanager/kube/", put, 201, shown)
	b.v0(t, "GET /containermanager/kube/", "", 200, shown)
	b.v0(t, "GET /containermanagers/", "", 200, `["kube","plain"]`)
	for _, body := range []string{
		"", `{"type":"kubernetes"}`, `{"type":"trivial"}`,
		`{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"another","tls":{"client_key_data":"hunter2"},"certificate_key_path":"/etc/key"}}`,
	} {
		a := b.v0(t, "PUT /containermanager/kube", body, 409, "")
		require.NotContains(t, a.body, "hunter2")
	}
	for body, blame := range map[string]string{
		`{"type":"nomad"}`: "type", `{"type":null}`: "type", `{"type":1}`: "type", `{"options":[]}`: "options", `{"options":null}`: "options",
		`{"name":"other"}`: "name", `{"url":"x"}`: "url", `[]`: "body",
	} {
		require.Equal(t, []string{blame}, blamed(t, b.v0(t, "PUT /containermanager/new", body, 400, "")), body)
	}
	b.v0(t, "PUT /containermanager/new", `{"name":"new","type":"trivial"}`, 201, `{"name":"new","type":"trivial","options":{}}`)
	b.v0(t, "PUT /cluster/web", `{"container_manager":"new"}`, 201, "")
	b.v0(t, "DELETE /containermanager/new", "", 200, "[]") // in use
	b.v0(t, "GET /containermanagers", "", 200, `["kube","plain"]`)
	b.v0(t, "GET /cluster/web", "", 200, `{"name":"web","status":"ok","network":"default","hostset":[],"container_manager":"new","hosts":{"total":0,"available":0,"unavailable":0}}`)
	require.NotContains(t, b.log.String(), "hunter2")
}

// TestTrivialContainerManager follows a host through a cluster that has one.
func TestTrivialContainerManager(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /containermanager/list", `{"type":"trivial"}`, 201, "")
	b.v0(t, "PUT /cluster/web", `{"container_manager":"list"}`, 201, "")
	status := func(address string, state fleet.HostState, node bool) {
		t.Helper()
		a := b.v0(t, "GET /host/"+address+"/status", "", 200, "")
		want := map[string]any{}
		if node {
			want = map[string]any{"node": address, "status": "ok"}
		}
		require.Equal(t, want, field(t, a, "container_manager"))
		require.Equal(t, "host_only", field(t, a, "type"))
		require.Equal(t, string(state), field(t, a, "host").(map[string]any)["status"])
	}

	b.addHost(t, "192.0.2.1", "web")
	status("192.0.2.1", fleet.HostInvestigating, false)
	b.endBootstrap(t, "192.0.2.1", fleet.HostRunSucceeded)
	status("192.0.2.1", fleet.HostActive, true)

	b.readyHost(t, "192.0.2.2", "")
	status("192.0.2.2", fleet.HostDisassociated, false)
	b.v0(t, "PUT /cluster/web/hosts/192.0.2.2", "", 200, `["192.0.2.2"]`)
	status("192.0.2.2", fleet.HostActive, true)
	require.Equal(t, "ok", field(t, b.v0(t, "GET /cluster/web", "", 200, ""), "status"))

	b.v0(t, "DELETE /cluster/web/hosts/192.0.2.2", "", 200, "[]")
	status("192.0.2.2", fleet.HostActive, false)
	b.v0(t, "DELETE /containermanager/list", "", 200, "[]")
	status("192.0.2.1", fleet.HostActive, false)

	// A manager that is missing, or of a type that nobody can register with yet, refuses who joins.
	a := b.v0(t, "PUT /cluster/web/hosts/192.0.2.2", "", 409, "")
	require.Equal(t, []string{"container_manager"}, blamed(t, a))
	b.v0(t, "PUT /containermanager/list", `{"type":"kubernetes"}`, 201, "")
	a = b.v0(t, "PUT /cluster/web/hosts", `{"old":["192.0.2.1"],"new":["192.0.2.1","192.0.2.2"]}`, 409, "")
	require.Equal(t, []string{"container_manager"}, blamed(t, a))
	b.v0(t, "GET /cluster/web/hosts", "", 200, `["192.0.2.1"]`)
}
