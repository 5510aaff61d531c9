package api

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// normalRun is a v0 operation record without its times.
func normalRun(t *testing.T, a answer) string {
	t.Helper()
	var record map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &record))
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$`, record["started_at"])
	if record["finished_at"] != "" {
		require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$`, record["finished_at"])
		record["finished_at"] = "T"
	}
	record["started_at"] = "T"
	text, err := json.Marshal(record)
	require.NoError(t, err)
	return string(text)
}

func TestRestart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	b.v0(t, "GET /cluster/c/restart", "", 404, "")
	b.v0(t, "PUT /cluster/c/restart", "{}", 404, "")
	b.v0(t, "PUT /cluster/c", "", 201, "")
	b.v0(t, "GET /cluster/c/restart", "", 404, "")
	b.readyHost(t, "h1", "c")
	b.readyHost(t, "h2", "c")
	b.readyHost(t, "h3", "c")
	starts := b.dispatcher.starts()

	first := b.v0(t, "PUT /cluster/c/restart/", `{"name":"c"}`, 201, "")
	require.JSONEq(t, `{"name":"c","status":"in_process","restarted":[],"in_process":[],"started_at":"T","finished_at":""}`, normalRun(t, first))
	require.Equal(t, starts+1, b.dispatcher.starts())
	op := b.dispatcher.started[starts]
	require.Equal(t, fleet.KindRestart, op.Kind)
	require.Equal(t, "alice", op.RequestedBy)
	b.v0(t, "PUT /cluster/c/restart", "", 200, first.body)
	b.v0(t, "GET /cluster/c/restart", "", 200, first.body)
	require.Equal(t, starts+1, b.dispatcher.starts(), "the second PUT starts nothing")

	_, err := b.store.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	for _, h := range []string{"h1", "h2"} {
		_, err = b.store.BeginHostRun(ctx, op.ID, h)
		require.NoError(t, err)
	}
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded})
	a := b.v0(t, "GET /cluster/c/restart", "", 200, "")
	require.JSONEq(t, `{"name":"c","status":"in_process","restarted":["h1"],"in_process":["h2"],"started_at":"T","finished_at":""}`, normalRun(t, a))
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h2", State: fleet.HostRunFailed, Reason: "did not come back", Event: fleet.HostBroke})
	require.NoError(t, b.store.EndOperation(ctx, op.ID, fleet.OperationFailed, "h2 did not come back"))
	a = b.v0(t, "GET /cluster/c/restart", "", 200, "")
	require.JSONEq(t, `{"name":"c","status":"failed","restarted":["h1"],"in_process":["h2"],"started_at":"T","finished_at":"T"}`, normalRun(t, a))
	require.Equal(t, field(t, first, "started_at"), field(t, a, "started_at"))

	b.v0(t, "PUT /cluster/c/restart", "", 201, "")
	require.NoError(t, b.store.EndOperation(ctx, b.dispatcher.started[starts+1].ID, fleet.OperationSucceeded, ""))
	b.v0(t, "DELETE /cluster/c", "", 200, "")
	a = b.v0(t, "GET /cluster/c/restart", "", 200, "")
	require.Equal(t, "finished", field(t, a, "status"), "the record stays after the cluster is gone")
	for _, body := range []string{`[]`, `x`, `{`, `null`, `{"anything":1}`, `{"name":"other"}`} {
		b.v0(t, "PUT /cluster/c/restart", body, 400, "")
	}
}

func TestRestartsAtTheSameTimeStartOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	const clients = 8
	statuses := make([]int, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { statuses[i] = b.do(t, "PUT", "/api/v0/cluster/c/restart", "").status })
	}
	all.Wait()
	created := 0
	for _, s := range statuses {
		require.Contains(t, []int{200, 201}, s)
		if s == 201 {
			created++
		}
	}
	require.Equal(t, 1, created)
	require.Equal(t, 1, b.dispatcher.starts())
}

func TestBootstrapAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.addHost(t, "h", "")
	a := b.v0(t, "GET /host/h/bootstrap", "", 200, "")
	require.JSONEq(t, `{"name":"h","status":"in_process","bootstrapped":[],"in_process":[],"started_at":"T","finished_at":""}`, normalRun(t, a))
	b.v0(t, "PUT /host/h/bootstrap", "", 200, a.body)
	require.Equal(t, 1, b.dispatcher.starts())

	b.endBootstrap(t, "h", fleet.HostRunFailed)
	a = b.v0(t, "GET /host/h", "", 200, "")
	require.Equal(t, "failed", field(t, a, "status"))
	require.Equal(t, "sshd did not answer", field(t, a, "reason"))
	a = b.v0(t, "GET /host/h/bootstrap", "", 200, "")
	require.JSONEq(t, `{"name":"h","status":"failed","bootstrapped":[],"in_process":["h"],"started_at":"T","finished_at":"T"}`, normalRun(t, a))

	b.v0(t, "PUT /host/h/bootstrap", "{}", 201, "")
	require.Equal(t, 2, b.dispatcher.starts())
	a = b.v0(t, "GET /host/h", "", 200, "")
	require.Equal(t, "investigating", field(t, a, "status"))
	b.endBootstrap(t, "h", fleet.HostRunSucceeded)
	a = b.v0(t, "GET /host/h/bootstrap", "", 200, "")
	require.JSONEq(t, `{"name":"h","status":"finished","bootstrapped":["h"],"in_process":[],"started_at":"T","finished_at":"T"}`, normalRun(t, a))
}

func TestTemporalIsDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	b.addHost(t, "h", "c")
	before, starts := b.rows(t), b.dispatcher.starts()
	b.dispatcher.setDown(errors.New("dial tcp 127.0.0.1:7233: connect: connection refused"))
	for _, request := range []string{"PUT /cluster/c/restart", "PUT /host/h/bootstrap", "PUT /host/new"} {
		body := ""
		if request == "PUT /host/new" {
			body = `{"ssh_priv_key":"` + key64(t) + `"}`
		}
		a := b.v0(t, request, body, 503, "")
		require.NotEmpty(t, a.header.Get("Retry-After"))
		require.NotContains(t, a.body, "127.0.0.1", "causes are for the log")
	}
	require.Contains(t, b.log.String(), "connection refused")
	require.Equal(t, before, b.rows(t), "nothing is stored")
	require.Equal(t, starts, b.dispatcher.starts())
	b.v0(t, "GET /host/h", "", 200, "")
	b.v0(t, "GET /host/h/bootstrap", "", 200, "")
	b.v0(t, "DELETE /host/h", "", 200, "")
	a := b.do(t, "GET", "/readyz", "")
	require.Equal(t, 503, a.status)
	require.NotContains(t, a.body, "127.0.0.1")
}
