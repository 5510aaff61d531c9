package api

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/privatepg"
	"commissaire/internal/privatepg/pgtest"
)

// open sends a request without credentials.
func (b *bundle) open(t *testing.T, path string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+path, nil)
	require.NoError(t, err)
	return b.send(t, r)
}

func TestServicePages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.JSONEq(t, `{"status":"ok"}`, b.open(t, "/healthz").body)
	require.JSONEq(t, `{"status":"ok"}`, b.open(t, "/livez").body)
	require.JSONEq(t, `{"version":"1.2.3","commit":"abc","built":"2026-11-20T00:00:00Z","go":"go1.26"}`, b.open(t, "/version").body)
	var ready answer // a check has 2 s, which may be over on a busy machine
	require.Eventually(t, func() bool {
		ready = b.open(t, "/readyz")
		return ready.status == 200
	}, time.Minute, 50*time.Millisecond)
	require.Contains(t, ready.body, `"name":"postgres","ok":true`)
	require.Contains(t, ready.body, `"name":"temporal","ok":true`)
	root := b.open(t, "/")
	require.Equal(t, 302, root.status)
	require.Equal(t, "/docs", root.header.Get("Location"))
	require.Equal(t, string(document), b.open(t, "/openapi.yaml").body)
	problem := b.open(t, "/docs/problems/not-ready")
	require.Equal(t, 200, problem.status)
	require.Contains(t, problem.body, "active or disassociated")
	require.Equal(t, 404, b.open(t, "/docs/problems/nothing").status)
}

func TestReadinessHasADeadline(t *testing.T) {
	t.Parallel()
	h := &handlers{Deps: Deps{Logger: discard}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	result := h.check(ctx, Check{"hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	require.False(t, result.Ok)
	require.NotEmpty(t, result.Detail)
}

func TestMetricsNameNoHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /host/secret-host", "", 404, "")
	b.v0(t, "GET /clusters", "", 200, "")
	b.do(t, "GET", "/nowhere", "")
	a := b.open(t, "/metrics")
	require.Equal(t, 200, a.status)
	require.Contains(t, a.body, `commissaire_http_requests_total{operation="getHost",status="404"} 1`)
	require.Contains(t, a.body, `commissaire_http_requests_total{operation="listClusters",status="200"} 1`)
	require.Contains(t, a.body, `commissaire_http_requests_total{operation="none",status="404"} 1`)
	require.Contains(t, a.body, `commissaire_http_request_duration_seconds_count{operation="getHost"} 1`)
	require.NotContains(t, a.body, "secret-host")
}

var reference = regexp.MustCompile(`(?:src|href)="([^"]*)"`)

func TestDocsNeedNoOtherServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	page := b.open(t, "/docs")
	require.Equal(t, 200, page.status)
	require.Contains(t, page.header.Get("Content-Type"), "text/html")
	require.Contains(t, page.header.Get("Content-Security-Policy"), "default-src 'self'", "the browser refuses other servers")
	require.NotContains(t, page.body, "https://unpkg.com")
	found := reference.FindAllStringSubmatch(page.body, -1)
	require.GreaterOrEqual(t, len(found), 3)
	for _, f := range found {
		require.True(t, strings.HasPrefix(f[1], "/docs/"), f[1])
		a := b.open(t, f[1])
		require.Equal(t, 200, a.status, f[1])
		require.NotEmpty(t, a.body, f[1])
	}
	require.Equal(t, 404, b.open(t, "/docs/nothing.js").status)
}

func TestPostgresIsDown(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	b := setupOn(t, cluster.DSN)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	key := key64(t)
	b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`"}`, 201, "")
	starts := b.dispatcher.starts()
	cluster.Down(t, privatepg.Immediate)
	for request, body := range map[string]string{
		"GET /clusters": "", "GET /cluster/c": "", "PUT /cluster/d": "", "DELETE /cluster/c": "", "GET /cluster/c/hosts": "",
		"PUT /cluster/c/hosts": `{"old":[],"new":[]}`, "PUT /cluster/c/hosts/h": "", "DELETE /cluster/c/hosts/h": "",
		"PUT /cluster/c/restart": "", "GET /cluster/c/restart": "", "GET /hosts": "", "GET /host/h": "", "DELETE /host/h": "",
		"PUT /host/h": `{"ssh_priv_key":"` + key + `"}`, "PUT /host/i": `{"ssh_priv_key":"` + key + `"}`, "GET /host/h/creds": "",
		"GET /networks": "", "PUT /network/n": "", "GET /operations": "",
	} {
		a := b.v0(t, request, body, 503, "")
		require.NotEmpty(t, a.header.Get("Retry-After"), request)
		var p struct{ Detail string }
		require.NoError(t, json.Unmarshal([]byte(a.body), &p))
		require.NotContains(t, p.Detail, os.TempDir(), "causes are for the log")
	}
	require.Equal(t, starts, b.dispatcher.starts())
	require.Equal(t, 503, b.open(t, "/readyz").status)
	require.Equal(t, 200, b.open(t, "/healthz").status)
	cluster.Up(t)
	require.Eventually(t, func() bool { return b.do(t, "GET", "/api/v0/clusters", "").status == 200 }, time.Minute, 50*time.Millisecond)
}
