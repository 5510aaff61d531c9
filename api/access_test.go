package api

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/authz"
	"commissaire/internal/fleet"
)

// leastRole says by other words than the table of authz who may use an operation.
func leastRole(method, path, operation string) fleet.Role {
	switch {
	case operation == "getHostCreds" || operation == "listAudit" || operation == "runCommand":
		return fleet.RoleAdmin
	case strings.HasPrefix(path, "/api/v0/containermanager/") && method != http.MethodGet:
		return fleet.RoleAdmin
	case strings.HasPrefix(path, "/api/v0/tokens"), method == http.MethodGet:
		return fleet.RoleViewer
	}
	return fleet.RoleOperator
}

// TestEveryOperationAndRole asks for every operation of the document as everybody.
// What is asked for does not exist, so who is let in gets another refusal.
func TestEveryOperationAndRole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	limited := "Bearer " + field(t, b.v0(t, "POST /tokens", `{"name":"limited","operations":["getHost","putNetwork"]}`, 201, ""), "token").(string)
	weak := "Bearer " + field(t, b.v0(t, "POST /tokens", `{"name":"weak","role":"viewer"}`, 201, ""), "token").(string)
	join := "Bearer " + field(t, b.v0(t, "POST /jointokens", "", 201, ""), "token").(string)
	checked := 0
	for path, item := range b.doc.Paths.Map() {
		for method, op := range item.Operations() {
			where := op.OperationID
			for name, caller := range map[string]struct {
				creds   string
				allowed bool
			}{
				"nobody":        {"", false},
				"viewer":        {basicCreds("vera"), fleet.RoleViewer.Covers(leastRole(method, path, where))},
				"operator":      {basicCreds("olga"), fleet.RoleOperator.Covers(leastRole(method, path, where))},
				"admin":         {basicCreds("alice"), true},
				"viewer token":  {weak, fleet.RoleViewer.Covers(leastRole(method, path, where))},
				"limited token": {limited, where == "getHost" || where == "putNetwork"},
				"join token":    {join, where == "registerHost"},
			} {
				r, err := http.NewRequestWithContext(t.Context(), method, b.url+filled(path), strings.NewReader(`{"unknown":1}`))
				require.NoError(t, err)
				r.Header.Set("Authorization", caller.creds)
				allowed := caller.allowed || op.Security != nil
				require.Equal(t, allowed, b.send(t, r).status != 403, "%s by %s", where, name)
				checked++
			}
			if op.Security == nil {
				require.True(t, authz.Known(where), "%s has no row in the table of authz", where)
			}
		}
	}
	t.Logf("%d requests", checked)
}

func TestTheTableHasNoOtherOperations(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for _, e := range mustLoad(document) {
		documented[e.id] = true
	}
	require.Equal(t, slices.Sorted(maps.Keys(documented)), authz.Operations())
}

func TestARefusalByRoleSaysWhatItTakes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for creds, want := range map[string]string{
		basicCreds("vera"): "this needs role admin; you are vera with role viewer",
		basicCreds("olga"): "this needs role admin; you are olga with role operator",
		"Basic !":          "valid credentials are needed",
	} {
		a := b.as(creds).v0(t, "GET /host/nobody/creds", "", 403, "")
		require.Equal(t, want, field(t, a, "detail"))
	}
	b.as(basicCreds("vera")).v0(t, "GET /nothing", "", 404, "")
}

// TestPagesOfOtherSites cannot make a browser change something here.
func TestPagesOfOtherSites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, test := range []struct {
		method, header, value string
		status                int
	}{
		{"POST", "Sec-Fetch-Site", "cross-site", 403},
		{"PUT", "Sec-Fetch-Site", "same-site", 403},
		{"PUT", "Origin", "https://example.com", 403},
		{"PUT", "Origin", b.url, 201},
		{"PUT", "Sec-Fetch-Site", "same-origin", 201},
		{"GET", "Sec-Fetch-Site", "cross-site", 200},
	} {
		path := "/api/v0/network/default"
		if test.method == "POST" {
			path = "/api/v0/jointokens"
		}
		r := b.request(t, test.method, path, "")
		r.Header.Set(test.header, test.value)
		require.Equal(t, test.status, b.send(t, r).status, "%+v", test)
	}
}

func TestWhoami(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /whoami", "", 200, `{"name":"alice","method":"httpbasicauth","role":"admin","address":"127.0.0.1"}`)
	b.as(basicCreds("vera")).v0(t, "GET /whoami/", "", 200, `{"name":"vera","method":"httpbasicauth","role":"viewer","address":"127.0.0.1"}`)
	made := b.v0(t, "POST /tokens", `{"name":"ci","role":"operator"}`, 201, "")
	b.as("Bearer "+field(t, made, "token").(string)).v0(t, "GET /whoami", "", 200, `{"name":"alice","method":"apitoken","role":"operator","address":"127.0.0.1"}`)
}

// loopbackIsAProxy lets a test ask from any address.
func loopbackIsAProxy(d *Deps) {
	d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// from sends a GET of /whoami as a proxy would for a caller.
func (b *bundle) from(t *testing.T, caller, creds string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/api/v0/whoami", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", creds)
	r.Header.Set("X-Forwarded-For", caller)
	return b.send(t, r)
}

// TestGuessing: who guesses is told to wait, and nobody else.
func TestGuessing(t *testing.T) {
	t.Parallel()
	b := setup(t, loopbackIsAProxy)
	const wrong = "Basic dmVyYTp3cm9uZw==" // vera:wrong
	require.Eventually(t, func() bool { return b.from(t, "192.0.2.66", wrong).status == 429 }, time.Minute, time.Millisecond)
	a := b.from(t, "192.0.2.66", wrong)
	require.Equal(t, 429, a.status)
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, wait)
	require.Equal(t, 429, b.from(t, "192.0.2.66", basicCreds("vera")).status, "a lucky guess is not told")
	require.Equal(t, 200, b.from(t, "192.0.2.7", basicCreds("vera")).status, "the user elsewhere is not locked out")
	require.Equal(t, 200, b.from(t, "192.0.2.7", basicCreds("olga")).status)
	require.Equal(t, 403, b.from(t, "192.0.2.66", "").status, "no guess")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/healthz", nil)
	require.NoError(t, err)
	require.Equal(t, 200, b.send(t, r).status)
}

func TestSelfAuths(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps) {
		d.SelfAuths = []string{"/api/v0/clusters", "/api/v0/secrets", "/api/v0/host", "/api/v0/host/192.0.2.1/creds", "/api/v0/whoami", "/api/v0/tokens"}
	})
	b.addHost(t, "192.0.2.1", "")
	for _, creds := range []string{"", "Basic !", "Basic Tm9uZTpOb25l"} {
		anybody := b.as(creds)
		anybody.v0(t, "GET /clusters", "", 200, "[]")
		anybody.v0(t, "GET /clusters/", "", 403, "")
		anybody.v0(t, "GET /clusters/x", "", 403, "")
		anybody.v0(t, "GET /hosts", "", 403, "")
		anybody.v0(t, "GET /secrets", "", 404, "")
		anybody.v0(t, "GET /whoami", "", 200, `{"name":"anonymous","method":"self-auths","role":"operator","address":"127.0.0.1"}`)
		a := anybody.v0(t, "GET /host/192.0.2.1/creds", "", 403, "")
		require.Contains(t, field(t, a, "detail"), "role admin")
		a = anybody.v0(t, "POST /tokens", `{"name":"mine"}`, 403, "")
		require.Contains(t, field(t, a, "detail"), "self-auths")
		anybody.v0(t, "GET /tokens", "", 200, "[]")
	}
	b.as("").v0(t, "PUT /host", `{"ssh_priv_key":"`+key64(t)+`"}`, 201, "")

	// Credentials that hold count there, too.
	b.v0(t, "GET /host/192.0.2.1/creds", "", 200, "")
	b.as(basicCreds("vera")).v0(t, "PUT /host", `{"ssh_priv_key":"`+key64(t)+`"}`, 403, "")
}
