package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestSources(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /sources", "", 200, `[
		{"name": "cmdb", "type": "http-json", "refresh": "1h0m0s", "hosts": 0},
		{"name": "files", "type": "ansible", "refresh": "", "hosts": 0}]`)
	key := key64(t)
	b.v0(t, "PUT /host/192.0.2.10", `{"ssh_priv_key":"`+key+`","source":"cmdb"}`, 201, "")
	require.Equal(t, "cmdb", field(t, b.v0(t, "GET /host/192.0.2.10", "", 200, ""), "source"))
	b.v0(t, "PUT /host/192.0.2.10", `{"ssh_priv_key":"`+key+`","source":""}`, 201, "")
	require.Equal(t, "cmdb", field(t, b.v0(t, "GET /host/192.0.2.10", "", 200, ""), "source"), "old clients send what they know")
	b.v0(t, "PUT /host/192.0.2.10", `{"ssh_priv_key":"`+key+`","source":"files"}`, 201, "")
	b.v0(t, "PUT /host/192.0.2.10/source", `{"source":"cmdb"}`, 201, `{"source":"cmdb"}`)

	a := b.v0(t, "POST /sources/cmdb/sync", "", 201, "")
	require.Equal(t, []any{"sync", "cmdb", "pending", "alice", nil}, []any{field(t, a, "kind"), field(t, a, "source"), field(t, a, "state"), field(t, a, "requested_by"), field(t, a, "dry_run")})
	id := field(t, a, "id").(string)
	op := b.lastStarted()
	require.Equal(t, []any{id, fleet.KindSync, "cmdb", 1}, []any{op.ID, op.Kind, op.Source, op.Hosts})
	again := b.v0(t, "POST /sources/cmdb/sync", "{}", 200, "")
	require.Equal(t, id, field(t, again, "id"))
	a = b.v0(t, "POST /sources/cmdb/sync?dry_run=true", "", 409, "")
	require.Contains(t, a.body, "wait for its end and repeat the request then")

	_, err := b.store.BeginOperation(t.Context(), id)
	require.NoError(t, err)
	cpus := 9
	_, err = b.store.SyncHosts(t.Context(), id, map[string]fleet.SourceFacts{"192.0.2.10": {CPUs: &cpus}, "192.0.2.99": {}})
	require.NoError(t, err)
	require.NoError(t, b.store.EndOperation(t.Context(), id, fleet.OperationSucceeded, ""))
	a = b.v0(t, "GET /operations/"+id, "", 200, "")
	require.Equal(t, map[string]any{"changed": 1., "same": 0., "missing": 0., "strangers": []any{"192.0.2.99"}}, field(t, a, "sync"))
	out := b.do(t, "GET", "/api/v0/operations/"+id+"/hosts/192.0.2.10/steps/sync/output", "")
	require.Equal(t, "+ cpus: 9\n", out.body)
	a = b.v0(t, "POST /operations/"+id+"/cancel", "", 409, "")
	require.Contains(t, a.body, "does not roll over hosts")
	sources := entries(t, b.v0(t, "GET /sources", "", 200, ""))
	require.EqualValues(t, 1, sources[0].(map[string]any)["hosts"])
	require.Equal(t, id, sources[0].(map[string]any)["last_sync"].(map[string]any)["id"])
	list := b.v0(t, "GET /operations?kind=sync", "", 200, "")
	require.Len(t, field(t, list, "operations"), 1)

	a = b.v0(t, "POST /sources/cmdb/sync?dry_run=true", "", 201, "")
	require.Equal(t, true, field(t, a, "dry_run"))
}

func TestBadSources(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.v0(t, "PUT /host/192.0.2.10", `{"ssh_priv_key":"`+key64(t)+`","source":"nowhere"}`, 400, "")
	require.Equal(t, []string{"source"}, blamed(t, a))
	b.addHost(t, "192.0.2.10", "")
	for _, body := range []string{`{"source":"nowhere"}`, `{"source":"` + strings.Repeat("a", 65) + `"}`, `{"source":7}`, `{}`} {
		a := b.v0(t, "PUT /host/192.0.2.10/source", body, 400, "")
		require.Equal(t, []string{"source"}, blamed(t, a), body)
	}
	b.v0(t, "PUT /host/192.0.2.99/source", `{"source":"cmdb"}`, 404, "")
	b.v0(t, "POST /sources/nowhere/sync", "", 404, "")
	b.v0(t, "POST /sources/cmdb/sync?dry_run=maybe", "", 400, "")
	b.v0(t, "GET /inventory", "", 400, "")
	b.v0(t, "GET /inventory?format=ini", "", 400, "")
	vera := b.as(basicCreds("vera"))
	vera.v0(t, "POST /sources/cmdb/sync", "", 403, "")
	vera.v0(t, "PUT /host/192.0.2.10/source", `{"source":""}`, 403, "")
	vera.v0(t, "GET /sources", "", 200, "")
	b.dispatcher.setDown(fleet.Errorf(fleet.Unavailable, "down"))
	before := b.rows(t)
	b.v0(t, "POST /sources/cmdb/sync", "", 503, "")
	require.Equal(t, before, b.rows(t))
}
