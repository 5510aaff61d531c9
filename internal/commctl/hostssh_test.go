package commctl

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/remote/remotetest"
)

func TestSplitSSH(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][2]string{
		"":                            {"", ""},
		"-v":                          {"-v", ""},
		"-p 2222 -v":                  {"-p 2222 -v", ""},
		"-vp 2222 uptime":             {"-vp 2222", "uptime"},
		"-p2222 uptime -p":            {"-p2222", "uptime -p"},
		"-o User=x -L 1:h:2 ls -la /": {"-o User=x -L 1:h:2", "ls -la /"},
		"-- -x":                       {"", "-x"},
		"-v -- ls":                    {"-v", "ls"},
		"ls":                          {"", "ls"},
		"-tt sh":                      {"-tt", "sh"},
		"- x":                         {"", "- x"},
	} {
		options, command, err := splitSSH(strings.Fields(line))
		require.NoError(t, err, line)
		require.Equal(t, want, [2]string{strings.Join(options, " "), strings.Join(command, " ")}, line)
	}
	_, _, err := splitSSH([]string{"-v", "-p"})
	require.ErrorContains(t, err, "needs a value")
	for options, want := range map[string]bool{"-p 1": true, "-p1": true, "-vp 1": true, "-v": false, "-o p": false, "-op": false, "-i -p": false, "-4 -F f -p 1": true} {
		require.Equal(t, want, sets(strings.Fields(options), 'p'), options)
	}
}

// The real ssh logs in to a real sshd with what the server keeps.
func TestHostSSH(t *testing.T) {
	t.Parallel()
	fleet := remotetest.New(t, 1)
	host := fleet.Hosts()[0]
	path := "GET /api/v0/host/" + host.Address()
	creds, err := json.Marshal(map[string]string{"address": host.Address(), "remote_user": host.User(), "ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(strings.TrimSpace(fleet.ClientKey())))})
	require.NoError(t, err)
	record := `{"address":"` + host.Address() + `","port":` + strconv.Itoa(host.Port()) + `}`
	server := newStub(t, map[string]reply{path: {200, record}, path + "/creds": {200, string(creds)}})
	known := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(known, []byte("["+host.Address()+"]:"+strconv.Itoa(host.Port())+" "+host.HostKey()+"\n"), 0o600))
	options := []string{"-F", "none", "-o", "UserKnownHostsFile=" + known, "-o", "BatchMode=yes"}
	ssh := func(stdin string, args ...string) (*testApp, int) {
		a := appFor(t, server.URL)
		a.In = strings.NewReader(stdin)
		return a, a.Run(t.Context(), append([]string{"host", "ssh"}, args...))
	}
	removed := func(text string) {
		t.Helper()
		file := regexp.MustCompile(`ssh -i (\S+) -l `).FindStringSubmatch(text)
		require.NotNil(t, file, text)
		require.NoFileExists(t, file[1])
	}

	a, code := ssh("", append(append([]string{host.Address()}, options...), "echo", "out;", "echo err >&2;", "exit 7")...)
	require.Equal(t, 7, code, a.errs.String())
	require.Equal(t, "out\n", a.out.String(), "nothing but what the command prints")
	require.Contains(t, a.errs.String(), "err\n")
	require.Contains(t, a.errs.String(), "-p "+strconv.Itoa(host.Port())+" -F none")
	require.Contains(t, a.errs.String(), " -o IdentitiesOnly=yes "+host.Address()+" -- echo", "keys of an agent are not tried")
	removed(a.errs.String())

	a, code = ssh("", append(append([]string{host.Address()}, options...), "--", "true")...)
	require.Zero(t, code, a.errs.String())

	a, code = ssh("", append(append([]string{"-v", "-p", "1", host.Address()}, options...), "true")...)
	require.Equal(t, 255, code)
	require.Contains(t, a.errs.String(), "debug1:")
	require.Contains(t, a.errs.String(), "-l "+host.User()+" -p 1 -v -F none", "a port that is given counts")

	// Without a command it is as old clients know it.
	a, code = ssh("echo from the shell\nexit 3\n", append([]string{host.Address()}, options...)...)
	require.Zero(t, code)
	require.Regexp(t, `^ssh -i \S+ -l `+regexp.QuoteMeta(host.User())+` .* `+regexp.QuoteMeta(host.Address())+`\n`, a.out.String())
	require.Contains(t, a.out.String(), "from the shell\n")
	require.True(t, strings.HasSuffix(a.out.String(), "Removed temporary ssh key\nNone\n"), a.out.String())
	removed(a.out.String())

	// With the key that the server has pinned nobody is asked, and no other is taken.
	other := remotetest.New(t, 1).Hosts()[0].HostKey()
	for key, want := range map[string]int{host.HostKey(): 0, other: 255} {
		text, err := json.Marshal(map[string]string{"key": key})
		require.NoError(t, err)
		pinned := newStub(t, map[string]reply{path: {200, record}, path + "/creds": {200, string(creds)}, path + "/hostkey": {200, string(text)}})
		a := appFor(t, pinned.URL)
		require.Equal(t, want, a.Run(t.Context(), []string{"host", "ssh", host.Address(), "-F", "none", "echo", "in"}), a.errs.String())
		require.Equal(t, want == 0, a.out.String() == "in\n", a.errs.String())
		file := regexp.MustCompile(`UserKnownHostsFile="(\S+)"`).FindStringSubmatch(a.errs.String())
		require.NotNil(t, file, a.errs.String())
		require.NoFileExists(t, file[1])
		removed(a.errs.String())

		a = appFor(t, pinned.URL)
		require.Zero(t, a.Run(t.Context(), append(append([]string{"host", "ssh", host.Address()}, options...), "true")), a.errs.String())
		require.NotContains(t, a.errs.String(), "StrictHostKeyChecking", "a file of the user's own counts alone")
	}

	a, code = ssh("", "192.0.2.99")
	require.Equal(t, exitUsage, code)
	require.Contains(t, a.errs.String(), "Unable to GET the object at /api/v0/host/192.0.2.99: 404")
}

// A host behind a bastion is reached through it, which has a user, port, key and host key of
// its own. The name of the host means nothing here.
func TestHostSSHThroughBastion(t *testing.T) {
	t.Parallel()
	text := func(v any) reply {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return reply{200, string(b)}
	}
	behind, before := remotetest.New(t, 1), remotetest.New(t, 2)
	host, bastion, other := behind.Hosts()[0], before.Hosts()[0], before.Hosts()[1]
	replies := func(hostKey, bastionKey string, record map[string]any) map[string]reply {
		to, via := "GET /api/v0/host/"+host.Address(), "GET /api/v0/host/"+bastion.Address()
		record["address"], record["port"] = host.Address(), host.Port()
		return map[string]reply{
			to:                        text(record),
			to + "/creds":             text(map[string]string{"remote_user": host.User(), "ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(behind.ClientKey()))}),
			to + "/hostkey":           text(map[string]string{"key": hostKey}),
			via:                       text(map[string]any{"address": bastion.Address(), "port": bastion.Port()}),
			via + "/creds":            text(map[string]string{"remote_user": bastion.User(), "ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(before.ClientKey()))}),
			via + "/hostkey":          text(map[string]string{"key": bastionKey}),
			"GET /api/v0/cluster/web": text(map[string]string{"name": "web", "bastion": bastion.Address()}),
			"GET /api/v0/inventory?format=ansible": text(map[string]any{"_meta": map[string]any{"hostvars": map[string]any{
				host.Address(): map[string]string{"ansible_ssh_common_args": "-o ProxyJump=" + bastion.Address()},
			}}}),
		}
	}
	run := func(all map[string]reply, options ...string) (*testApp, int) {
		a := appFor(t, newStub(t, all).URL)
		args := append([]string{"host", "ssh", host.Address(), "-F", "none"}, options...)
		return a, a.Run(t.Context(), append(args, "echo", "in"))
	}
	for name, record := range map[string]map[string]any{"its own": {"bastion": bastion.Address()}, "that of its cluster": {"cluster": "web"}} {
		a, code := run(replies(host.HostKey(), bastion.HostKey(), record))
		require.Zero(t, code, "%s: %s", name, a.errs.String())
		require.Equal(t, "in\n", a.out.String(), name)
		require.Contains(t, a.errs.String(), "ProxyCommand='ssh' '-F' 'none' '-i' '", name)
		for _, file := range regexp.MustCompile(`/\S*/bastion_\w+`).FindAllString(a.errs.String(), -1) {
			require.NoFileExists(t, file)
		}
	}
	// Both must show the key that is pinned for them.
	own := map[string]any{"bastion": bastion.Address()}
	_, code := run(replies(host.HostKey(), other.HostKey(), own))
	require.Equal(t, 255, code)
	_, code = run(replies(other.HostKey(), bastion.HostKey(), own))
	require.Equal(t, 255, code)
	// The user's way goes before; straight is possible here.
	a, code := run(replies(host.HostKey(), other.HostKey(), own), "-o", "ProxyCommand=none")
	require.Zero(t, code, a.errs.String())

	// A bastion of others is reached straight.
	all := replies(host.HostKey(), other.HostKey(), map[string]any{"cluster": "web"})
	all["GET /api/v0/inventory?format=ansible"] = text(map[string]any{"_meta": map[string]any{"hostvars": map[string]any{host.Address(): map[string]string{}}}})
	a, code = run(all)
	require.Zero(t, code, a.errs.String())
	require.NotContains(t, a.errs.String(), "ProxyCommand")
}
