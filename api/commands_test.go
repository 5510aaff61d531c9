package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestCommand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2")
	b.v0(t, "PUT /host/h2/labels", `{"env":"prod"}`, 201, "")
	a := b.v0(t, "POST /cluster/c/command", `{"argv":["uname","-r"],"timeout":"90s","at_once":1}`, 201, "")
	op := b.lastStarted()
	require.Equal(t, []any{op.ID, "command", "c", "pending", "alice", []any{"uname", "-r"}, "1m30s", 1.},
		[]any{field(t, a, "id"), field(t, a, "kind"), field(t, a, "cluster"), field(t, a, "state"), field(t, a, "requested_by"), field(t, a, "argv"), field(t, a, "timeout"), field(t, a, "at_once")})
	require.Equal(t, fleet.KindCommand, op.Kind)
	a = b.v0(t, "GET /operations/"+op.ID, "", 200, "")
	require.EqualValues(t, 2, field(t, a, "progress").(map[string]any)["pending"])
	require.Nil(t, field(t, a, "policy"))
	b.v0(t, "PUT /cluster/c/restart", "", 201, "")
	a = b.v0(t, "POST /cluster/c/command", `{"argv":["true"],"selector":"env=prod"}`, 201, "")
	require.Equal(t, []any{1, "10m0s"}, []any{b.lastStarted().Hosts, field(t, a, "timeout")}, "one that holds nothing is in nobody's way")
	b.v0(t, "POST /cluster/c/command", `{"argv":["true"],"hosts":["H1"]}`, 201, "")
	require.Equal(t, 1, b.lastStarted().Hosts)
	require.Len(t, field(t, b.v0(t, "GET /operations?kind=command&cluster=c", "", 200, ""), "operations"), 3)

	for _, verb := range []string{"pause", "resume", "approve"} {
		a := b.v0(t, "POST /operations/"+op.ID+"/"+verb, "", 409, "")
		require.Contains(t, a.body, "it can only be cancelled", verb)
	}
	a = b.v0(t, "PUT /operations/"+op.ID+"/policy", `{"max_unavailable":1}`, 409, "")
	require.Contains(t, a.body, "it can only be cancelled")
	_, err := b.store.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	a = b.v0(t, "POST /operations/"+op.ID+"/cancel", `{"force":true}`, 200, "")
	require.Equal(t, "alice", field(t, a, "cancel_requested_by"))
	require.NotZero(t, b.dispatcher.cancels())
	_, err = b.store.EndCommand(t.Context(), op.ID, "", true)
	require.NoError(t, err)
	a = b.v0(t, "GET /operations/"+op.ID, "", 200, "")
	require.Equal(t, []any{"cancelled", "cancelled by alice"}, []any{field(t, a, "state"), field(t, a, "reason")})

	b.v0(t, "POST /operations/"+op.ID+"/retry?dry_run=true", "", 409, "")
	a = b.v0(t, "POST /operations/"+op.ID+"/retry", `{"policy":{"max_unavailable":1}}`, 400, "")
	require.Equal(t, []string{"policy"}, blamed(t, a))
	a = b.v0(t, "POST /operations/"+op.ID+"/retry", "", 201, "")
	require.Equal(t, []any{op.ID, []any{"uname", "-r"}}, []any{field(t, a, "retry_of"), field(t, a, "argv")})
}

// TestCommandOnNoHosts: an empty list or selector, as a script that found none sends it, is
// not all.
func TestCommandOnNoHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2")
	before := b.dispatcher.starts()
	for member, empty := range map[string][]string{"hosts": {`[]`}, "selector": {`""`, `" "`, `"\t\n"`}} {
		for _, value := range empty {
			a := b.v0(t, "POST /cluster/c/command", `{"argv":["reboot"],"`+member+`":`+value+`}`, 400, "")
			require.Contains(t, blamed(t, a), member)
		}
	}
	b.cluster(t, "empty")
	require.Contains(t, b.v0(t, "POST /cluster/empty/command", `{"argv":["true"]}`, 409, "").body, "has no hosts")
	require.Equal(t, before, b.dispatcher.starts())
}

// TestWhatIsWrongWithACommand is said in words for people.
func TestWhatIsWrongWithACommand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	for body, says := range map[string]string{
		`{"argv":[]}`:                          "argv must not be empty",
		`{"argv":["x"],"hosts":[]}`:            "hosts must not be empty",
		`{"argv":["x"],"hosts":["a b"]}`:       "hosts[0] must be an IP address or a host name",
		`{"argv":["x"],"selector":" "}`:        "selector must be a selector that is not empty, such as env=prod",
		`{"argv":["x"],"selector":"env=prod"}`: "selector chooses no host of the cluster",
	} {
		require.Equal(t, says, field(t, b.v0(t, "POST /cluster/c/command", body, 400, ""), "detail"), body)
	}
	for _, timeout := range []string{`-1`, `0`, `0.5`, `1e300`, `null`, `""`, `"1d"`, `"25h"`, `"999999999h"`} {
		a := b.v0(t, "POST /cluster/c/command", `{"argv":["x"],"timeout":`+timeout+`}`, 400, "")
		require.Equal(t, "timeout must be a time between 1s and 24h, such as 90s or 10m", field(t, a, "detail"), timeout)
	}
}

func TestCommandIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	before := b.dispatcher.starts()
	post := func(body string) answer {
		r := b.request(t, "POST", "/api/v0/cluster/c/command", body)
		r.Header.Set("Idempotency-Key", "k")
		return b.send(t, r)
	}
	a := post(`{"argv":["true"]}`)
	require.Equal(t, 201, a.status, a.body)
	again := post(`{"argv":["true"]}`)
	require.Equal(t, 200, again.status, again.body)
	require.Equal(t, field(t, a, "id"), field(t, again, "id"))
	require.Equal(t, before+1, b.dispatcher.starts())
	other := post(`{"argv":["false"]}`)
	require.Equal(t, 409, other.status, other.body)
}

func TestBadCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	b.addHost(t, "h9", "")
	before := b.rows(t)
	for member, bodies := range map[string][]string{
		"argv": {`{}`, `{"argv":[]}`, `{"argv":[""]}`, `{"argv":"true"}`, `{"argv":[7]}`, `{"argv":["a\u0000"]}`, `{"argv":["\ud800"]}`,
			fmt.Sprintf(`{"argv":["x"%s]}`, strings.Repeat(`,"x"`, fleet.MaxArgv)), fmt.Sprintf(`{"argv":[%q]}`, strings.Repeat("x", fleet.MaxArgvBytes+1))},
		"timeout":  {`{"argv":["x"],"timeout":0}`, `{"argv":["x"],"timeout":"25h"}`, `{"argv":["x"],"timeout":"soon"}`},
		"at_once":  {`{"argv":["x"],"at_once":-1}`, `{"argv":["x"],"at_once":100001}`},
		"selector": {`{"argv":["x"],"selector":"!!"}`, `{"argv":["x"],"selector":"env=prod"}`},
		"hosts":    {`{"argv":["x"],"hosts":["h9"]}`, `{"argv":["x"],"hosts":["h1","a..b"]}`},
		"policy":   {`{"argv":["x"],"policy":{}}`},
	} {
		for _, body := range bodies {
			a := b.v0(t, "POST /cluster/c/command", body, 400, "")
			for _, field := range blamed(t, a) {
				require.True(t, strings.HasPrefix(field, member), "%s: %s", body, a.body)
			}
			require.NotEmpty(t, blamed(t, a), body)
		}
	}
	b.v0(t, "POST /cluster/c/command", ``, 400, "")
	b.v0(t, "POST /cluster/nope/command", `{"argv":["x"]}`, 404, "")
	b.v0(t, "GET /cluster/c/command", "", 404, "")
	b.dispatcher.setDown(fleet.Errorf(fleet.Unavailable, "down"))
	b.v0(t, "POST /cluster/c/command", `{"argv":["x"]}`, 503, "")
	require.Equal(t, before, b.rows(t))
}

// TestCommandsTakeAnAdmin, also those that are run again.
func TestCommandsTakeAnAdmin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	b.v0(t, "POST /cluster/c/command", `{"argv":["true"]}`, 201, "")
	op := b.lastStarted()
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "a host failed"))
	for _, who := range []string{"vera", "olga"} {
		other := b.as(basicCreds(who))
		other.v0(t, "POST /cluster/c/command", `{"argv":["true"]}`, 403, "")
		other.v0(t, "POST /operations/"+op.ID+"/retry", "", 403, "")
		require.Equal(t, "failed", field(t, other.v0(t, "GET /operations/"+op.ID, "", 200, ""), "state"))
	}
	b.v0(t, "POST /operations/"+op.ID+"/retry", "", 201, "")
}
