package commctl

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// What new verbs send, byte for byte.
func TestRequestsOfNewVerbs(t *testing.T) {
	t.Parallel()
	id := "/api/v0/operations/" + testID
	operation := reply{200, `{"id":"` + testID + `","kind":"upgrade","cluster":"web","state":"running","requested_by":"alice","created_at":"","started_at":"","finished_at":""}`}
	replies := map[string]reply{
		"POST " + id + "/pause": operation, "POST " + id + "/resume": operation, "POST " + id + "/approve": operation, "POST " + id + "/cancel": operation,
		"POST " + id + "/retry": {201, operation.body}, "GET " + id: operation,
		"POST " + id + "/retry?dry_run=true":                   {200, `{"kind":"upgrade","cluster":"web","hosts":[]}`},
		"PUT " + id + "/policy":                                {201, `{}`},
		"POST /api/v0/sources/cmdb/sync":                       {201, operation.body},
		"POST /api/v0/sources/cmdb/sync?dry_run=true":          {201, operation.body},
		"PUT /api/v0/host/192.0.2.1/source":                    {201, `{}`},
		"PUT /api/v0/host/192.0.2.1/bastion":                   {201, `{}`},
		"PUT /api/v0/cluster/db":                               {201, `{}`},
		"GET /api/v0/cluster/db":                               {200, `{}`},
		"GET /api/v0/inventory?format=ansible":                 {200, `{}`},
		"GET /api/v0/cluster/web/policy":                       {200, `{"max_failures":1,"max_unavailable":3}`},
		"PUT /api/v0/cluster/web/policy":                       {201, `{}`},
		"DELETE /api/v0/cluster/web/policy":                    {200, `[]`},
		"GET /api/v0/host/192.0.2.1/labels":                    {200, `{"env":"test","rack":"a1"}`},
		"PUT /api/v0/host/192.0.2.1/labels":                    {201, `{}`},
		"PUT /api/v0/host/192.0.2.1/bootstrap":                 {201, `{"name":"192.0.2.1"}`},
		"POST /api/v0/tokens":                                  {201, `{"token":"cmst_x"}`},
		"POST /api/v0/jointokens":                              {201, `{"token":"cmsj_x"}`},
		"DELETE /api/v0/tokens/k3v9q2m4x7c1b8n0":               {200, `[]`},
		"DELETE /api/v0/tokens/k3v9q2m4x7c1b8n1":               {200, `[]`},
		"GET /api/v0/audit?operation=putHost&limit=3":          {200, `{"entries":[{},{}],"next":"a"}`},
		"GET /api/v0/audit?operation=putHost&limit=1&cursor=a": {200, `{"entries":[{}],"next":"b"}`},
		"PUT /api/v0/cluster/web/deploy":                       {201, `{"name":"web"}`},
		"PUT /api/v0/cluster/web/upgrade?dry_run=true":         {200, `{"kind":"upgrade","cluster":"web","hosts":[]}`},
		"GET /api/v0/operations?cluster=web&kind=deploy&state=failed&since=2026-11-20T00%3A00%3A00Z&limit=2": {200, `{"operations":[]}`},
		"GET " + id + "/hosts?state=failed&limit=1000":                                                       {200, `{"hosts":[]}`},
		"GET " + id + "/steps?host=192.0.2.1&limit=1000":                                                     {200, `{"steps":[]}`},
		"GET /api/v0/hosts?selector=env%3Dprod%2Ctier%21%3Ddb":                                               {200, `[]`},
	}
	for command, want := range map[string][]string{
		"operations pause " + testID:                                                     {"POST " + id + "/pause", `{}`},
		"op resume " + testID:                                                            {"POST " + id + "/resume", `{}`},
		"operation approve " + testID:                                                    {"POST " + id + "/approve", `{}`},
		"operations cancel " + testID:                                                    {"POST " + id + "/cancel", `{}`},
		"operations cancel --force " + testID:                                            {"POST " + id + "/cancel", `{"force":true}`},
		"operations retry --max-failures 2 -o name " + testID:                            {"POST " + id + "/retry", `{"policy":{"max_failures":2}}`, "GET " + id, ``},
		"operations retry --dry-run " + testID:                                           {"POST " + id + "/retry?dry_run=true", `{"policy":{}}`},
		"operations policy set --max-unavailable 10% --min-ready 90 " + testID:           {"PUT " + id + "/policy", `{"max_unavailable":"10%","min_ready":"1m30s"}`},
		"cluster policy set web --max-failures 2":                                        {"GET /api/v0/cluster/web/policy", ``, "PUT /api/v0/cluster/web/policy", `{"max_unavailable":3,"max_failures":2}`},
		"cluster policy set web --replace --policy - --reboot never":                     {"PUT /api/v0/cluster/web/policy", `{"max_failures":"5%","reboot":"never"}`},
		"source sync -o name cmdb":                                                       {"POST /api/v0/sources/cmdb/sync", `{}`},
		"source sync --dry-run cmdb":                                                     {"POST /api/v0/sources/cmdb/sync?dry_run=true", `{}`},
		"host source set 192.0.2.1 cmdb":                                                 {"PUT /api/v0/host/192.0.2.1/source", `{"source":"cmdb"}`},
		"host bastion set 192.0.2.1 192.0.2.9":                                           {"PUT /api/v0/host/192.0.2.1/bastion", `{"bastion":"192.0.2.9"}`},
		"host bastion unset 192.0.2.1":                                                   {"PUT /api/v0/host/192.0.2.1/bastion", `{"bastion":""}`},
		"cluster bastion set db 192.0.2.9":                                               {"GET /api/v0/cluster/db", ``, "PUT /api/v0/cluster/db", `{"bastion":"192.0.2.9"}`},
		"cluster bastion unset db":                                                       {"GET /api/v0/cluster/db", ``, "PUT /api/v0/cluster/db", `{"bastion":""}`},
		"host source unset 192.0.2.1":                                                    {"PUT /api/v0/host/192.0.2.1/source", `{"source":""}`},
		"inventory export":                                                               {"GET /api/v0/inventory?format=ansible", ``},
		"cluster policy delete web":                                                      {"DELETE /api/v0/cluster/web/policy", ``},
		"cluster deploy start web 43 --canary 1 --canary-then approve --canary-soak 10m": {"PUT /api/v0/cluster/web/deploy", `{"policy":{"canary":{"hosts":1,"then":"approve","soak":"10m0s"}},"version":"43"}`},
		"cluster policy set web --no-drain":                                              {"GET /api/v0/cluster/web/policy", ``, "PUT /api/v0/cluster/web/policy", `{"max_unavailable":3,"max_failures":1,"drain":{"disabled":true}}`},
		"cluster policy set web --replace --drain-force=false":                           {"PUT /api/v0/cluster/web/policy", `{"drain":{}}`},
		"operations policy set --drain-timeout 90 --drain-grace-period 0s --drain-force --drain-delete-emptydir-data --drain-skip app=x,tier!=db --drain-ignore-daemon-sets=false --drain-skip-wait-for-delete-timeout 1m " + testID: {"PUT " + id + "/policy", `{"drain":{"timeout":"1m30s","grace_period":"0s","ignore_daemon_sets":false,"delete_emptydir_data":true,"force":true,"skip":"app=x,tier!=db","skip_wait_for_delete_timeout":"1m0s"}}`},
		"cluster upgrade start --dry-run --order random:7 -l env=prod web":                      {"PUT /api/v0/cluster/web/upgrade?dry_run=true", `{"policy":{"selector":"env=prod","order":{"by":"random","seed":7}}}`},
		"operations list -c web --kind deploy --state failed --since 2026-11-20 -n 2":           {"GET /api/v0/operations?cluster=web&kind=deploy&state=failed&since=2026-11-20T00%3A00%3A00Z&limit=2", ``, "GET /api/v0/cluster/web", ``},
		"operations hosts --state failed " + testID:                                             {"GET " + id + "/hosts?state=failed&limit=1000", ``},
		"operations steps " + testID + " 192.0.2.1":                                             {"GET " + id + "/steps?host=192.0.2.1&limit=1000", ``},
		"host labels set 192.0.2.1 env=prod tier=":                                              {"GET /api/v0/host/192.0.2.1/labels", ``, "PUT /api/v0/host/192.0.2.1/labels", `{"env":"prod","rack":"a1","tier":""}`},
		"host labels unset 192.0.2.1 rack none":                                                 {"GET /api/v0/host/192.0.2.1/labels", ``, "PUT /api/v0/host/192.0.2.1/labels", `{"env":"test"}`},
		"host labels unset 192.0.2.1 --all":                                                     {"GET /api/v0/host/192.0.2.1/labels", ``, "PUT /api/v0/host/192.0.2.1/labels", `{}`},
		"host list -l env=prod,tier!=db":                                                        {"GET /api/v0/hosts?selector=env%3Dprod%2Ctier%21%3Ddb", ``},
		"host bootstrap start 192.0.2.1":                                                        {"PUT /api/v0/host/192.0.2.1/bootstrap", `{}`},
		"tokens create --role operator --operation upgradeCluster,getOperation --expires 1h ci": {"POST /api/v0/tokens", `{"name":"ci","role":"operator","operations":["upgradeCluster","getOperation"],"expires_in":"1h0m0s"}`},
		"token revoke k3v9q2m4x7c1b8n0 k3v9q2m4x7c1b8n1":                                        {"DELETE /api/v0/tokens/k3v9q2m4x7c1b8n0", ``, "DELETE /api/v0/tokens/k3v9q2m4x7c1b8n1", ``},
		"join-tokens create -c web":                                                             {"POST /api/v0/jointokens", `{"cluster":"web","expires_in":"1h0m0s"}`},
		"audit --operation putHost -n 3":                                                        {"GET /api/v0/audit?operation=putHost&limit=3", ``, "GET /api/v0/audit?operation=putHost&limit=1&cursor=a", ``},
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := newStub(t, replies)
			a := appFor(t, server.URL)
			a.In = strings.NewReader(`{"max_failures": "5%"}`)
			require.Equal(t, exitOK, a.Run(t.Context(), strings.Fields(command)), a.errs.String())
			var got []string
			for _, r := range server.requests() {
				got = append(got, r.line, strings.TrimSpace(r.body))
			}
			require.Equal(t, want, got)
		})
	}
}

// What is wrong with a command line is said before anything is sent.
func TestNewVerbsRefuse(t *testing.T) {
	t.Parallel()
	server := newStub(t, nil)
	file := filepath.Join(t.TempDir(), "policy")
	require.NoError(t, os.WriteFile(file, []byte(`{"max_failure": 1}`), 0o600))
	for command, want := range map[string]string{
		"cluster upgrade start --max-failures x web":            `--max-failures" flag: must be a number of hosts`,
		"cluster upgrade start --max-unavailable 0 web":         "commctl: error: --max-unavailable must be at least 1 or 1%\n",
		"cluster upgrade start --canary-then pause web":         "say either --canary or --canary-selector",
		"cluster policy set web --canary-soak 8784h --canary 1": `"--canary-soak" flag: must be a time`,
		"cluster upgrade start --reboot perhaps web":            "--reboot must be never, if-needed or always",
		"cluster upgrade start --order label web":               "--order must name a label",
		"cluster upgrade start --order name:x web":              "only random and label",
		"cluster upgrade start --window 22:00 web":              "must hold two times of day",
		"cluster upgrade start --selector =x web":               "--selector",
		"cluster upgrade start --drain-timeout 10ms web":        "commctl: error: --drain-timeout must be at least 1s and at most a year\n",
		"cluster upgrade start --drain-timeout soon web":        `"--drain-timeout" flag: must be a time`,
		"cluster policy set web --drain-grace-period 500ms":     "commctl: error: --drain-grace-period must be whole seconds, 0s or more",
		"cluster upgrade start --drain-skip =x web":             "--drain-skip",
		"cluster upgrade start --drain-force=perhaps web":       "--drain-force",
		"cluster upgrade start --no-drain --drain-force web":    "--no-drain leaves nodes alone",
		"cluster upgrade start --dry-run --watch web":           "none of the others can be",
		"cluster upgrade start --policy " + file + " web":       `unknown field "max_failure"`,
		"cluster policy set web":                                "say what to change",
		"host labels set 192.0.2.1 env":                         `"env" is not of the form NAME=VALUE`,
		"host labels unset 192.0.2.1":                           "name the labels",
		"host list web -l env=prod":                             "not both",
		"operations list --since tomorrow":                      "--since must be a time",
		"wait --for=done " + testID:                             "must be running, paused",
		"operations pause web.example":                          "OPERATION must be the name of a cluster, or an id such as ",
		"operations resurrect":                                  "unknown verb",
		"operations list -n -1":                                 "must not be below 0",
	} {
		a := appFor(t, server.URL)
		require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields(command)), command)
		require.Contains(t, a.errs.String(), want, command)
		require.Contains(t, a.errs.String(), "usage: commctl ", command)
	}
	require.Empty(t, server.lines())
}

// The server blames members of the policy; who gave them by flags is told of the flags.
func TestRefusalsNameFlags(t *testing.T) {
	t.Parallel()
	refuse := func(field string) reply {
		return reply{400, `{"title":"Wrong","status":400,"detail":"` + field + ` chooses no host","errors":[{"field":"` + field + `","detail":"chooses no host"}]}`}
	}
	server := newStub(t, map[string]reply{
		"PUT /api/v0/cluster/web/restart":              refuse("policy.selector"),
		"PUT /api/v0/cluster/web/upgrade":              refuse("policy.canary"),
		"PUT /api/v0/operations/" + testID + "/policy": refuse("selector"),
		"PUT /api/v0/cluster/web/deploy":               refuse("policy.drain.skip_wait_for_delete_timeout"),
		"PUT /api/v0/cluster/web/policy":               refuse("drain.grace_period"),
	})
	const old = "usage: commctl cluster restart start NAME [flags]\ncommctl: error: Unable to PUT the object at /api/v0/cluster/web/restart: 400\n  "
	for command, want := range map[string]string{
		"cluster restart start web -l env=prod":                                      old + "--selector chooses no host\n",
		"cluster restart start web":                                                  old + "policy.selector chooses no host\n",
		"cluster restart start -o name web -l env=prod":                              "commctl: error: --selector chooses no host\n",
		"cluster upgrade start -o name web --canary-selector a=b":                    "commctl: error: --canary-selector chooses no host\n",
		"operations policy set -l env=prod " + testID:                                "commctl: error: --selector chooses no host\n",
		"cluster deploy start -o name web 1 --drain-skip-wait-for-delete-timeout 1m": "commctl: error: --drain-skip-wait-for-delete-timeout chooses no host\n",
		"cluster policy set --replace web --drain-grace-period 1s":                   "commctl: error: --drain-grace-period chooses no host\n",
	} {
		a := appFor(t, server.URL)
		require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields(command)))
		require.Equal(t, want, a.errs.String(), command)
	}
}

// An empty list may be for a name that was mistyped.
func TestNoOperations(t *testing.T) {
	t.Parallel()
	none := reply{200, `{"operations":[]}`}
	server := newStub(t, map[string]reply{
		"GET /api/v0/operations?limit=50": none, "GET /api/v0/operations?cluster=web&limit=50": none, "GET /api/v0/operations?cluster=wbe&host=192.0.2.1&limit=50": none,
		"GET /api/v0/operations?cluster=away&limit=50": none, "GET /api/v0/cluster/away": {503, ``}, "GET /api/v0/cluster/web": {200, `{}`},
	})
	for args, want := range map[string]string{
		"": "", "-c web": "; cluster web exists", "-c wbe --host 192.0.2.1": "; there is no cluster wbe; there is no host 192.0.2.1", "-c away": "",
	} {
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), append([]string{"operations", "list", "-o", "name"}, strings.Fields(args)...)), a.errs.String())
		require.Empty(t, a.out.String())
		require.Equal(t, "commctl: no operations"+want+"\n", a.errs.String())
	}
}

// Each refusal has its exit code, and its words are on standard error alone.
func TestExitCodesOfNewVerbs(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]int{400: exitUsage, 403: exitForbidden, 404: exitNotFound, 405: exitConflict, 409: exitConflict, 429: exitUnavailable, 500: exitUnavailable, 503: exitUnavailable} {
		for command, path := range map[string]string{
			"whoami": "GET /api/v0/whoami", "operations get " + testID: "GET /api/v0/operations/" + testID, "operations pause " + testID: "POST /api/v0/operations/" + testID + "/pause",
			"cluster restart start -o name web": "PUT /api/v0/cluster/web/restart", "host bootstrap status 192.0.2.1": "GET /api/v0/host/192.0.2.1/bootstrap",
		} {
			server := newStub(t, map[string]reply{path: {status, fmt.Sprintf(`{"type":"/docs/problems/x","title":"No","status":%d,"detail":"because \u001b[2J","request_id":"r1"}`, status)}})
			a := appFor(t, server.URL)
			a.againTime = time.Millisecond
			require.Equal(t, code, a.Run(t.Context(), strings.Fields(command)), "%s %d", command, status)
			require.Empty(t, a.out.String())
			require.Contains(t, a.errs.String(), "commctl: error: because \uFFFD[2J")
		}
	}
	server := newStub(t, map[string]reply{"GET /api/v0/whoami": {200, `<html>`}})
	a := appFor(t, server.URL)
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"whoami"}))
	require.Equal(t, "commctl: error: "+server.URL+" does not answer as Commissaire does; is the endpoint right?\n", a.errs.String())
	server = newStub(t, map[string]reply{"GET /api/v0/whoami": {200, `[7]`}, "DELETE /api/v0/cluster/web/policy": {200, `<html>`}})
	a = appFor(t, server.URL)
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"whoami"}))
	require.Contains(t, a.errs.String(), "not what this version of commctl knows")
	a = appFor(t, server.URL)
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"cluster", "policy", "delete", "web"}))
	require.Contains(t, a.errs.String(), "is the endpoint right?")
	require.Equal(t, exitUnreachable, appFor(t, deadEndpoint).Run(t.Context(), []string{"whoami"}))
}

// tables are answers that hold what each table has a column for.
var tables = map[string]struct{ path, body string }{
	"source list":                      {"/api/v0/sources", `[{"name":"cmdb","type":"http-json","refresh":"1h0m0s","hosts":12,"last_sync":{"id":"` + testID + `","kind":"sync","source":"cmdb","state":"succeeded","requested_by":"schedule","created_at":"2026-11-20T14:03:00.123456","started_at":"2026-11-20T14:03:00.323456","finished_at":"2026-11-20T14:03:01.323456","sync":{"changed":2,"same":9,"missing":1,"strangers":["192.0.2.99"],"more":3}}},{"name":"files","type":"ansible","refresh":"","hosts":0}]`},
	"operations list":                  {"/api/v0/operations?limit=50", `{"operations":[` + failedOperation + `,{"id":"019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3e","kind":"deploy","cluster":"web","version":"43.1","state":"running","paused":true,"waiting":"paused by alice","requested_by":"alice","created_at":"2026-11-20T14:03:00.123456","started_at":"2026-11-20T14:03:00.323456","finished_at":"","retry_of":"` + testID + `"},{"id":"019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3f","kind":"command","cluster":"web","argv":["sh","-c","echo 'a'; \u001b[2J\nexit 1","","--all=x","` + strings.Repeat("y", 100) + `"],"timeout":"10m0s","state":"failed","requested_by":"alice","created_at":"2026-11-20T14:03:00.123456","started_at":"2026-11-20T14:03:00.323456","finished_at":"2026-11-20T14:03:00.923456"}]}`},
	"operations hosts " + testID:       {"/api/v0/operations/" + testID + "/hosts?limit=1000", `{"hosts":[{"address":"192.0.2.10","state":"succeeded","canary":true,"slot":1,"target":"43.1","started_at":"2026-11-20T14:03:00.123456","finished_at":"2026-11-20T14:04:30.123456"},{"address":"192.0.2.11","state":"pending","waiting":"operation x holds it","started_at":"","finished_at":""}]}`},
	"operations steps " + testID:       {"/api/v0/operations/" + testID + "/steps?limit=1000", `{"steps":[{"address":"192.0.2.10","name":"upgrade","attempt":2,"state":"failed","reason":"apt ended\nbadly \u001b[2J","exit_code":100,"output_size":7,"output_stored":7,"started_at":"2026-11-20T14:03:00.123456","finished_at":"2026-11-20T14:03:01.623456"}]}`},
	"operations policy get " + testID:  {"/api/v0/operations/" + testID + "/policy", `{"max_unavailable":"10%","canary":{"hosts":1,"then":"approve"}}`},
	"host labels get 192.0.2.10":       {"/api/v0/host/192.0.2.10/labels", `{"rack":"a1","env":"prod","empty":""}`},
	"host bootstrap status 192.0.2.10": {"/api/v0/host/192.0.2.10/bootstrap", `{"name":"192.0.2.10","status":"finished","bootstrapped":["192.0.2.10"],"in_process":[],"started_at":"2026-11-20T14:03:00.123456","finished_at":"2026-11-20T14:03:45.123456"}`},
	"tokens list":                      {"/api/v0/tokens", `[{"id":"k3v9q2m4x7c1b8n0","name":"ci","owner":"alice","role":"operator","operations":["upgradeCluster","getOperation"],"created_at":"2026-11-20T14:03:00.123456","expires_at":"2026-12-20T14:03:00.123456","revoked_at":"","last_used_at":""}]`},
	"join-tokens list":                 {"/api/v0/jointokens", `[{"id":"k3v9q2m4x7c1b8n0","cluster":"web","remote_user":"root","created_by":"alice","created_at":"2026-11-20T14:03:00.123456","expires_at":"2026-11-20T15:03:00.123456","revoked_at":"","used_at":"2026-11-20T14:04:00.123456","used_by":"192.0.2.10"}]`},
	"whoami":                           {"/api/v0/whoami", `{"name":"alice","method":"httpbasicauth","role":"admin","address":"192.0.2.7"}`},
	"audit":                            {"/api/v0/audit?limit=50", `{"entries":[{"at":"2026-11-20T14:03:00.123456","principal":"alice","method":"httpbasicauth","role":"admin","address":"192.0.2.7","operation":"putHost","path":"/api/v0/host/192.0.2.10","status":201,"request_id":"019af0c4"},{"at":"2026-11-20T14:03:00.123456","principal":"alice","method":"httpbasicauth","role":"admin","address":"192.0.2.7","operation":"runCommand","path":"/api/v0/cluster/web/command","status":201,"request_id":"019af0c5","subject":"` + testID + `"}]}`},
	"host list -l env=prod":            {"/api/v0/hosts?selector=env%3Dprod", `[{"address":"192.0.2.10","status":"active","os":"fedora","os_version":"43","cpus":4,"memory":7820,"space":53687091200,"last_check":"","source":"","labels":{"env":"prod"}}]`},
}

const failedOperation = `{"id":"` + testID + `","kind":"upgrade","cluster":"web","state":"failed","reason":"a host failed","requested_by":"alice","created_at":"2026-11-20T14:03:00.123456","started_at":"2026-11-20T14:03:01.123456","finished_at":"2026-11-20T14:09:00.123456","policy":{"max_unavailable":2,"max_failures":1},"progress":{"total":20,"pending":0,"staging":0,"staged":0,"running":0,"succeeded":3,"failed":12,"skipped":5}}`

// How answers look in each format.
func TestTables(t *testing.T) {
	t.Parallel()
	for command, answer := range tables {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := newStub(t, map[string]reply{"GET " + answer.path: {200, answer.body}})
			var all strings.Builder
			for _, format := range formats {
				a := appFor(t, server.URL)
				require.Zero(t, a.Run(t.Context(), append(strings.Fields(command), "-o", string(format))), a.errs.String())
				fmt.Fprintf(&all, "--- %s\n%s", format, a.out)
				if format == formatJSON {
					require.True(t, json.Valid(a.out.Bytes()))
				}
			}
			words := strings.Fields(command)
			words = slices.DeleteFunc(words, func(w string) bool { return strings.ContainsAny(w, "0123456789-=") && w != "join-tokens" })
			golden(t, "table-"+strings.Join(words, "-"), all.String())
		})
	}
}

// An operation, the hosts that failed at their steps, and what to run next.
func TestGetOfAFailedOperation(t *testing.T) {
	t.Parallel()
	replies := map[string]reply{"GET /api/v0/operations/" + testID: {200, failedOperation}}
	var hosts []client.HostRun
	for i := range 12 {
		h := client.HostRun{Address: fmt.Sprintf("192.0.2.%d", 10+i), State: "failed", Reason: "step upgrade: apt ended with exit code 100; it said: no space\nleft"}
		step := client.Step{Address: h.Address, Name: "upgrade", State: "failed", OutputSize: 7}
		if i == 0 {
			h.Reason, step.Name, step.OutputSize = "step check: host-key-changed: pinned is SHA256:a", "check", 0
		}
		hosts = append(hosts, h)
		steps := []client.Step{{Address: h.Address, Name: "first"}, step}
		if i == 1 { // what was done behind the failure is not what failed
			steps = append(steps, client.Step{Address: h.Address, Name: "uncordon", State: "succeeded"})
		}
		text, err := json.Marshal(client.StepPage{Steps: steps})
		require.NoError(t, err)
		replies["GET /api/v0/operations/"+testID+"/steps?host="+h.Address+"&limit=1000"] = reply{200, string(text)}
	}
	text, err := json.Marshal(client.HostRunPage{Hosts: hosts})
	require.NoError(t, err)
	replies["GET /api/v0/operations/"+testID+"/hosts?state=failed&limit=1000"] = reply{200, string(text)}
	a := appFor(t, newStub(t, replies).URL)
	require.Zero(t, a.Run(t.Context(), []string{"operations", "get", testID}), a.errs.String())
	golden(t, "get-failed", a.out.String())
}

// An operation that goes on, and for what its hosts wait.
func TestGetOfAWaitingOperation(t *testing.T) {
	t.Parallel()
	hosts, err := json.Marshal(client.HostRunPage{Hosts: []client.HostRun{
		{Address: "192.0.2.10", State: "running"},
		{Address: "192.0.2.11", State: "running", Waiting: "the node cannot be drained: budget shop/cart allows no eviction now\x1b"},
	}})
	require.NoError(t, err)
	for state, asked := range map[string]int{"running": 2, "pending": 1, "succeeded": 1} {
		server := newStub(t, map[string]reply{
			"GET /api/v0/operations/" + testID:                                     {200, `{"id":"` + testID + `","kind":"register","host":"192.0.2.11","state":"` + state + `"}`},
			"GET /api/v0/operations/" + testID + "/hosts?state=running&limit=1000": {200, string(hosts)},
		})
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), []string{"operations", "get", testID}), a.errs.String())
		require.Len(t, server.requests(), asked)
		if state == "running" {
			require.Contains(t, a.out.String(), "\n\nWAITING      FOR\n192.0.2.11   the node cannot be drained: budget shop/cart allows no eviction now\ufffd\n")
		}
		require.NotContains(t, a.out.String(), "192.0.2.10")
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	var hosts []string
	for i := range 5 {
		hosts = append(hosts, fmt.Sprintf(`{"address":"192.0.2.%d","position":%d,"canary":%t,"os":"debian","family":"apt","steps":[{"name":"upgrade","commands":[["apt-get","update"],["apt-get","-y","dist-upgrade"]]},{"name":"reboot","commands":[["systemctl","reboot"]],"condition":"when the host needs it"}]}`, 10+i, i, i == 0))
	}
	hosts = append(hosts, `{"address":"192.0.2.20","position":5,"canary":false,"os":"","family":"","steps":[],"blocks":"nobody knows what it runs"}`)
	plan := `{"kind":"upgrade","cluster":"web","policy":{"max_unavailable":2},"slots":2,"failures_allowed":0,"hosts":[` + strings.Join(hosts, ",") + `],"blocks":["operation x runs on the cluster"]}`
	server := newStub(t, map[string]reply{"PUT /api/v0/cluster/web/upgrade?dry_run=true": {200, plan}})
	var all strings.Builder
	for _, format := range []string{"", "-o table", "-o name"} {
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), strings.Fields("cluster upgrade start --dry-run web "+format)), a.errs.String())
		fmt.Fprintf(&all, "--- %s\n%s", format, a.out)
	}
	golden(t, "plan", all.String())
}

// A plan over nodes shows what is in the way of drains.
func TestPlanOverNodes(t *testing.T) {
	t.Parallel()
	steps := `"steps":[{"name":"check","commands":[["true"]]},{"name":"diagnose","commands":[]},{"name":"cordon","commands":[]},{"name":"drain","commands":[]},{"name":"reboot","commands":[["systemctl","reboot"]]},{"name":"uncordon","commands":[]}]`
	var hosts []string
	for i, more := range []string{
		`"blocks":"its node could not be drained: pod shop/lone has no controller (and 1 more)","findings":[
			{"cause":"unmanaged","object":"pod shop/lone","pods":["shop/lone"],"detail":"has no controller, so nobody would make it anew; delete it, or force the drain","blocks":true},
			{"cause":"budget","object":"budget shop/cart","pods":["shop/cart-1","shop/cart-2"],"detail":"allows no eviction now\u001b[2J","blocks":true,"passes":true}],"more_findings":3`,
		`"findings":[]`,
		`"findings":[{"cause":"cordoned","object":"node 192.0.2.12","detail":"has been cordoned by somebody else, and stays so afterwards"}]`,
		`"blocks":""`,
	} {
		hosts = append(hosts, fmt.Sprintf(`{"address":"192.0.2.%d","position":%d,"canary":false,"os":"debian","family":"apt",%s,%s}`, 10+i, i, steps, more))
	}
	plan := `{"kind":"restart","cluster":"web","policy":{"drain":{"timeout":"5m0s","force":false}},"slots":1,"failures_allowed":0,"hosts":[` + strings.Join(hosts, ",") + `],"blocks":["1 host could not be drained: 192.0.2.10"]}`
	server := newStub(t, map[string]reply{"PUT /api/v0/cluster/web/restart?dry_run=true": {200, plan}})
	var all strings.Builder
	for _, format := range []string{"", "-o table", "-o wide", "-o name"} {
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), strings.Fields("cluster restart start --dry-run web "+format)), a.errs.String())
		fmt.Fprintf(&all, "--- %s\n%s", format, a.out)
	}
	golden(t, "plan-nodes", all.String())
}

// Where the answer to a start names no operation, that of the request is found.
func TestStartFindsItsOperation(t *testing.T) {
	t.Parallel()
	page := `{"operations":[{"id":"another","kind":"upgrade","cluster":"web","state":"pending","request_id":"r2"},{"id":"mine","kind":"upgrade","cluster":"web","state":"succeeded","request_id":"r1"}]}`
	for status, want := range map[int]string{201: "mine", 200: "another"} {
		s := &stubServer{}
		handler := s.handler(map[string]reply{
			"PUT /api/v0/cluster/web/upgrade":                          {status, `{"name":"web"}`},
			"GET /api/v0/operations?cluster=web&kind=upgrade&limit=10": {200, page},
			"GET /api/v0/operations/mine":                              {200, `{"id":"mine"}`},
			"GET /api/v0/operations/another":                           {200, `{"id":"another"}`},
		})
		server := newHTTPServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "r1")
			handler.ServeHTTP(w, r)
		})
		a := appFor(t, server)
		require.Zero(t, a.Run(t.Context(), strings.Fields("cluster upgrade start -o name web")), a.errs.String())
		require.Equal(t, want+"\n", a.out.String())
		require.Regexp(t, `^commctl-[A-Z2-7]{26}$`, s.requests()[0].header.Get("Idempotency-Key"))
		require.Equal(t, status == 200, strings.Contains(a.errs.String(), "runs already"))
	}
}

// The record of old clients does not say which operation runs already, nor how it
// stands.
func TestStartTellsWhatRunsAlready(t *testing.T) {
	t.Parallel()
	const put, list = "PUT /api/v0/cluster/web/upgrade", "GET /api/v0/operations?cluster=web&kind=upgrade&limit=10"
	record := reply{200, `{"name":"web","status":"in_process"}`}
	for name, c := range map[string]struct {
		answer, operations reply
		errs               string
	}{
		"running": {record, reply{200, `{"operations":[{"id":"` + testID + `","kind":"upgrade","cluster":"web","state":"running"}]}`},
			"upgrade of web runs already: operation " + testID + ", running; to see it: commctl operations watch " + testID + "\n"},
		"paused, by another policy": {record, reply{200, `{"operations":[{"id":"` + testID + `","kind":"upgrade","cluster":"web","state":"running","paused":true,"waiting":"paused by vera","policy":{"selector":"env=prod"}}]}`},
			"upgrade of web runs already: operation " + testID + ", running, paused, waiting: paused by vera, only hosts with env=prod; to see it: commctl operations watch " + testID + "\n"},
		"an old server": {record, notFound, "upgrade of web runs already\n"},
		"begun":         {reply{201, record.body}, notFound, ""},
	} {
		server := newStub(t, map[string]reply{put: c.answer, list: c.operations})
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), strings.Fields("cluster upgrade start web")), name)
		require.Equal(t, "name: web\nstatus: in_process\n", a.out.String(), name)
		require.Equal(t, c.errs, a.errs.String(), name)
	}
	server := newStub(t, map[string]reply{put: {404, `{"title":"Not found","status":404,"detail":"there is no cluster \"web\""}`}})
	a := appFor(t, server.URL)
	require.Zero(t, a.Run(t.Context(), strings.Fields("cluster upgrade start web")))
	require.Equal(t, "No object found.\n...\n", a.out.String())
	require.Equal(t, "commctl: there is no cluster \"web\"\n", a.errs.String())
}

// What is waited for comes with the command that lets it go on, unless it is over.
func TestWaitingText(t *testing.T) {
	t.Parallel()
	const cancelled = "2026-11-20T14:03:00.123456"
	for want, op := range map[string]client.Operation{
		"":                                      {State: "running"},
		"the maintenance window opens at 22:00": {State: "running", Waiting: "the maintenance window opens at 22:00"},
		"the canaries are done; waits for approval; to go on: commctl operations approve " + testID: {Id: testID, State: "running", Waiting: fleet.Policy{Canary: &fleet.Canary{Then: fleet.ThenApprove}}.Next(fleet.Tally{Rest: fleet.Group{Ready: 1}}, fleet.Steering{}, time.Now()).Waiting},
		"paused by alice; to go on: commctl operations resume " + testID:                            {Id: testID, State: "running", Paused: true, Waiting: "paused by alice"},
		"ends when the hosts at work have ended":                                                    {Id: testID, State: "running", Paused: true, Waiting: "paused by alice", CancelRequestedAt: cancelled},
	} {
		require.Equal(t, want, waitingText(op))
		if want != "" {
			var told strings.Builder
			v := &viewer{progress: newProgress(op), out: &told}
			require.NoError(t, v.tellWaiting())
			require.NoError(t, v.tellWaiting())
			require.Equal(t, "waiting: "+want+"\n", told.String(), "once")
			require.Contains(t, v.summary(time.Now()).text, "waiting: "+want)
		}
	}
	require.Empty(t, waitingText(client.Operation{State: "cancelled", Paused: true, CancelRequestedAt: cancelled}))
}

// A token is alone on standard output, for TOKEN=$(…).
func TestTokenIsAlone(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"POST /api/v0/tokens": {201, `{"token":"cmst_k3v9_secret","id":"k3v9","name":"ci","owner":"alice","role":"viewer","operations":[],"created_at":"","expires_at":"2026-12-20T14:03:00.123456"}`}})
	a := appFor(t, server.URL)
	require.Zero(t, a.Run(t.Context(), []string{"tokens", "create", "ci"}))
	require.Equal(t, "cmst_k3v9_secret\n", a.out.String())
	require.Equal(t, "Token k3v9 of alice, role viewer, good until 2026-12-20T14:03:00Z. It is not shown again:\n", a.errs.String())
}

// Whole tokens stand for their ids, and their secrets stay here; a token that was
// just made is what there is to print of it.
func TestTokensByTheirText(t *testing.T) {
	t.Parallel()
	const id = "k3v9q2m4x7c1b8n0"
	server := newStub(t, map[string]reply{
		"GET /api/v0/tokens/" + id: {200, `{"id":"` + id + `"}`}, "DELETE /api/v0/tokens/" + id: {200, `[]`}, "DELETE /api/v0/jointokens/" + id: {200, `[]`},
		"POST /api/v0/tokens": {201, `{"id":"` + id + `","token":"cmst_` + id + `_hidden"}`}, "POST /api/v0/jointokens": {201, `{"id":"` + id + `","token":"cmsj_` + id + `_hidden"}`},
	})
	for command, want := range map[string]string{
		"tokens get -o name cmst_" + id + "_hid-den": id + "\n", "tokens revoke cmst_" + id + "_hid_den": "", "join-tokens revoke cmsj_" + id + "_hidden " + id: "",
		"tokens create -o name ci": "cmst_" + id + "_hidden\n", "join-tokens create -o name": "cmsj_" + id + "_hidden\n",
	} {
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), strings.Fields(command)), a.errs.String())
		require.Equal(t, want, a.out.String(), command)
	}
	sent := len(server.lines())
	for command, want := range map[string]string{
		"tokens revoke cmsj_" + id + "_hidden":      "those of 'commctl tokens' begin with cmst_",
		"join-tokens revoke cmst_" + id + "_hidden": "those of 'commctl join-tokens' begin with cmsj_",
		"tokens get cmst_hidden":                    "TOKEN-ID must be 16 small letters and digits",
		"tokens revoke " + id + " " + id + "hidden": "TOKEN-ID must be",
	} {
		a := appFor(t, server.URL)
		require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields(command)), command)
		require.Contains(t, a.errs.String(), want)
		require.NotContains(t, a.errs.String(), "hidden")
	}
	require.Len(t, server.lines(), sent, "nothing is sent")
	require.NotContains(t, fmt.Sprint(server.lines()), "hid")
}

// More hosts at once than an operation works on are no error, and not silent.
func TestMaxUnavailableAboveTheCap(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"PUT /api/v0/cluster/web/policy": {201, `{}`}})
	for amount, told := range map[string]bool{"501": true, "500": false, "100%": false} {
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), strings.Fields("cluster policy set --replace web --max-unavailable "+amount)), a.errs.String())
		require.Equal(t, told, a.errs.String() == "commctl: --max-unavailable 501 acts as 500: no operation works on more hosts at once\n", a.errs.String())
	}
}

// Names of the server complete a command line; without a server there are none, and
// nobody is asked for anything.
func TestCompletion(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{
		"GET /api/v0/clusters":                                                   {200, `["db","web"]`},
		"GET /api/v0/hosts":                                                      {200, `[{"address":"192.0.2.10","status":"active"}]`},
		"GET /api/v0/operations?limit=30":                                        {200, `{"operations":[` + failedOperation + `]}`},
		"GET /api/v0/operations/" + testID + "/hosts?limit=1000":                 {200, `{"hosts":[{"address":"192.0.2.10","state":"failed"}]}`},
		"GET /api/v0/operations/" + testID + "/steps?host=192.0.2.10&limit=1000": {200, `{"steps":[{"name":"upgrade","state":"fai\u001bled"}]}`},
	})
	for line, want := range map[string]string{
		"cluster upgrade start ":          "db\nweb\n:4\n",
		"cluster get w":                   "web\n:4\n",
		"cluster delete web ":             "db\nweb\n:4\n",
		"cluster get web ":                ":4\n",
		"host join ":                      "192.0.2.10\tactive\n:4\n",
		"host join 192.0.2.10 ":           "db\nweb\n:4\n",
		"operations list --cluster ":      "db\nweb\n:4\n",
		"operations watch ":               "web\tits operation\n" + testID + "\tupgrade of web, failed, 2026-11-20T14:03:00Z\n:4\n",
		"logs " + testID + " ":            "192.0.2.10\tfailed\n:4\n",
		"logs " + testID + " 192.0.2.10 ": "upgrade\tfai\uFFFDled\n:4\n",
		"network get ":                    ":4\n",
		"wait --for ":                     "running\npaused\nsucceeded\nfailed\ncancelled\nended\n:4\n",
	} {
		for _, configured := range []bool{true, false} {
			a := newTestApp(t)
			if configured {
				a = appFor(t, server.URL)
			}
			a.Ask = func(string, bool) (string, error) { panic("nobody is to be asked") }
			args := append([]string{"__complete"}, strings.Fields(line)...)
			if strings.HasSuffix(line, " ") {
				args = append(args, "")
			}
			require.Zero(t, a.Run(t.Context(), args))
			if configured || strings.Contains(line, "--for") {
				require.Equal(t, want, a.out.String(), line)
			} else {
				require.Equal(t, ":4\n", a.out.String(), line)
			}
		}
	}
}

func TestParseWindow(t *testing.T) {
	t.Parallel()
	w, err := parseWindow("sat,sun 22:00-04:00 Europe/Berlin")
	require.NoError(t, err)
	require.Equal(t, &fleet.Window{Days: []string{"sat", "sun"}, Start: "22:00", End: "04:00", TimeZone: "Europe/Berlin"}, w)
	w, err = parseWindow("22:00-04:00")
	require.NoError(t, err)
	require.Equal(t, &fleet.Window{Start: "22:00", End: "04:00"}, w)
	for _, bad := range []string{"", "sat", "today 22:00-04:00", "22:00-25:00", "22:00-04:00 Europe/Atlantis", "sat 1:00-2:00 UTC x"} {
		_, err := parseWindow(bad)
		require.Error(t, err, bad)
	}
}

func FuzzPolicyFlags(f *testing.F) {
	f.Add("sat,sun 22:00-04:00 Europe/Berlin", "label:rack")
	f.Add("22:00-04:00", "random:-7")
	f.Fuzz(func(t *testing.T, window, order string) {
		if w, err := parseWindow(window); err == nil {
			require.NoError(t, w.Check())
		}
		if o, err := parseOrder(order); err == nil {
			_ = fleet.Policy{Order: o}.Check("policy")
		}
	})
}
