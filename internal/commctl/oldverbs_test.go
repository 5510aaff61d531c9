package commctl

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every verb of the contract, by the bytes that it sends.
func TestRequestsOfOldVerbs(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("PRIVATE\nKEY\n"), 0o600))
	sent := `"ssh_priv_key":"` + base64.StdEncoding.EncodeToString([]byte("PRIVATE\nKEY\n")) + `"`
	for command, want := range map[string][]string{
		"cluster create web":                                {`PUT /api/v0/cluster/web`, `{"type":"kubernetes","network":"default","container_manager":""}`},
		"cluster create -t host_only -n net -c kube web":    {`PUT /api/v0/cluster/web`, `{"type":"host_only","network":"net","container_manager":"kube"}`},
		"cluster create --type=host_only --network net web": {`PUT /api/v0/cluster/web`, `{"type":"host_only","network":"net","container_manager":""}`},
		"cluster delete web db":                             {`DELETE /api/v0/cluster/web`, `{}`, `DELETE /api/v0/cluster/db`, `{}`},
		"cluster get web":                                   {`GET /api/v0/cluster/web`, ``},
		"cluster list":                                      {`GET /api/v0/clusters`, ``},
		"cluster deploy start web 7.4":                      {`PUT /api/v0/cluster/web/deploy`, `{"version":"7.4"}`},
		"cluster deploy status web":                         {`GET /api/v0/cluster/web/deploy`, ``},
		"cluster restart start web":                         {`PUT /api/v0/cluster/web/restart`, `{}`},
		"cluster restart status web":                        {`GET /api/v0/cluster/web/restart`, ``},
		"cluster upgrade start web":                         {`PUT /api/v0/cluster/web/upgrade`, `{}`},
		"cluster upgrade status web":                        {`GET /api/v0/cluster/web/upgrade`, ``},
		"container_manager create kube":                     {`PUT /api/v0/containermanager/kube`, `{"options":{},"type":"openshift"}`},
		`container_manager create -t trivial -o a=1 -o {"b":[2],"a":3} -o c=x=y kube`: {`PUT /api/v0/containermanager/kube`, `{"options":{"a":3,"b":[2],"c":"x=y"},"type":"trivial"}`},
		"container_manager delete kube":                                               {`DELETE /api/v0/containermanager/kube`, `{}`},
		"container-manager delete --force kube shift":                                 {`DELETE /api/v0/containermanager/kube`, `{}`, `DELETE /api/v0/containermanager/shift`, `{}`},
		"container_manager get kube":                                                  {`GET /api/v0/containermanager/kube`, ``},
		"container_manager list":                                                      {`GET /api/v0/containermanagers`, ``},
		"container-manager list":                                                      {`GET /api/v0/containermanagers`, ``},
		"host create 192.0.2.1 " + key:                                                {`PUT /api/v0/host/192.0.2.1`, `{` + sent + `}`},
		"host create -c web localhost " + key:                                         {`PUT /api/v0/host/127.0.0.1`, `{` + sent + `,"cluster":"web"}`},
		"host create --no-resolve localhost -":                                        {`PUT /api/v0/host/localhost`, `{"ssh_priv_key":"U1RESU4="}`},
		"host create --port 2222 --remote-user cloud ::1 -":                           {`PUT /api/v0/host/::1`, `{"ssh_priv_key":"U1RESU4=","remote_user":"cloud","port":2222}`},
		"host delete 192.0.2.1 localhost":                                             {`DELETE /api/v0/host/192.0.2.1`, `{}`, `DELETE /api/v0/host/127.0.0.1`, `{}`},
		"host get localhost":                                                          {`GET /api/v0/host/127.0.0.1`, ``},
		"host status 192.0.2.1":                                                       {`GET /api/v0/host/192.0.2.1/status`, ``},
		"host join 192.0.2.1 web":                                                     {`PUT /api/v0/cluster/web/hosts/192.0.2.1`, `{}`},
		"host unjoin localhost web":                                                   {`DELETE /api/v0/cluster/web/hosts/127.0.0.1`, `{}`},
		"host list":                                                                   {`GET /api/v0/hosts`, ``},
		"host list web":                                                               {`GET /api/v0/cluster/web/hosts`, ``},
		"network create net":                                                          {`PUT /api/v0/network/net`, `{"options":{},"type":"flannel_etcd"}`},
		`network create net -t flannel_server -o {"address":1}`:                       {`PUT /api/v0/network/net`, `{"options":{"address":1},"type":"flannel_server"}`},
		"network delete a b":                                                          {`DELETE /api/v0/network/a`, `{}`, `DELETE /api/v0/network/b`, `{}`},
		"network get net":                                                             {`GET /api/v0/network/net`, ``},
		"network list ignored":                                                        {`GET /api/v0/networks`, ``},
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := newStub(t, nil)
			a := appFor(t, server.URL+"//") // slashes at the end are trimmed
			a.In = strings.NewReader("STDIN")
			require.Equal(t, exitOK, a.Run(t.Context(), strings.Fields(command)), a.errs.String())
			var got []string
			for _, r := range server.requests() {
				got = append(got, r.line, r.body)
				require.Equal(t, []string{"application/json"}, r.header["Content-Type"])
				require.Equal(t, "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:pw:with:colons")), r.header.Get("Authorization"))
			}
			require.Equal(t, want, got)
		})
	}
}

// Who deletes a container manager by force is told what stays cordoned.
func TestDeleteByForce(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{
		"DELETE /api/v0/containermanager/kube":             {409, `{"title":"Conflict","status":409,"detail":"1 node is cordoned by operation x (192.0.2.10)"}`},
		"DELETE /api/v0/containermanager/kube?force=true":  {200, `[]`},
		"DELETE /api/v0/containermanager/shift":            {409, ``},
		"DELETE /api/v0/containermanager/shift?force=true": {503, `{"title":"Away","status":503}`},
	})
	a := appFor(t, server.URL)
	require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields("container_manager delete --force kube shift")), "also where there was one to delete")
	require.Equal(t, "- Success\n", a.out.String())
	require.Contains(t, a.errs.String(), "commctl: by force, though 1 node is cordoned by operation x (192.0.2.10)\n")
	require.Contains(t, a.errs.String(), "Unable to DELETE the object at /api/v0/containermanager/shift?force=true: 503")
}

// What is printed of an answer, and the exit code.
func TestOutcomesOfOldVerbs(t *testing.T) {
	t.Parallel()
	forbidden := `{"type":"x","title":"Forbidden","status":403,"detail":"needs role admin; you are alice with role viewer"}`
	for name, c := range map[string]struct {
		command string
		answer  reply
		code    int
		out     string
		errs    string
	}{
		"object": {"cluster get web", reply{200, `{"name":"web","status":"","hosts":{"total":1,"available":0},"hostset":["192.0.2.1"],"options":{}}`},
			0, "hosts:\n  available: 0\n  total: 1\nhostset:\n- 192.0.2.1\nname: web\noptions: {}\nstatus: ''\n", ""},
		"list of strings":      {"cluster list", reply{200, `["web","db"]`}, 0, "- web\n- db\n", ""},
		"list of objects":      {"host list", reply{200, `[{"b":1,"a":"2"},{"a":true}]`}, 0, "- a: '2'\n  b: 1\n- a: true\n", ""},
		"large number":         {"host get 192.0.2.1", reply{200, `{"space":9007199254740993}`}, 0, "space: 9007199254740993\n", ""},
		"created":              {"cluster create web", reply{201, `{"name":"web"}`}, 0, "name: web\n", ""},
		"created, nothing":     {"cluster create web", reply{201, ``}, 0, "- Created web\n", ""},
		"created, empty":       {"cluster create web", reply{201, `{}`}, 0, "- Created web\n", ""},
		"empty body":           {"cluster get web", reply{200, "\r\n"}, 0, "Success\n...\n", ""},
		"empty list":           {"cluster list", reply{200, `[]`}, 0, "Success\n...\n", ""},
		"empty object":         {"cluster get web", reply{200, `{}`}, 0, "Success\n...\n", ""},
		"no content":           {"cluster upgrade status web", reply{204, ``}, 0, "No instance\n...\n", ""},
		"not found":            {"cluster get web", notFound, 0, "No object found.\n...\n", ""},
		"deleted":              {"cluster delete web", reply{200, `[]`}, 0, "- Success\n", ""},
		"deleted, not there":   {"cluster delete web", notFound, 0, "- No object found.\n", ""},
		"forbidden":            {"cluster get web", reply{403, `Forbidden`}, 2, "", "usage: commctl cluster get NAME [flags]\ncommctl: error: The provided credentials were incorrect.\n"},
		"forbidden, by a role": {"cluster get web", reply{403, forbidden}, 2, "", "usage: commctl cluster get NAME [flags]\ncommctl: error: The provided credentials were incorrect.\n  needs role admin; you are alice with role viewer\n"},
		"conflict": {"network create net", reply{409, `{"title":"Conflict","status":409,"detail":"it is there\u001b[2J"}`}, 2, "",
			"usage: commctl network create NAME [flags]\ncommctl: error: Unable to PUT the object at /api/v0/network/net: 409\n  it is there\ufffd[2J\n"},
		"bad request": {"cluster create web", reply{400, `{"title":"Wrong","status":400,"detail":"it is wrong","errors":[{"field":"network","detail":"is bad"}]}`}, 2, "",
			"usage: commctl cluster create NAME [flags]\ncommctl: error: Unable to PUT the object at /api/v0/cluster/web: 400\n  it is wrong\n  network: is bad\n"},
		"server error": {"host delete 192.0.2.1", reply{500, `{"title":"Fault","status":500,"request_id":"r1"}`}, 2, "",
			"usage: commctl host delete ADDRESS... [flags]\ncommctl: error: Unable to DELETE the object at /api/v0/host/192.0.2.1: 500\n  Fault\n  request id r1\n"},
		"redirect": {"cluster list", reply{302, ``}, 2, "", "usage: commctl cluster list [flags]\ncommctl: error: Unable to GET the object at /api/v0/clusters: 302\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newStub(t, nil)
			server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.answer.status)
				_, _ = w.Write([]byte(c.answer.body))
			})
			a := appFor(t, server.URL)
			require.Equal(t, c.code, a.Run(t.Context(), strings.Fields(c.command)))
			require.Equal(t, c.out, a.out.String())
			require.Equal(t, c.errs, a.errs.String())
		})
	}
}

func TestDeleteTellsWhatWasDoneBeforeARefusal(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"DELETE /api/v0/cluster/a": {200, `[]`}, "DELETE /api/v0/cluster/c": {503, ``}})
	a := appFor(t, server.URL)
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"cluster", "delete", "a", "b", "c", "d"}))
	require.Equal(t, "- Success\n- No object found.\n", a.out.String())
	require.Contains(t, a.errs.String(), "Unable to DELETE the object at /api/v0/cluster/c: 503")
	require.Len(t, server.lines(), 3, "nothing after a refusal")
}

// With -o old verbs print and fail as new ones do.
func TestFormatsOfOldVerbs(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{
		"GET /api/v0/clusters": {200, `["web","db"]`},
		"GET /api/v0/networks": {200, `[]`},
		"GET /api/v0/hosts": {200, `[{"address":"192.0.2.1","status":"active","os":"fedora","os_version":"43","cpus":4,"memory":100,"space":53687091200,"last_check":"2026-11-20T14:03:00.123456","source":"","cluster":"web","labels":{"b":"2","a":"1"}},` +
			`{"address":"192.0.2.2","status":"failed","os":"","cpus":0,"memory":0,"space":0,"last_check":"","source":"","reason":"no\n\u001b[2Jway"}]`},
		"GET /api/v0/cluster/web/hosts": {200, `["192.0.2.1"]`},
		"GET /api/v0/cluster/web":       {200, `{"name":"web","status":"ok","network":"default","hostset":[],"container_manager":"","hosts":{"total":0,"available":0,"unavailable":0}}`},
		"GET /api/v0/cluster/busy":      {409, `{"title":"Conflict","status":409,"detail":"no"}`},
		"GET /api/v0/cluster/mine":      {403, `Forbidden`},
		"GET /api/v0/cluster/away":      {503, `{"title":"Away","status":503,"detail":"try again"}`},
	})
	for command, want := range map[string]struct {
		code int
		out  string
	}{
		"cluster list -o name":      {0, "web\ndb\n"},
		"cluster list -o table":     {0, "NAME\nweb\ndb\n"},
		"cluster list -o yaml":      {0, "- web\n- db\n"},
		"cluster get -o table web":  {0, "NAME   STATUS   HOSTS   AVAILABLE\nweb    ok       0       0\n"},
		"network list -o json":      {0, "[]\n"},
		"network list -o yaml":      {0, "[]\n"},
		"network list -o table":     {0, "NAME\n"},
		"host list -o name":         {0, "192.0.2.1\n192.0.2.2\n"},
		"host list -o table":        {0, "ADDRESS     STATUS   CLUSTER   OS          LAST-CHECK                   REASON\n192.0.2.1   active   web       fedora 43   2026-11-20T14:03:00.123456   -\n192.0.2.2   failed   -         -           -                            no \ufffd[2Jway\n"},
		"host list -o table web":    {0, "ADDRESS     STATUS   CLUSTER   OS          LAST-CHECK                   REASON\n192.0.2.1   active   web       fedora 43   2026-11-20T14:03:00.123456   -\n"},
		"host list -o table none":   {exitNotFound, ""},
		"host list -o name web":     {0, "192.0.2.1\n"},
		"cluster get -o json gone":  {exitNotFound, ""},
		"cluster get -o json busy":  {exitConflict, ""},
		"cluster get -o table mine": {exitForbidden, ""},
		"cluster get -o name away":  {exitUnavailable, ""},
		"cluster get -o other web":  {exitUsage, ""},
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			a := appFor(t, server.URL)
			require.Equal(t, want.code, a.Run(t.Context(), strings.Fields(command)), a.errs.String())
			require.Equal(t, want.out, a.out.String())
			require.Equal(t, want.code == 0, a.errs.Len() == 0, a.errs.String())
		})
	}
	a := appFor(t, server.URL)
	require.Zero(t, a.Run(t.Context(), []string{"host", "list", "-o", "wide"}))
	require.Contains(t, a.out.String(), "a=1,b=2")
	require.Contains(t, a.out.String(), "no \ufffd[2Jway", "text from hosts cannot steer a terminal")
}

// A long reason is cut where a terminal ends, and nothing before it is.
func TestCutTable(t *testing.T) {
	t.Parallel()
	table := "ADDRESS     REASON\n192.0.2.1   ssh: the host does not answer 保守作業\n192.0.2.2   -"
	require.Equal(t, table, cutTable(table, "REASON", 60))
	require.Equal(t, "ADDRESS     REASON\n192.0.2.1   ssh: the host does …\n192.0.2.2   -", cutTable(table, "REASON", 32))
	require.Equal(t, "ADDRESS     REASON\n192.0.2.1   ssh: the ho…\n192.0.2.2   -", cutTable(table, "REASON", 5))
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"cluster":                             "say what to do with it",
		"host":                                "say what to do with it",
		"cluster lst":                         "did you mean get or list?",
		"cluster upgrade":                     "say what to do with it",
		"clutser list":                        "unknown command",
		"cluster get":                         "accepts 1 arg(s)",
		"cluster delete":                      "requires at least 1 arg(s)",
		"cluster list --nothing":              "unknown flag",
		"cluster create -t other web":         "must be kubernetes, host_only",
		"network create -t other web":         "must be flannel_etcd, flannel_server",
		"network create -o [] web":            "must be a JSON object",
		"container_manager create -o x kube":  "must be KEY=VALUE",
		"container_manager create -o {x kube": "must be a JSON object",
		"host get no.such.host.invalid":       "cannot be resolved",
		"host create 192.0.2.1 /no/such/file": "no such file",
		"passhash -r 3 -p x":                  "4 to 31",
		"user-data":                           "endpoint",
		"host ssh":                            "requires at least 1 arg(s)",
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			a := appFor(t, "http://127.0.0.1:1")
			require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields(command)))
			require.Empty(t, a.out.String())
			require.Regexp(t, `^usage: commctl`, a.errs.String())
			require.Contains(t, a.errs.String(), want)
		})
	}
	a := newTestApp(t)
	require.Zero(t, a.Run(t.Context(), []string{}), "help")
	require.Contains(t, a.out.String(), "Available Commands")
}
