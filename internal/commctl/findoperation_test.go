package commctl

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Who says less than an id gets the one operation that is meant, or is told why not.
func TestFindOperation(t *testing.T) {
	t.Parallel()
	const one, two, of = "019af0c4-5b1e-7c3a-9f00-000000000001", "019af0c4-5b1e-7c3a-9f00-000000000002", "019af0c4-5b1e-7c3a-9f00-000000000003"
	op := func(id, cluster, state string) string {
		return `{"id":"` + id + `","kind":"upgrade","cluster":"` + cluster + `","state":"` + state + `"}`
	}
	command := func(id, cluster, state string) string {
		return strings.Replace(op(id, cluster, state), "upgrade", "command", 1)
	}
	page := func(ops ...string) reply { return reply{200, `{"operations":[` + strings.Join(ops, ",") + `]}`} }
	latest := func(name string) string { return "GET /api/v0/operations?cluster=" + name + "&limit=1" }
	inState := func(name, state string) string {
		return "GET /api/v0/operations?cluster=" + name + "&state=" + state + "&limit=200"
	}
	between := func(since, until string) string {
		return "GET /api/v0/operations?since=" + url.QueryEscape(since) + "&until=" + url.QueryEscape(until) + "&limit=200"
	}
	// 2025-12-05T23:06:08Z is 0x019af0c40000 ms; ten minutes are added at both ends.
	minute := between("2025-12-05T22:56:08Z", "2025-12-05T23:17:13Z")
	moment := between("2025-12-05T22:56:31Z", "2025-12-05T23:16:31Z")
	replies := map[string]reply{
		inState("web", "running"):      page(op(one, "web", "running")),
		latest("db"):                   page(op(two, "db", "failed")),
		inState("019af0c4", "pending"): page(op(of, "019af0c4", "pending")),
		// A command was begun after the rollout.
		inState("both", "pending"): page(command(two, "both", "pending")),
		inState("both", "running"): page(op(one, "both", "running")),
		// It begins while we ask.
		inState("begins", "pending"): page(command(one, "begins", "pending")),
		inState("begins", "running"): page(command(one, "begins", "running")),
		inState("many", "pending"):   page(command(two, "many", "pending")),
		inState("many", "running"):   page(command(one, "many", "running")),
		minute:                       page(op(two, "web", "failed")),
		moment:                       {200, `{"operations":[` + op(one, "web", "failed") + `],"next":"n"}`},
		strings.Replace(moment, "&limit", "&cursor=n&limit", 1): page(op(two, "web", "failed")),
		"GET /api/v0/operations/" + one:                         {200, op(one, "web", "running")},
		"GET /api/v0/operations/" + two:                         {200, op(two, "db", "failed")},
	}
	for _, name := range []string{"web", "db", "both", "begins", "many", "none", "019af0c4", "019af0c4-5b1e", "019af0c4-5b1e-7c3a-9f0", "019af0c4-5b1e-7c3a-9f0f", "019af0c"} {
		for _, request := range []string{inState(name, "pending"), inState(name, "running"), latest(name)} {
			if _, given := replies[request]; !given {
				replies[request] = page()
			}
		}
	}
	server := newStub(t, replies)
	for text, want := range map[string]struct {
		code      int
		out, errs string
	}{
		one:                       {0, one + "\n", ""},
		strings.ToUpper(one):      {0, one + "\n", ""},
		"web":                     {0, one + "\n", "Operation " + one + ": upgrade of web, running\n"},
		"db":                      {0, two + "\n", "Operation " + two + ": upgrade of db, failed\n"},
		"both":                    {0, one + "\n", "Operation " + one + ": upgrade of both, running\n"},
		"begins":                  {0, one + "\n", "Operation " + one + ": command of begins, "},
		"many":                    {exitConflict, "", "many may be " + two + " (command of many) or " + one + " (command of many); say more of the id"},
		"019af0c4":                {exitConflict, "", "019af0c4 may be " + of + " (upgrade of 019af0c4) or " + two + " (upgrade of web)"},
		"019af0c4-5b1e":           {exitConflict, "", " may be " + one + " (upgrade of web) or " + two},
		"019af0c4-5b1e-7c3a-9f0f": {exitNotFound, "", "no operation of a cluster 019af0c4-5b1e-7c3a-9f0f, and none whose id begins so"},
		"019af0c":                 {exitNotFound, "", "with eight digits or more"},
		"none":                    {exitNotFound, "", "no operation of a cluster none"},
		"we/b":                    {exitUsage, "", "OPERATION must be the name of a cluster"},
	} {
		a := appFor(t, server.URL)
		require.Equal(t, want.code, a.Run(t.Context(), []string{"operations", "get", "-o", "name", text}), "%s: %s %s", text, a.errs, server.lines())
		require.Equal(t, want.out, a.out.String())
		require.Contains(t, a.errs.String(), want.errs)
	}
}
