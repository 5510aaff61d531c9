package commctl

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Names and addresses that nothing can have are refused before anything is sent: the
// server would answer as to a name that just is not there.
func TestImpossibleNames(t *testing.T) {
	t.Parallel()
	server := newStub(t, nil)
	const charset = "must be letters, digits, '-' and '_'"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"cluster", "create", "a b"}, `commctl: error: name "a b": ` + charset + "\n"},
		{[]string{"cluster", "create", ""}, `commctl: error: name "": must not be empty` + "\n"},
		{[]string{"cluster", "create", "../x"}, `name "../x": ` + charset},
		{[]string{"cluster", "create", strings.Repeat("x", 300)}, `xxx…": must not be longer than 128 characters`},
		{[]string{"network", "create", "a b"}, charset},
		{[]string{"container_manager", "create", "a\x1b[2J"}, `name "a\x1b[2J": ` + charset},
		{[]string{"cluster", "delete", "web", "a/b"}, `name "a/b": `},
		{[]string{"cluster", "get", "a/b?c"}, charset},
		{[]string{"cluster", "upgrade", "start", "web.example"}, charset},
		{[]string{"cluster", "deploy", "start", "a b", "7.4"}, charset},
		{[]string{"cluster", "restart", "status", "a b"}, charset},
		{[]string{"cluster", "policy", "set", "a b", "--reboot", "never"}, charset},
		{[]string{"network", "get", "ü"}, charset},
		{[]string{"container_manager", "delete", "a:b"}, charset},
		{[]string{"host", "list", "a b"}, charset},
		{[]string{"host", "join", "192.0.2.1", "a b"}, charset},
		{[]string{"host", "get", "a b"}, `host "a b": must be an IP literal or a host name`},
		{[]string{"host", "get", ""}, `host "": must not be empty`},
		{[]string{"host", "delete", "--no-resolve", "../x"}, `host "../x": `},
		{[]string{"host", "ssh", "root@192.0.2.1"}, "must be an IP literal or a host name"},
		{[]string{"host", "trust", "192.0.2.1:2222"}, "host create --port"},
		{[]string{"host", "labels", "get", "010.0.0.1"}, "ends in a number but is no IPv4 literal"},
	} {
		a := appFor(t, server.URL)
		require.Equal(t, exitUsage, a.Run(t.Context(), c.args), c.args)
		require.Empty(t, a.out.String(), c.args)
		require.Contains(t, a.errs.String(), c.want, c.args)
		require.Contains(t, a.errs.String(), "usage: commctl ", c.args)
	}
	require.Empty(t, server.lines())
}

// Another web server does not say that all went well.
func TestAnswersOfOtherServers(t *testing.T) {
	t.Parallel()
	for command, line := range map[string]string{
		"cluster create web": "PUT /api/v0/cluster/web", "cluster list": "GET /api/v0/clusters", "cluster list -o table": "GET /api/v0/clusters",
		"cluster delete web": "DELETE /api/v0/cluster/web", "cluster restart start web": "PUT /api/v0/cluster/web/restart",
		"cluster restart start -o name web": "PUT /api/v0/cluster/web/restart", "host ssh 192.0.2.1": "GET /api/v0/host/192.0.2.1",
	} {
		for _, page := range []reply{{200, "<!doctype html>"}, {201, "It works"}, {200, `{"a": 1} and more`}} {
			server := newStub(t, map[string]reply{line: page})
			a := appFor(t, server.URL)
			require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields(command)), command)
			require.Empty(t, a.out.String(), command)
			require.Equal(t, "commctl: error: "+server.URL+" does not answer as Commissaire does; is the endpoint right?\n", a.errs.String(), command)
		}
	}
}
