package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUnknownQueryParameters: v0 merged the query into the request and let
// _method change what a GET does; here it is refused on every operation.
func TestUnknownQueryParameters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /network/n", "", 201, "")
	for path, item := range b.doc.Paths.Map() {
		path = filled(path)
		for method := range item.Operations() {
			for query, blame := range map[string]string{
				"_method=DELETE": "_method", "name=o": "name", "Limit=1": "Limit", "x": "x", "a;b=1": "query", "%zz=1": "query",
			} {
				a := b.do(t, method, path+"?"+query, "")
				require.Equal(t, 400, a.status, "%s %s?%s: %s", method, path, query, a.body)
				require.Equal(t, []string{blame}, blamed(t, a), "%s %s?%s", method, path, query)
			}
		}
	}
	b.v0(t, "GET /network/n", "", 200, "")
	b.v0(t, "GET /network/n?", "", 200, "")
	a := b.v0(t, "GET /operations?limit=1&colour=red", "", 400, "")
	require.Equal(t, []string{"colour"}, blamed(t, a))
	b.v0(t, "GET /operations?limit=1", "", 200, "")
}

// filled puts names of nothing into a path of the document.
func filled(path string) string {
	return strings.NewReplacer("{name}", "nothing", "{address}", "nobody", "{id}", "019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d",
		"{token}", "k3v9q2m4x7c1b8n0", "{step}", "prepare", "{file}", "nothing", "{type}", "nothing").Replace(path)
}

// TestSlashAtTheEnd of every path changes nothing.
func TestSlashAtTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for path, item := range b.doc.Paths.Map() {
		if path == "/" {
			continue
		}
		for method := range item.Operations() {
			without := b.do(t, method, filled(path), `{"unknown":1}`)
			with := b.do(t, method, filled(path)+"/", `{"unknown":1}`)
			if path == "/readyz" { // a busy machine may give the one answer in time and not the other
				require.Contains(t, []int{200, 503}, with.status)
				continue
			}
			require.Equal(t, without.status, with.status, "%s %s", method, path)
			if strings.HasPrefix(path, "/api/") {
				require.NotContains(t, with.body, "there is no such path", "%s %s", method, path)
			}
		}
	}
}

// TestPathsThatNameNothing: the answer says what is allowed.
func TestPathsThatNameNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for request, want := range map[string][2]string{
		"PUT /cluster/my%20cluster":                        {"name", "letters, digits, '-' and '_'"},
		"PUT /network/" + strings.Repeat("a", 129):         {"name", "longer than 128 characters"},
		"GET /host/192.0.2.1:2222":                         {"address", "give the SSH port in the member port"},
		"PUT /host/a%20b":                                  {"address", "letters, digits, '-', '_' and '.'"},
		"GET /host/010.0.0.1":                              {"address", "without leading zeros"},
		"PUT /cluster/c/hosts/a;b":                         {"address", "host name of letters"},
		"GET /operations/7":                                {"id", "must match ^[0-9a-f]{8}-"},
		"GET /host/" + strings.Repeat("a", 300) + "/creds": {"address", "longer than 253 characters"},
	} {
		a := b.v0(t, request, "", 404, "")
		require.Equal(t, []string{want[0]}, blamed(t, a), request)
		require.Contains(t, field(t, a, "detail"), want[1], request)
		require.True(t, slices.Contains(strings.Fields(field(t, a, "detail").(string)), want[0]), request)
		require.Contains(t, a.body[strings.Index(a.body, `"errors"`):], want[1], request)
	}
}
