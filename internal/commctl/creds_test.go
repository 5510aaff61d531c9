package commctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A private key is printed when it is asked for by name, and never otherwise.
func TestHostCreds(t *testing.T) {
	t.Parallel()
	const path = "/api/v0/host/192.0.2.1/creds"
	server := newStub(t, map[string]reply{
		"GET " + path: {200, `{"address":"192.0.2.1","ssh_priv_key":"UFJJVkFURQpLRVkK","remote_user":"cloud"}`},
		"PUT " + path: {201, `{"address":"192.0.2.1","remote_user":"cloud"}`},
	})
	for command, want := range map[string]string{
		"get 192.0.2.1":                    "HOST        USER\n192.0.2.1   cloud\n",
		"get -o name 192.0.2.1":            "cloud\n",
		"get -o name --show-key 192.0.2.1": "cloud\n",
		"get -o yaml 192.0.2.1":            "address: 192.0.2.1\nremote_user: cloud\n",
		"get --show-key 192.0.2.1":         "PRIVATE\nKEY\n",
		"get --show-key -o yaml 192.0.2.1": "address: 192.0.2.1\nremote_user: cloud\nssh_priv_key: UFJJVkFURQpLRVkK\n",
	} {
		a := appFor(t, server.URL)
		require.Zero(t, a.Run(t.Context(), strings.Fields("host creds "+command)), a.errs.String())
		require.Equal(t, want, a.out.String(), command)
		require.NotContains(t, a.errs.String(), "KEY")
	}
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("PRIVATE\nKEY\n"), 0o600))
	for command, body := range map[string]string{
		"set 192.0.2.1 " + key:                     `{"ssh_priv_key":"UFJJVkFURQpLRVkK"}`,
		"set --remote-user cloud 192.0.2.1 " + key: `{"ssh_priv_key":"UFJJVkFURQpLRVkK","remote_user":"cloud"}`,
		"set 192.0.2.1 -":                          `{"ssh_priv_key":"U1RESU4="}`,
	} {
		a := appFor(t, server.URL)
		a.In = strings.NewReader("STDIN")
		require.Zero(t, a.Run(t.Context(), strings.Fields("host creds "+command)), a.errs.String())
		require.Equal(t, "HOST        USER\n192.0.2.1   cloud\n", a.out.String())
		last := server.requests()[len(server.requests())-1]
		require.Equal(t, "PUT "+path, last.line)
		require.JSONEq(t, body, last.body)
	}
	a := appFor(t, server.URL)
	require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields("host creds set 192.0.2.1 /no/such/file")))
	require.Contains(t, a.errs.String(), "SSH-PRIV-KEY: ")
}

// What to do next depends on why hosts failed.
func TestNextAfterFailures(t *testing.T) {
	t.Parallel()
	op := "/api/v0/operations/" + testID
	const refused, raw, plain = "step check: auth-refused: the host refuses the stored credentials", "step check: the host's key is not pinned; bootstrap it first", "step check: no"
	for name, c := range map[string]struct {
		reasons []string
		host    reply // of the first
		kind    string
		next    []string
	}{
		"credentials":        {[]string{refused}, reply{200, `{"status":"failed","host_key_fingerprint":"SHA256:x"}`}, "upgrade", []string{"host creds set 192.0.2.10 SSH-PRIV-KEY", "operations retry " + testID}},
		"bootstrap":          {[]string{refused}, notFound, "bootstrap", []string{"host creds set 192.0.2.10 SSH-PRIV-KEY", "host bootstrap start 192.0.2.10"}},
		"no key":             {[]string{raw, raw}, notFound, "upgrade", []string{"host bootstrap start 192.0.2.10", "host bootstrap start 192.0.2.11"}},
		"some without a key": {[]string{raw, plain}, notFound, "upgrade", []string{"host bootstrap start 192.0.2.10", "operations retry " + testID}},
		"never bootstrapped": {[]string{plain}, reply{200, `{"status":"investigating"}`}, "restart", []string{"host bootstrap start 192.0.2.10"}},
		"a broken host":      {[]string{plain}, reply{200, `{"status":"failed","host_key_fingerprint":"SHA256:x"}`}, "restart", []string{"operations retry " + testID}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			where := `"cluster":"web"`
			if c.kind == "bootstrap" {
				where = `"host":"192.0.2.10"`
			}
			replies := map[string]reply{
				"GET " + op:                   {200, `{"id":"` + testID + `","kind":"` + c.kind + `","state":"failed",` + where + `}`},
				"GET /api/v0/host/192.0.2.10": c.host,
			}
			var hosts []string
			for i, reason := range c.reasons {
				address := "192.0.2.1" + string(rune('0'+i))
				hosts = append(hosts, `{"address":"`+address+`","state":"failed","reason":"`+reason+`"}`)
				replies["GET "+op+"/steps?host="+address+"&limit=1000"] = reply{200, `{"steps":[]}`}
			}
			replies["GET "+op+"/hosts?state=failed&limit=1000"] = reply{200, `{"hosts":[` + strings.Join(hosts, ",") + `]}`}
			a := appFor(t, newStub(t, replies).URL)
			require.Zero(t, a.Run(t.Context(), []string{"operations", "get", testID}), a.errs.String())
			_, next, _ := strings.Cut(a.out.String(), "\nNext:\n")
			require.Equal(t, "  commctl "+strings.Join(c.next, "\n  commctl ")+"\n", next)
		})
	}
}
