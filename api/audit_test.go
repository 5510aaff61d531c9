package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/api/gen"
)

// auditLog reads the whole audit log, oldest first, as "who operation path status".
func (b *bundle) auditLog(t testing.TB) (lines []string) {
	t.Helper()
	var page gen.AuditPage
	require.NoError(t, json.Unmarshal([]byte(b.v0(t, "GET /audit?limit=1000", "", 200, "").body), &page))
	for _, e := range page.Entries {
		require.NotEmpty(t, e.At)
		require.NotEmpty(t, e.RequestId)
		lines = append([]string{fmt.Sprintf("%s %s %s %s %s %d", e.Principal, e.Role, e.Address, e.Operation, e.Path, e.Status)}, lines...)
	}
	return lines
}

func TestAudit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /audit", "", 200, `{"entries":[]}`)
	vera := b.as(basicCreds("vera"))
	b.v0(t, "PUT /network/n/", `{"options":{"password":"hunter2"}}`, 201, "")
	b.v0(t, "PUT /network/n", `{"type":"flannel_server"}`, 409, "")
	b.v0(t, "DELETE /network/m", "", 404, "")
	b.addHost(t, "192.0.2.1", "")
	b.v0(t, "GET /host/192.0.2.1/creds", "", 200, "")
	vera.v0(t, "GET /host/192.0.2.1/creds", "", 403, "")
	vera.v0(t, "DELETE /host/192.0.2.1", "", 403, "")
	vera.v0(t, "GET /audit", "", 403, "")
	vera.v0(t, "POST /tokens", `{"name":"x"}`, 201, "")
	vera.v0(t, "PUT /host/"+strings.Repeat("a", 5000), "", 403, "")

	// Not in it: reading, what does not fit the document, strangers, and paths that lead nowhere.
	b.v0(t, "GET /hosts", "", 200, "")
	b.v0(t, "PUT /network/n", `{"type":1}`, 400, "")
	b.v0(t, "PUT /nothing", "", 404, "")
	b.as("").v0(t, "PUT /network/n", "", 403, "")

	want := []string{
		"alice admin 127.0.0.1 putNetwork /api/v0/network/n 201",
		"alice admin 127.0.0.1 putNetwork /api/v0/network/n 409",
		"alice admin 127.0.0.1 deleteNetwork /api/v0/network/m 404",
		"alice admin 127.0.0.1 putHost /api/v0/host/192.0.2.1 201",
		"alice admin 127.0.0.1 getHostCreds /api/v0/host/192.0.2.1/creds 200",
		"vera viewer 127.0.0.1 getHostCreds /api/v0/host/192.0.2.1/creds 403",
		"vera viewer 127.0.0.1 deleteHost /api/v0/host/192.0.2.1 403",
		"vera viewer 127.0.0.1 listAudit /api/v0/audit 403",
		"vera viewer 127.0.0.1 createToken /api/v0/tokens 201",
		"vera viewer 127.0.0.1 putHost /api/v0/host/" + strings.Repeat("a", 1024-len("/api/v0/host/")) + " 403",
	}
	require.Equal(t, want, b.auditLog(t))

	page := b.v0(t, "GET /audit?principal=vera&limit=2", "", 200, "")
	require.Equal(t, 1, strings.Count(page.body, "createToken"), "newest first")
	page = b.v0(t, "GET /audit?principal=vera&limit=2&cursor="+field(t, page, "next").(string), "", 200, "")
	require.Equal(t, 1, strings.Count(page.body, "listAudit"))
	page = b.v0(t, "GET /audit?operation=putNetwork", "", 200, "")
	require.Equal(t, 2, strings.Count(page.body, "putNetwork"))
	require.Nil(t, field(t, page, "next"))
	require.Equal(t, []string{"cursor"}, blamed(t, b.v0(t, "GET /audit?cursor=x", "", 400, "")))
	require.Equal(t, []string{"limit"}, blamed(t, b.v0(t, "GET /audit?limit=0", "", 400, "")))
}

// TestAuditTellsDryRuns: nobody takes an entry for a rollout that was only asked about.
func TestAuditTellsDryRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	before := len(b.auditLog(t))
	b.v0(t, "PUT /cluster/c/restart?dry_run=true", "", 200, "")
	b.v0(t, "PUT /cluster/c/restart?dry_run=1", "", 400, "")
	b.as(basicCreds("vera")).v0(t, "PUT /cluster/c/restart?x=hunter2&dry_run=true", "", 403, "")
	b.as(basicCreds("vera")).v0(t, "PUT /cluster/c/restart?x=hunter2&dry_run=false", "", 403, "")
	b.v0(t, "PUT /cluster/c/restart?dry_run=false", "", 201, "")
	require.Equal(t, []string{
		"alice admin 127.0.0.1 restartCluster /api/v0/cluster/c/restart?dry_run=true 200",
		"vera viewer 127.0.0.1 restartCluster /api/v0/cluster/c/restart?dry_run=true 403",
		"vera viewer 127.0.0.1 restartCluster /api/v0/cluster/c/restart 403",
		"alice admin 127.0.0.1 restartCluster /api/v0/cluster/c/restart 201",
	}, b.auditLog(t)[before:])
}

// TestAuditTellsForce: a container manager that was replaced, or deleted with nodes
// cordoned there, is told from one that was put or deleted.
func TestAuditTellsForce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := len(b.auditLog(t))
	b.v0(t, "PUT /containermanager/m", `{"type":"trivial"}`, 201, "")
	b.v0(t, "PUT /containermanager/m?replace=true", `{"type":"trivial","options":{"x":"y"}}`, 201, "")
	b.v0(t, "PUT /containermanager/m?replace=false", `{"type":"trivial"}`, 409, "")
	b.as(basicCreds("vera")).v0(t, "DELETE /containermanager/m?x=hunter2&force=true", "", 403, "")
	b.v0(t, "DELETE /containermanager/m?force=true", "", 200, "")
	b.v0(t, "DELETE /containermanager/m?force=false", "", 404, "")
	require.Equal(t, []string{
		"alice admin 127.0.0.1 putContainerManager /api/v0/containermanager/m 201",
		"alice admin 127.0.0.1 putContainerManager /api/v0/containermanager/m?replace=true 201",
		"alice admin 127.0.0.1 putContainerManager /api/v0/containermanager/m 409",
		"vera viewer 127.0.0.1 deleteContainerManager /api/v0/containermanager/m?force=true 403",
		"alice admin 127.0.0.1 deleteContainerManager /api/v0/containermanager/m?force=true 200",
		"alice admin 127.0.0.1 deleteContainerManager /api/v0/containermanager/m 404",
	}, b.auditLog(t)[before:])
}

// TestAuditNamesTheToken: of several of one owner, the one that leaked can be found.
func TestAuditNamesTheToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	text, id := b.makeToken(t, `{"name":"ci"}`)
	b.makeToken(t, `{"name":"other"}`)
	b.as("Bearer "+text).v0(t, "PUT /network/n", "", 201, "")
	host, made := b.makeJoinToken(t, "")
	host.v0(t, "GET /hosts", "", 403, "")
	var page gen.AuditPage
	require.NoError(t, json.Unmarshal([]byte(b.v0(t, "GET /audit", "", 200, "").body), &page))
	tokens, subjects := map[string]string{}, map[string]string{}
	for _, e := range page.Entries {
		tokens[e.Operation], subjects[e.Operation] = e.Token, e.Subject
	}
	require.Equal(t, field(t, made, "id"), subjects["createJoinToken"], "what was made")
	require.Equal(t, map[string]string{"createToken": "", "putNetwork": id, "createJoinToken": "", "listHosts": field(t, made, "id").(string)}, tokens)
}

// TestNothingIsDoneThatCannotBeAudited: also no secret is given away.
func TestNothingIsDoneThatCannotBeAudited(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.addHost(t, "192.0.2.1", "")
	b.exec(t, "ALTER TABLE audit ADD CONSTRAINT no_more CHECK (principal <> 'alice') NOT VALID")
	before := b.rows(t)
	for _, request := range []string{"PUT /cluster/web", "GET /host/192.0.2.1/creds", "DELETE /host/192.0.2.1", "POST /tokens"} {
		body := ""
		if request == "POST /tokens" {
			body = `{"name":"x"}`
		}
		a := b.v0(t, request, body, 503, "")
		require.Contains(t, field(t, a, "detail"), "audit log", request)
	}
	require.Equal(t, before, b.rows(t))
	b.v0(t, "GET /host/192.0.2.1", "", 200, "")
	metrics := b.open(t, "/metrics").body
	require.Contains(t, metrics, `commissaire_audit_failures_total{write="begin"} 4`)
	require.Contains(t, metrics, `commissaire_audit_failures_total{write="end"} 0`)
}

// TestEndsThatCannotBeAudited: what is done is done, and somebody is told.
func TestEndsThatCannotBeAudited(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, "ALTER TABLE audit ADD CONSTRAINT no_end CHECK (status = 0) NOT VALID")
	b.v0(t, "PUT /network/n", "", 201, "")
	metrics := b.open(t, "/metrics").body
	require.Contains(t, metrics, `commissaire_audit_failures_total{write="begin"} 0`)
	require.Contains(t, metrics, `commissaire_audit_failures_total{write="end"} 1`)
}

func TestOperationsInTheAuditLog(t *testing.T) {
	t.Parallel()
	for where, e := range mustLoad(document) {
		require.Equal(t, !strings.HasPrefix(where, http.MethodGet) || e.id == "getHostCreds", e.audited(), where)
	}
}
