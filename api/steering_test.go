package api

import (
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

func (d *recordingDispatcher) wakes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.woken)
}

func (d *recordingDispatcher) cancels() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.cancelled)
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2")
	b.v0(t, "PUT /cluster/c/restart", "", 201, "")
	op := b.lastStarted()
	url := "/operations/" + op.ID
	require.Len(t, b.claim(t, op.ID, 1).Assignments, 1)
	b.dispatcher.setDown(errors.New("Temporal is away"))
	a := b.v0(t, "POST "+url+"/pause", "", 200, "")
	require.Equal(t, true, field(t, a, "paused"))
	require.Equal(t, "alice", field(t, a, "paused_by"))
	require.NotEmpty(t, field(t, a, "paused_at"))
	b.v0(t, "POST "+url+"/pause", "{}", 200, "")
	require.NotZero(t, b.dispatcher.wakes())
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	require.Empty(t, b.claim(t, op.ID, 2).Assignments, "nothing starts")
	a = b.v0(t, "GET "+url, "", 200, "")
	require.Equal(t, "paused by alice", field(t, a, "waiting"))
	a = b.v0(t, "POST "+url+"/resume", "", 200, "")
	require.Nil(t, field(t, a, "paused"))
	require.Len(t, b.claim(t, op.ID, 3).Assignments, 1)
	for _, verb := range []string{"pause", "resume", "approve", "cancel", "retry"} {
		a := b.v0(t, "POST "+url+"/"+verb, `{"x":1}`, 400, "")
		require.Equal(t, []string{"x"}, blamed(t, a), verb)
		b.v0(t, "POST /operations/019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d/"+verb, "", map[bool]int{true: 503, false: 404}[verb == "retry"], "")
		b.v0(t, "GET "+url+"/"+verb, "", 404, "")
	}
	b.v0(t, "POST "+url, "", 404, "")
	b.v0(t, "POST /hosts", "", 404, "")
	b.v0(t, "POST "+url+"/approve", "", 409, "")
}

func TestApprove(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2")
	b.v0(t, "PUT /cluster/c/restart", `{"policy":{"canary":{"hosts":1,"then":"approve"}}}`, 201, "")
	op := b.lastStarted()
	url := "/operations/" + op.ID
	require.Len(t, b.claim(t, op.ID, 1).Assignments, 1)
	b.v0(t, "POST "+url+"/approve", "", 409, "")
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	require.Empty(t, b.claim(t, op.ID, 2).Assignments)
	a := b.v0(t, "GET "+url, "", 200, "")
	require.Contains(t, field(t, a, "waiting"), "approval")
	a = b.withKey(t, "POST "+url+"/approve", "", "yes", 200)
	require.Equal(t, "alice", field(t, a, "approved_by"))
	b.withKey(t, "POST "+url+"/approve", "", "yes", 200)
	a = b.withKey(t, "POST "+url+"/pause", "", "yes", 409)
	require.Equal(t, []string{"Idempotency-Key"}, blamed(t, a))
	require.Len(t, b.claim(t, op.ID, 3).Assignments, 1)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2")
	b.v0(t, "PUT /cluster/c/restart", "", 201, "")
	op := b.lastStarted()
	a := b.v0(t, "POST /operations/"+op.ID+"/cancel", "", 200, "")
	require.Equal(t, "cancelled", field(t, a, "state"), "before the first host it ends at once")
	require.Equal(t, 1, b.dispatcher.cancels())
	b.v0(t, "POST /operations/"+op.ID+"/pause", "", 409, "")

	b.v0(t, "PUT /cluster/c/restart", "", 201, "")
	op = b.lastStarted()
	b.claim(t, op.ID, 1)
	wakes := b.dispatcher.wakes()
	a = b.v0(t, "POST /operations/"+op.ID+"/cancel", `{"force":false}`, 200, "")
	require.Equal(t, "running", field(t, a, "state"), "the host at work finishes")
	require.Equal(t, "alice", field(t, a, "cancel_requested_by"))
	require.Equal(t, wakes+1, b.dispatcher.wakes())
	require.Equal(t, 1, b.dispatcher.cancels())
	b.dispatcher.setDown(errors.New("Temporal is away"))
	b.v0(t, "POST /operations/"+op.ID+"/cancel", `{"force":true}`, 503, "")
	b.dispatcher.setDown(nil)
	b.withKey(t, "POST /operations/"+op.ID+"/cancel", "", "gently", 200)
	a = b.withKey(t, "POST /operations/"+op.ID+"/cancel", `{"force":true}`, "gently", 409)
	require.Equal(t, []string{"Idempotency-Key"}, blamed(t, a))
	require.Equal(t, 1, b.dispatcher.cancels())
	b.dispatcher.setUnreached(fleet.Errorf(fleet.Unavailable, "nobody has told the workflow"))
	a = b.withKey(t, "POST /operations/"+op.ID+"/cancel", `{"force":true}`, "now", 503)
	require.Contains(t, a.body, "nobody has told the workflow")
	b.dispatcher.setUnreached(nil)
	b.withKey(t, "POST /operations/"+op.ID+"/cancel", `{"force":true}`, "now", 200)
	require.Equal(t, 2, b.dispatcher.cancels())
	b.addHost(t, "h9", "")
	b.v0(t, "POST /operations/"+b.lastStarted().ID+"/cancel", "", 409, "")
}

func TestOperationPolicy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2", "h3")
	b.v0(t, "PUT /cluster/c/restart", `{"policy":{"max_failures":1}}`, 201, "")
	op := b.lastStarted()
	url := "/operations/" + op.ID + "/policy"
	require.Len(t, b.claim(t, op.ID, 1).Assignments, 1)
	wakes := b.dispatcher.wakes()
	b.v0(t, "PUT "+url, `{"max_unavailable":2}`, 201, `{"max_unavailable":2,"max_failures":1}`)
	require.Equal(t, wakes+1, b.dispatcher.wakes())
	require.Len(t, b.claim(t, op.ID, 2).Assignments, 1)
	for body, blame := range map[string]string{
		`{"selector":"a=b"}`: "selector", `{"order":{"by":"name"}}`: "order", `{"canary":{"hosts":1}}`: "canary", `{"max_unavailable":0}`: "max_unavailable", `{"x":1}`: "x",
	} {
		a := b.v0(t, "PUT "+url, body, 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), body)
	}
	b.withKey(t, "PUT "+url, `{"max_failures":2}`, "k", 201)
	b.withKey(t, "PUT "+url, `{"max_failures":3}`, "k", 409)
	b.v0(t, "GET "+url, "", 200, `{"max_unavailable":2,"max_failures":2}`)
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "x"))
	b.v0(t, "PUT "+url, `{"max_unavailable":1}`, 409, "")
	b.addHost(t, "h9", "")
	b.v0(t, "GET /operations/"+b.lastStarted().ID+"/policy", "", 404, "")
}

func TestRetry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2", "h3")
	b.v0(t, "PUT /cluster/c/upgrade", `{"policy":{"max_unavailable":2}}`, 201, "")
	old := b.lastStarted()
	url := "/operations/" + old.ID + "/retry"
	b.v0(t, "POST "+url, "", 409, "")
	b.claim(t, old.ID, 1)
	b.endHostRun(t, store.HostRunEnd{OperationID: old.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	b.endHostRun(t, store.HostRunEnd{OperationID: old.ID, Address: "h2", State: fleet.HostRunFailed, Reason: "no space", Event: fleet.HostBroke})
	require.NoError(t, b.store.EndOperation(t.Context(), old.ID, fleet.OperationFailed, "a host failed"))
	before := b.rows(t)
	a := b.v0(t, "POST "+url+"?dry_run=true", `{"policy":{"max_unavailable":1}}`, 200, "")
	require.Len(t, field(t, a, "hosts"), 2)
	require.Equal(t, 1.0, field(t, a, "slots"))
	require.Equal(t, before, b.rows(t), "nothing is stored")
	a = b.v0(t, "POST "+url, `{"policy":{"max_unavailable":0}}`, 400, "")
	require.Equal(t, []string{"policy.max_unavailable"}, blamed(t, a))

	a = b.withKey(t, "POST "+url, `{}`, "again", http.StatusCreated)
	require.Equal(t, old.ID, field(t, a, "retry_of"))
	require.Equal(t, "upgrade", field(t, a, "kind"))
	id := field(t, a, "id")
	require.Equal(t, b.lastStarted().ID, id)
	require.Len(t, b.hostRuns(t, b.lastStarted().ID, "").Hosts, 2)
	require.Equal(t, id, field(t, b.withKey(t, "POST "+url, `{}`, "again", 200), "id"))
	require.Equal(t, id, field(t, b.v0(t, "POST "+url, "", 200, ""), "id"), "one runs already")
}
