package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

func TestContainerManagers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /containermanagers", "", 200, "[]")
	b.v0(t, "GET /containermanager/kube", "", 404, "")
	b.v0(t, "DELETE /containermanager/kube", "", 404, "")
	require.Equal(t, []string{"options.server_url"}, blamed(t, b.v0(t, "PUT /containermanager/plain", "", 400, "")), "openshift is the default")

	const put = `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"hunter2","ready_timeout":90}}`
	const shown = `{"name":"kube","type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"[redacted]","ready_timeout":90}}`
	b.v0(t, "PUT /containermanager/kube", put, 201, shown)
	b.v0(t, "PUT /containermanager/kube/", put, 201, shown)
	b.v0(t, "GET /containermanager/kube/", "", 200, shown)
	b.v0(t, "GET /containermanagers/", "", 200, `["kube"]`)
	for _, body := range []string{
		`{"type":"trivial"}`, `{"type":"openshift","options":{"server_url":"https://192.0.2.1:6443","token":"hunter2","ready_timeout":90}}`,
		`{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"another","ready_timeout":90}}`,
	} {
		a := b.v0(t, "PUT /containermanager/kube", body, 409, "")
		require.NotContains(t, a.body, "hunter2")
	}
	for body, blame := range map[string]string{
		`{"type":"nomad"}`: "type", `{"type":null}`: "type", `{"type":1}`: "type", `{"options":[]}`: "options", `{"options":null}`: "options",
		`{"name":"other"}`: "name", `{"url":"x"}`: "url", `[]`: "body",
		`{"options":{"server_url":"https://192.0.2.1","apiserver":"hunter2"}}`:                                                                             "options.apiserver",
		`{"options":{"server_url":"https://192.0.2.1","ready_timeout":"2h"}}`:                                                                              "options.ready_timeout",
		`{"type":"openshift","options":{"server_url":"https://192.0.2.1","certificate_ca_path":"/ca","kubelet":true,"kubelet_bootstrap_token":"hunter2"}}`: "options.kubelet",
		`{"options":{"server_url":"https://192.0.2.1","active_when":"soon"}}`:                                                                              "options.active_when",
		`{"options":{"server_url":"http://192.0.2.1","token":"hunter2"}}`:                                                                                  "options.server_url",
		`{"options":{"server_url":"https://192.0.2.1","certificate_path":"/x.pem"}}`:                                                                       "options.certificate_key_path",
		`{"options":{"server_url":"https://192.0.2.1","kubeconfig":"apiVersion: v1"}}`:                                                                     "options.server_url",
	} {
		require.Equal(t, []string{blame}, blamed(t, b.v0(t, "PUT /containermanager/new", body, 400, "")), body)
	}
	b.v0(t, "PUT /containermanager/new", `{"name":"new","type":"trivial"}`, 201, `{"name":"new","type":"trivial","options":{}}`)
	b.v0(t, "PUT /cluster/web", `{"container_manager":"new"}`, 201, "")
	b.v0(t, "DELETE /containermanager/new", "", 200, "[]") // in use
	b.v0(t, "GET /containermanagers", "", 200, `["kube"]`)
	b.v0(t, "GET /cluster/web", "", 200, `{"name":"web","status":"ok","network":"default","hostset":[],"container_manager":"new","hosts":{"total":0,"available":0,"unavailable":0}}`)
	require.NotContains(t, b.log.String(), "hunter2")
}

// TestContainerManagerIsAsked: only one that a worker found good is there.
func TestContainerManagerIsAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const put = `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"hunter2"}}`
	says := func(err error) {
		b.dispatcher.mu.Lock()
		defer b.dispatcher.mu.Unlock()
		b.dispatcher.check = func(name, check string) error {
			m, openErr := b.store.OpenContainerManager(t.Context(), name, check)
			require.NoError(t, openErr)
			require.Equal(t, "hunter2", m.Options["token"])
			_, openErr = b.store.ContainerManager(t.Context(), name)
			require.Equal(t, fleet.NotFound, fleet.KindOf(openErr), "nobody sees it before")
			return err
		}
	}
	says(fleet.InvalidField("options.token", "belongs to an account that lacks rights"))
	require.Equal(t, []string{"options.token"}, blamed(t, b.v0(t, "PUT /containermanager/kube", put, 400, "")))
	says(fleet.Errorf(fleet.Unavailable, "could not ask for the version"))
	b.v0(t, "PUT /containermanager/kube", put, 503, "")
	b.v0(t, "GET /containermanagers", "", 200, "[]")
	b.v0(t, "GET /containermanager/kube", "", 404, "")
	b.v0(t, "DELETE /containermanager/kube", "", 404, "")

	b.dispatcher.setDown(fleet.Errorf(fleet.Unavailable, "down"))
	b.v0(t, "PUT /containermanager/kube", put, 503, "")
	b.v0(t, "PUT /containermanager/list", `{"type":"trivial"}`, 201, "") // asks nobody
	b.dispatcher.setDown(nil)
	says(nil)
	b.v0(t, "PUT /containermanager/kube", put, 201, "")
	says(fleet.Errorf(fleet.Unavailable, "it is not asked again"))
	b.v0(t, "PUT /containermanager/kube", put, 201, "")
	b.v0(t, "GET /containermanagers", "", 200, `["kube","list"]`)
	require.NotContains(t, b.log.String(), "hunter2")
}

// TestOptionsOfAContainerManagerAreReplaced only when a worker found the new ones good.
func TestOptionsOfAContainerManagerAreReplaced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const replace = "PUT /containermanager/kube?replace=true"
	b.v0(t, replace, `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443"}}`, 404, "")
	b.v0(t, "PUT /containermanager/kube", `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"old","max_unavailable":2}}`, 201, "")
	inForce := func(token string) {
		t.Helper()
		m, err := b.store.OpenContainerManager(t.Context(), "kube", "")
		require.NoError(t, err)
		require.Equal(t, token, m.Options["token"])
	}
	var fails error
	b.dispatcher.mu.Lock()
	b.dispatcher.check = func(name, check string) error {
		m, err := b.store.OpenContainerManager(t.Context(), name, check)
		require.NoError(t, err)
		require.Equal(t, "kube", m.Name)
		require.Equal(t, "new", m.Options["token"])
		inForce("old")
		return fails
	}
	b.dispatcher.mu.Unlock()
	const put = `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"new","max_unavailable":2}}`
	b.v0(t, "PUT /containermanager/kube?replace=false", put, 409, "")
	b.v0(t, replace, strings.Replace(put, "kubernetes", "openshift", 1), 409, "")
	require.Equal(t, []string{"options.max_unavailable"}, blamed(t, b.v0(t, replace, strings.Replace(put, ":2", ":0", 1), 400, "")))
	fails = fleet.InvalidField("options.token", "belongs to an account that lacks rights")
	require.Equal(t, []string{"options.token"}, blamed(t, b.v0(t, replace, put, 400, "")))
	fails = fleet.Errorf(fleet.Unavailable, "could not ask for the version")
	b.v0(t, replace, put, 503, "")
	inForce("old")
	fails = nil
	const shown = `{"name":"kube","type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443","token":"[redacted]","max_unavailable":2}}`
	b.v0(t, replace, put, 201, shown)
	inForce("new")
	b.v0(t, replace, shown, 201, shown) // what GET gave is the same again
	inForce("new")
	b.v0(t, "GET /containermanagers", "", 200, `["kube"]`)
}

// TestHostsThatCannotBeNodes are refused when they are added, not at the end of their
// bootstrap.
func TestHostsThatCannotBeNodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /containermanager/kube", `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443"}}`, 201, "")
	b.v0(t, "PUT /cluster/web", `{"container_manager":"kube"}`, 201, "")
	a := b.v0(t, "PUT /host/2001:db8::1", `{"cluster":"web","ssh_priv_key":"`+key64(t)+`"}`, 400, "")
	require.Equal(t, []string{"address"}, blamed(t, a))
	require.Contains(t, a.body, "IPv6")
	b.readyHost(t, "web_1", "")
	require.Equal(t, []string{"address"}, blamed(t, b.v0(t, "PUT /cluster/web/hosts/web_1", "", 400, "")))
	require.Equal(t, []string{"address"}, blamed(t, b.v0(t, "PUT /cluster/web/hosts", `{"old":[],"new":["web_1"]}`, 400, "")))
}

// TestNodesOfHosts follows hosts through a cluster whose container manager workers ask.
func TestNodesOfHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /containermanager/kube", `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443"}}`, 201, "")
	b.v0(t, "PUT /cluster/web", `{"container_manager":"kube"}`, 201, "")
	b.readyHost(t, "192.0.2.1", "")
	b.readyHost(t, "192.0.2.2", "")
	b.v0(t, "PUT /cluster/web/hosts/192.0.2.1", "", 200, `["192.0.2.1"]`)
	b.v0(t, "PUT /cluster/web/hosts", `{"old":["192.0.2.1"],"new":["192.0.2.1","192.0.2.2"]}`, 200, "")
	ops := b.dispatcher.started[len(b.dispatcher.started)-2:]
	for i, address := range []string{"192.0.2.1", "192.0.2.2"} {
		require.Equal(t, []any{fleet.KindRegister, address, "kube", "alice"}, []any{ops[i].Kind, ops[i].Host, ops[i].Manager, ops[i].RequestedBy})
		h, err := b.store.Host(t.Context(), address)
		require.NoError(t, err)
		require.Equal(t, fleet.HostDisassociated, h.State)
		require.Equal(t, "is being registered with container manager kube", h.Reason)
	}
	a := b.v0(t, "PUT /cluster/web/hosts/192.0.2.1", "", 200, "")
	require.Equal(t, `["192.0.2.1"]`, strings.TrimSpace(a.body), "a member is not registered again")

	// What a worker does.
	ctx := t.Context()
	_, err := b.store.BeginOperation(ctx, ops[0].ID)
	require.NoError(t, err)
	_, err = b.store.BeginHostRun(ctx, ops[0].ID, "192.0.2.1")
	require.NoError(t, err)
	m, err := b.store.ClaimNode(ctx, ops[0].ID, "192.0.2.1")
	require.NoError(t, err)
	require.Equal(t, "kube", m.Name)
	_, err = b.store.EndHostRun(ctx, store.HostRunEnd{OperationID: ops[0].ID, Address: "192.0.2.1", State: fleet.HostRunSucceeded, Event: fleet.HostRegistered})
	require.NoError(t, err)
	require.NoError(t, b.store.EndOperation(ctx, ops[0].ID, fleet.OperationSucceeded, ""))

	node := func(address string) any {
		return field(t, b.v0(t, "GET /host/"+address+"/status", "", 200, ""), "container_manager")
	}
	require.Equal(t, map[string]any{}, node("192.0.2.1"), "no worker")
	var asked int
	b.dispatcher.mu.Lock()
	b.dispatcher.read = func(address string) error {
		asked++
		return b.store.SetNodeStatus(t.Context(), address, "kube", []byte(`{"kind":"Node","metadata":{"name":"`+address+`"}}`))
	}
	b.dispatcher.mu.Unlock()
	for range 2 {
		require.Equal(t, map[string]any{"kind": "Node", "metadata": map[string]any{"name": "192.0.2.1"}}, node("192.0.2.1"))
		b.exec(t, "UPDATE node SET status_at = now() + interval '1 h' WHERE address = '192.0.2.1'") // a busy machine may take 5 s for the next line
	}
	require.Equal(t, 1, asked, "an answer is good for 5 s")
	require.Equal(t, map[string]any{}, node("192.0.2.2"), "it is not registered yet")

	b.v0(t, "DELETE /cluster/web/hosts/192.0.2.1", "", 200, "[]")
	last := b.dispatcher.started[len(b.dispatcher.started)-1]
	require.Equal(t, []any{fleet.KindUnregister, "192.0.2.1", "kube"}, []any{last.Kind, last.Host, last.Manager})
	require.Equal(t, map[string]any{}, node("192.0.2.1"))
	a = b.v0(t, "PUT /cluster/web/hosts/192.0.2.1", "", 409, "")
	require.Contains(t, a.body, last.ID)
	b.v0(t, "DELETE /host/192.0.2.1", "", 200, "[]")
	a = b.v0(t, "PUT /host/192.0.2.1", `{"ssh_priv_key":"`+key64(t)+`"}`, 409, "")
	require.Contains(t, a.body, last.ID)

	b.v0(t, "DELETE /containermanager/kube", "", 200, "[]")
	var ended []string
	for _, op := range b.dispatcher.cancelled {
		ended = append(ended, string(op.Kind)+" "+op.Host+" "+string(op.State))
		require.Contains(t, op.Reason, "container manager kube was deleted")
	}
	require.ElementsMatch(t, []string{"unregister 192.0.2.1 failed", "register 192.0.2.2 failed"}, ended)
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

	// A manager that is missing refuses who joins.
	a := b.v0(t, "PUT /cluster/web/hosts/192.0.2.2", "", 409, "")
	require.Equal(t, []string{"container_manager"}, blamed(t, a))
	a = b.v0(t, "PUT /cluster/web/hosts", `{"old":["192.0.2.1"],"new":["192.0.2.1","192.0.2.2"]}`, 409, "")
	require.Equal(t, []string{"container_manager"}, blamed(t, a))
	b.v0(t, "GET /cluster/web/hosts", "", 200, `["192.0.2.1"]`)
}
