package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// cluster makes a cluster of bootstrapped hosts, h1 and so on.
func (b *bundle) cluster(t testing.TB, name string, hosts ...string) {
	t.Helper()
	b.v0(t, "PUT /cluster/"+name, "", 201, "")
	for _, h := range hosts {
		b.readyHost(t, h, name)
	}
}

// lastStarted is the operation that the dispatcher was given last.
func (b *bundle) lastStarted() fleet.Operation {
	b.dispatcher.mu.Lock()
	defer b.dispatcher.mu.Unlock()
	return b.dispatcher.started[len(b.dispatcher.started)-1]
}

// claim does what the worker does: it asks who comes next.
func (b *bundle) claim(t testing.TB, id string, turn int) store.Claimed {
	t.Helper()
	c, err := b.store.Claim(t.Context(), id, turn, time.Minute)
	require.NoError(t, err)
	return c
}

// withKey sends a request with an Idempotency-Key.
func (b *bundle) withKey(t testing.TB, request, body, key string, status int) answer {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r, err := http.NewRequestWithContext(t.Context(), method, b.url+"/api/v0"+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Authorization", b.creds)
	r.Header.Set("Idempotency-Key", key)
	a := b.send(t, r)
	require.Equal(t, status, a.status, "%s %s: %s", request, body, a.body)
	return a
}

func TestUpgradeFromOrderToEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /cluster/c/upgrade", "", 404, "")
	b.v0(t, "PUT /cluster/c/upgrade", "", 404, "")
	b.cluster(t, "c", "h1", "h2", "h3")

	first := b.v0(t, "PUT /cluster/c/upgrade", `{"policy":{"max_unavailable":2,"max_failures":"40%"}}`, 201, "")
	require.JSONEq(t, `{"name":"c","status":"in_process","upgraded":[],"in_process":[],"started_at":"T","finished_at":""}`, normalRun(t, first))
	op := b.lastStarted()
	require.Equal(t, fleet.KindUpgrade, op.Kind)
	b.v0(t, "PUT /cluster/c/upgrade", "", 200, first.body)
	b.v0(t, "PUT /cluster/c/upgrade", `{"policy":{"max_unavailable":2}}`, 200, first.body)
	a := b.v0(t, "PUT /cluster/c/upgrade", `{"policy":{"max_unavailable":1}}`, 409, "")
	require.Equal(t, map[string]any{"operation": op.ID, "url": "/api/v0/operations/" + op.ID}, field(t, a, "holder"))
	for _, other := range []string{"restart", "deploy"} {
		a := b.v0(t, "PUT /cluster/c/"+other, map[string]string{"restart": "", "deploy": `{"version":"1"}`}[other], 409, "")
		require.Equal(t, map[string]any{"operation": op.ID, "url": "/api/v0/operations/" + op.ID}, field(t, a, "holder"), a.body)
	}

	require.Len(t, b.claim(t, op.ID, 1).Assignments, 2)
	a = b.v0(t, "GET /cluster/c/upgrade", "", 200, "")
	require.JSONEq(t, `{"name":"c","status":"in_process","upgraded":[],"in_process":["h1","h2"],"started_at":"T","finished_at":""}`, normalRun(t, a))
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h2", State: fleet.HostRunFailed, Reason: "no space", Event: fleet.HostBroke})

	a = b.v0(t, "GET /operations/"+op.ID, "", 200, "")
	require.Equal(t, map[string]any{"max_unavailable": 2.0, "max_failures": "40%"}, field(t, a, "policy"))
	require.Equal(t, map[string]any{
		"total": 3.0, "pending": 1.0, "staging": 0.0, "staged": 0.0, "running": 0.0, "succeeded": 1.0, "failed": 1.0, "skipped": 0.0,
	}, field(t, a, "progress"))

	require.Len(t, b.claim(t, op.ID, 2).Assignments, 1)
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	end := b.claim(t, op.ID, 3)
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, end.End, end.Reason))
	a = b.v0(t, "GET /cluster/c/upgrade", "", 200, "")
	require.JSONEq(t, `{"name":"c","status":"failed","upgraded":["h1","h3"],"in_process":["h2"],"started_at":"T","finished_at":"T"}`, normalRun(t, a))
}

func TestDeploy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c")
	for _, body := range []string{``, `{}`, `{"version":""}`, `{"version":null}`, `{"version":43}`, `{"version":"-x"}`, `{"version":"a b"}`, `{"version":["1"]}`} {
		a := b.v0(t, "PUT /cluster/c/deploy", body, 400, "")
		require.Equal(t, []string{"version"}, blamed(t, a), body)
	}
	b.v0(t, "PUT /cluster/none/deploy", `{"version":"1"}`, 404, "")
	first := b.v0(t, "PUT /cluster/c/deploy", `{"version":"43.20261120.0","name":"c"}`, 201, "")
	require.JSONEq(t, `{"name":"c","status":"in_process","version":"43.20261120.0","deployed":[],"in_process":[],"started_at":"T","finished_at":""}`, normalRun(t, first))
	b.v0(t, "PUT /cluster/c/deploy", `{"version":"43.20261120.0"}`, 200, first.body)
	a := b.v0(t, "PUT /cluster/c/deploy", `{"version":"44"}`, 409, "")
	require.NotNil(t, field(t, a, "holder"))
	b.v0(t, "GET /cluster/c/deploy", "", 200, first.body)
}

// TestDeployIsRefused: the dry run refuses what the deploy would.
func TestDeployIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	before := b.rows(t)
	for _, query := range []string{"", "?dry_run=true"} {
		a := b.v0(t, "PUT /cluster/c/deploy"+query, `{"version":"44"}`, 409, "")
		require.Contains(t, a.body, "h1")
	}
	require.Equal(t, before, b.rows(t), "nothing is stored")
}

func TestPolicyOfARequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	for body, blame := range map[string]string{
		`{"policy":{"max_unavailable":0}}`:                           "policy.max_unavailable",
		`{"policy":{"max_unavailable":"0%"}}`:                        "policy.max_unavailable",
		`{"policy":{"max_unavailable":"101%"}}`:                      "policy.max_unavailable",
		`{"policy":{"max_unavailable":1.5}}`:                         "policy.max_unavailable",
		`{"policy":{"max_unavailable":null}}`:                        "policy.max_unavailable",
		`{"policy":{"max_failures":-1}}`:                             "policy.max_failures",
		`{"policy":{"max_failures":"some"}}`:                         "policy.max_failures",
		`{"policy":{"max_failures":99999999999999999999}}`:           "policy.max_failures",
		`{"policy":{"host_timeout":"9s"}}`:                           "policy.host_timeout",
		`{"policy":{"host_timeout":"soon"}}`:                         "policy.host_timeout",
		`{"policy":{"step_timeout":"9000h"}}`:                        "policy.step_timeout",
		`{"policy":{"min_ready":-1}}`:                                "policy.min_ready",
		`{"policy":{"reboot":"maybe"}}`:                              "policy.reboot",
		`{"policy":{"order":{"by":"label"}}}`:                        "policy.order.label",
		`{"policy":{"order":{}}}`:                                    "policy.order.by",
		`{"policy":{"canary":{}}}`:                                   "policy.canary",
		`{"policy":{"canary":{"hosts":1,"then":"wait"}}}`:            "policy.canary.then",
		`{"policy":{"selector":"a b"}}`:                              "policy.selector",
		`{"policy":{"selector":"env=prod"}}`:                         "policy.selector",
		`{"policy":{"window":{"start":"22:00"}}}`:                    "policy.window.end",
		`{"policy":{"window":{"start":"25:00","end":"01:00"}}}`:      "policy.window",
		`{"policy":{"window":{"days":["x"],"start":"1","end":"2"}}}`: "policy.window.days[0]",
		`{"policy":{"canary":{"selector":"canary"}}}`:                "policy.canary",
		`{"policy":{"speed":9}}`:                                     "policy.speed",
		`{"policy":[]}`:                                              "policy",
		`{"policy":null}`:                                            "policy",
		`{"polcy":{}}`:                                               "polcy",
		`{"name":"d"}`:                                               "name",
	} {
		for _, query := range []string{"", "?dry_run=true"} {
			a := b.v0(t, "PUT /cluster/c/restart"+query, body, 400, "")
			require.Contains(t, blamed(t, a), blame, "%s: %s", body, a.body)
		}
	}
	for body, says := range map[string]string{
		`{"policy":{"max_unavailable":"101%"}}`:  `policy.max_unavailable must be a number of hosts, or a percentage of them such as \"10%\"`,
		`{"policy":{"max_failures":-1}}`:         `policy.max_failures must be a number of hosts, or a percentage of them such as \"10%\"`,
		`{"policy":{"min_ready":"1 fortnight"}}`: `policy.min_ready must be a time such as \"90s\" or \"1h30m\", or a number of seconds, a year at most`,
	} {
		require.Contains(t, b.v0(t, "PUT /cluster/c/restart", body, 400, "").body, says)
	}
	starts := b.dispatcher.starts()
	b.v0(t, "PUT /cluster/c/restart", `{"policy":{"max_unavailable":"10%","min_ready":30,"step_timeout":"1h30m"}}`, 201, "")
	require.Equal(t, starts+1, b.dispatcher.starts())
	a := b.v0(t, "GET /operations/"+b.lastStarted().ID+"/policy", "", 200, `{"max_unavailable":"10%","min_ready":"30s","step_timeout":"1h30m0s"}`)
	require.NotEmpty(t, a.body)
}

// TestDocumentReadsPoliciesAsFleetDoes: what the document lets pass decodes, and
// what it refuses does not.
func TestDocumentReadsPoliciesAsFleetDoes(t *testing.T) {
	t.Parallel()
	schema := loadDocument(t).Components.Schemas["Policy"].Value
	defineFormats()
	values := []string{
		`1`, `0`, `-1`, `1.5`, `1e3`, `1000000`, `99999999999`, `"1"`, `"10%"`, `"100%"`, `"101%"`, `"010%"`, `""`, `"%"`, `" 1"`, `"1 "`, `"+1"`, `"-1"`,
		`"90s"`, `"1h30m"`, `"1.5h"`, `".5s"`, `"-90s"`, `"9000h"`, `"8760h"`, `31536000`, `31536001`, `"31536000"`, `"1d"`, `"0"`, `null`, `true`, `{}`, `[]`, `"1µs"`,
	}
	for _, member := range []string{
		`{"max_unavailable":%s}`, `{"max_failures":%s}`, `{"host_timeout":%s}`, `{"min_ready":%s}`,
		`{"drain":%s}`, `{"drain":{"timeout":%s}}`, `{"drain":{"grace_period":%s}}`, `{"drain":{"skip_wait_for_delete_timeout":%s}}`, `{"drain":{"skip":%s}}`, `{"drain":{"force":%s}}`,
	} {
		for _, value := range values {
			text := fmt.Sprintf(member, value)
			object, err := decodeObject([]byte(text))
			require.NoError(t, err)
			passes := schema.VisitJSON(object) == nil
			again, err := json.Marshal(object)
			require.NoError(t, err)
			var p fleet.Policy
			decodes := json.Unmarshal(again, &p) == nil
			if passes {
				require.True(t, decodes, "%s passes the document but does not decode", text)
			} else if decodes && value != `null` && value != `99999999999` {
				t.Logf("%s decodes, and the document is stricter", text)
			}
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	starts := b.dispatcher.starts()
	b.withKey(t, "PUT /cluster/c/upgrade", `{}`, "night 1", 201)
	op := b.lastStarted()
	b.withKey(t, "PUT /cluster/c/upgrade", `{}`, "night 1", 200)
	a := b.withKey(t, "PUT /cluster/c/upgrade", `{"policy":{"max_unavailable":1}}`, "night 1", 409)
	require.Equal(t, []string{"Idempotency-Key"}, blamed(t, a))
	b.withKey(t, "PUT /cluster/c/restart", ``, "night 1", 409)
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "x"))
	a = b.withKey(t, "PUT /cluster/c/upgrade", ``, "night 1", 200)
	require.Equal(t, "failed", field(t, a, "status"), "the same operation, also after its end")
	require.Equal(t, starts+1, b.dispatcher.starts())
	b.withKey(t, "PUT /cluster/c/upgrade", ``, "night 2", 201)
	for _, key := range []string{strings.Repeat("k", 256), "ü", "\t"} {
		a = b.withKey(t, "PUT /cluster/c/upgrade", ``, key, 400)
		require.Equal(t, []string{"Idempotency-Key"}, blamed(t, a))
	}
	b.withKey(t, "PUT /cluster/c/upgrade", ``, strings.Repeat("k", 255), 200)
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2", "h3")
	b.v0(t, "PUT /cluster/c/policy", `{"max_unavailable":2}`, 201, "")
	before, starts := b.rows(t), b.dispatcher.starts()
	a := b.v0(t, "PUT /cluster/c/upgrade?dry_run=true", `{"policy":{"canary":{"hosts":1},"order":{"by":"random","seed":3}}}`, 200, "")
	var plan gen.Plan
	require.NoError(t, json.Unmarshal([]byte(a.body), &plan))
	require.Equal(t, gen.Upgrade, plan.Kind)
	require.Equal(t, 2, plan.Slots)
	require.Equal(t, fleet.Count(2), plan.Policy.MaxUnavailable)
	require.Len(t, plan.Hosts, 3)
	for i, h := range plan.Hosts {
		require.Equal(t, i, h.Position)
		require.Equal(t, i == 0, h.Canary)
		require.Equal(t, "dnf", h.Family)
		require.NotEmpty(t, h.Steps)
	}
	require.Empty(t, plan.Blocks)
	require.Equal(t, before, b.rows(t), "nothing is stored")
	require.Equal(t, starts, b.dispatcher.starts())

	b.v0(t, "PUT /cluster/c/upgrade", `{"policy":{"canary":{"hosts":1},"order":{"by":"random","seed":3}}}`, 201, "")
	page := b.hostRuns(t, b.lastStarted().ID, "")
	for i, run := range page.Hosts {
		require.Equal(t, plan.Hosts[i].Address, run.Address, "the order is that of the plan")
		require.Equal(t, plan.Hosts[i].Canary, run.Canary)
	}
	a = b.v0(t, "PUT /cluster/c/restart?dry_run=true", "", 200, "")
	require.Contains(t, a.body, b.lastStarted().ID, "what holds the cluster is named")
	for _, query := range []string{"?dry_run=1", "?dry_run=", "?dry_run=True", "?dry_run=true&dry_run=true"} {
		a = b.v0(t, "PUT /cluster/c/upgrade"+query, "", 400, "")
		require.Equal(t, []string{"dry_run"}, blamed(t, a), query)
	}
}

func (b *bundle) hostRuns(t testing.TB, id, query string) (page gen.HostRunPage) {
	t.Helper()
	a := b.v0(t, "GET /operations/"+id+"/hosts"+query, "", 200, "")
	require.NoError(t, json.Unmarshal([]byte(a.body), &page))
	return page
}

func TestPagesOfHostsAndSteps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1", "h2", "h3")
	b.v0(t, "PUT /cluster/c/restart", `{"policy":{"max_unavailable":2}}`, 201, "")
	op := b.lastStarted()
	b.claim(t, op.ID, 1)
	var all []string
	page := b.hostRuns(t, op.ID, "?limit=2")
	for {
		for _, run := range page.Hosts {
			all = append(all, run.Address)
		}
		if page.Next == "" {
			break
		}
		require.Less(t, len(all), 3)
		page = b.hostRuns(t, op.ID, "?limit=2&cursor="+page.Next)
	}
	require.Equal(t, []string{"h1", "h2", "h3"}, all)
	require.Len(t, b.hostRuns(t, op.ID, "?state=running").Hosts, 2)
	require.Equal(t, 1, b.hostRuns(t, op.ID, "?state=running").Hosts[0].Slot)
	require.Len(t, b.hostRuns(t, op.ID, "?state=pending").Hosts, 1)

	for _, h := range []string{"h1", "h2"} {
		_, err := b.store.BeginStep(t.Context(), op.ID, h, "check", 1)
		require.NoError(t, err)
	}
	var steps gen.StepPage
	a := b.v0(t, "GET /operations/"+op.ID+"/steps?limit=1", "", 200, "")
	require.NoError(t, json.Unmarshal([]byte(a.body), &steps))
	require.Equal(t, "h1", steps.Steps[0].Address)
	a = b.v0(t, "GET /operations/"+op.ID+"/steps?limit=1&cursor="+steps.Next, "", 200, "")
	steps = gen.StepPage{}
	require.NoError(t, json.Unmarshal([]byte(a.body), &steps))
	require.Equal(t, "h2", steps.Steps[0].Address)
	require.Empty(t, steps.Next)
	for query, blame := range map[string]string{
		"hosts?limit=0": "limit", "hosts?limit=1001": "limit", "hosts?state=odd": "state", "hosts?cursor=x": "cursor", "steps?cursor=-1": "cursor", "steps?state=failed": "state",
	} {
		a := b.v0(t, "GET /operations/"+op.ID+"/"+query, "", 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), query)
	}
}

func TestClusterPolicy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, request := range []string{"GET", "DELETE"} {
		b.v0(t, request+" /cluster/c/policy", "", 404, "")
	}
	b.v0(t, "PUT /cluster/c/policy", `{}`, 404, "")
	b.cluster(t, "c", "h1")
	b.v0(t, "GET /cluster/c/policy", "", 200, `{}`)
	stored := `{"max_unavailable":"25%","reboot":"always","window":{"days":["sat"],"start":"22:00","end":"04:00","time_zone":"Europe/Berlin"}}`
	b.v0(t, "PUT /cluster/c/policy", stored, 201, stored)
	b.v0(t, "GET /cluster/c/policy", "", 200, stored)
	for body, blame := range map[string]string{
		`{"max_unavailable":0}`: "max_unavailable", `{"speed":1}`: "speed", `{"order":{"by":"label"}}`: "order.label", `[]`: "body",
	} {
		a := b.v0(t, "PUT /cluster/c/policy", body, 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), body)
	}
	b.v0(t, "PUT /cluster/c/restart", `{"policy":{"reboot":"never"}}`, 201, "")
	a := b.v0(t, "GET /operations/"+b.lastStarted().ID, "", 200, "")
	require.Equal(t, "never", field(t, a, "policy").(map[string]any)["reboot"], "the request's")
	require.Equal(t, "25%", field(t, a, "policy").(map[string]any)["max_unavailable"], "the cluster's")
	b.v0(t, "DELETE /cluster/c/policy", "", 200, `[]`)
	b.v0(t, "DELETE /cluster/c/policy", "", 200, `[]`)
	b.v0(t, "GET /cluster/c/policy", "", 200, `{}`)
}

func TestLabels(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /host/h1/labels", "", 404, "")
	b.v0(t, "PUT /host/h1/labels", `{}`, 404, "")
	b.cluster(t, "c", "h1", "h2")
	b.v0(t, "GET /host/h1/labels", "", 200, `{}`)
	require.Nil(t, field(t, b.v0(t, "GET /host/h1", "", 200, ""), "labels"), "not shown when there are none")
	b.v0(t, "PUT /host/h1/labels", `{"env":"prod","gpu":""}`, 201, `{"env":"prod","gpu":""}`)
	b.v0(t, "PUT /host/h1/labels", `{"env":"prod"}`, 201, "")
	b.v0(t, "GET /host/h1/labels", "", 200, `{"env":"prod"}`)
	require.Equal(t, map[string]any{"env": "prod"}, field(t, b.v0(t, "GET /host/h1", "", 200, ""), "labels"))
	for query, want := range map[string][]string{
		"": {"h1", "h2"}, "?selector=env%3Dprod": {"h1"}, "?selector=%21env": {"h2"}, "?selector=env%20in%20(test)": nil, "?selector=": {"h1", "h2"},
	} {
		var hosts []gen.Host
		require.NoError(t, json.Unmarshal([]byte(b.v0(t, "GET /hosts"+query, "", 200, "").body), &hosts))
		var have []string
		for _, h := range hosts {
			have = append(have, h.Address)
		}
		require.Equal(t, want, have, query)
	}
	for body, blame := range map[string]string{`{"env":"a b"}`: "env", `{"env":1}`: "env", `{"":"x"}`: "body", `[]`: "body", `{"env":null}`: "env"} {
		a := b.v0(t, "PUT /host/h1/labels", body, 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), body)
	}
	a := b.v0(t, "GET /hosts?selector=a%20b", "", 400, "")
	require.Equal(t, []string{"selector"}, blamed(t, a))
	a = b.v0(t, "PUT /cluster/c/restart?dry_run=true", `{"policy":{"selector":"env=prod"}}`, 200, "")
	require.Len(t, field(t, a, "hosts"), 1)
}

// manyHosts puts bootstrapped hosts into a cluster, past the API.
func (b *bundle) manyHosts(t testing.TB, cluster string, count int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.dsn)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `INSERT INTO host (tenant, address, cluster, join_order, state, os, package_manager, bootstrapped)
		SELECT 'default', format('host-%s', lpad(n::text, 5, '0')), $1, n, 'disassociated', 'fedora', 'dnf', now() FROM generate_series(1, $2::int) n`, cluster, count)
	require.NoError(t, err)
}

func TestThousandHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	b.manyHosts(t, "c", 1000)
	a := b.v0(t, "PUT /cluster/c/upgrade?dry_run=true", `{"policy":{"max_unavailable":"10%"}}`, 200, "")
	require.Len(t, field(t, a, "hosts"), 1000)
	require.Equal(t, 100.0, field(t, a, "slots"))
	b.v0(t, "PUT /cluster/c/upgrade", `{"policy":{"max_unavailable":"10%"}}`, 201, "")
	page := b.hostRuns(t, b.lastStarted().ID, "?limit=1000")
	require.Len(t, page.Hosts, 1000)
	require.Empty(t, page.Next)
	page = b.hostRuns(t, b.lastStarted().ID, "")
	require.Len(t, page.Hosts, 200)
	require.Equal(t, "host-00200", page.Hosts[199].Address)
	b.v0(t, "GET /cluster/c/upgrade", "", 200, "")
}
