package api

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// inventoried is an API with hosts of all sorts, seen by a viewer.
func inventoried(t *testing.T) (b *bundle, keys map[string]string) {
	t.Helper()
	b = setup(t)
	b.v0(t, "PUT /cluster/web-eu", "", 201, "")
	keys = map[string]string{}
	for address, more := range map[string]string{
		"192.0.2.10":  `,"cluster":"web-eu","remote_user":"cloud","labels":{"env":"prod"}`,
		"web.example": `,"cluster":"web-eu","port":2222`,
		"2001:db8::1": `,"port":22`,
	} {
		key, _ := publicKey(t)
		keys[address] = key
		b.v0(t, "PUT /host/"+address, `{"ssh_priv_key":"`+key64(t)+`","host_key":"`+key+`"`+more+`}`, 201, "")
	}
	b.addHost(t, "new.example", "")
	b.endBootstrap(t, "192.0.2.10", "succeeded")
	return b.as(basicCreds("vera")), keys
}

func TestAnsibleInventory(t *testing.T) {
	t.Parallel()
	b, _ := inventoried(t)
	a := b.v0(t, "GET /inventory?format=ansible", "", 200, "")
	schema, err := jsonschema.NewCompiler().Compile("../internal/hostsource/testdata/schema.json")
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(a.body))
	require.NoError(t, err)
	require.NoError(t, schema.Validate(value))
	if _, err := exec.LookPath("ansible-inventory"); err == nil {
		path := filepath.Join(t.TempDir(), "inventory")
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\ncat <<'END'\n"+a.body+"\nEND\n"), 0o755))
		out, err := exec.CommandContext(t.Context(), "ansible-inventory", "-i", path, "--list").CombinedOutput()
		require.NoError(t, err, string(out))
	}
	var all map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(a.body), &all))
	require.JSONEq(t, `{"children": ["ungrouped", "cluster_web_eu"]}`, string(all["all"]))
	require.JSONEq(t, `{"hosts": ["192.0.2.10", "web.example"]}`, string(all["cluster_web_eu"]))
	require.JSONEq(t, `{"hosts": ["2001:db8::1", "new.example"]}`, string(all["ungrouped"]))
	var meta struct {
		HostVars map[string]json.RawMessage `json:"hostvars"`
	}
	require.NoError(t, json.Unmarshal(all["_meta"], &meta))
	require.Len(t, meta.HostVars, 4)
	require.JSONEq(t, `{"ansible_host": "192.0.2.10", "ansible_port": 22, "ansible_user": "cloud", "commissaire_status": "disassociated",
		"commissaire_cluster": "web-eu", "commissaire_os": "fedora", "commissaire_os_version": "43", "commissaire_labels": {"env": "prod"}}`, string(meta.HostVars["192.0.2.10"]))

	b = setup(t)
	b.v0(t, "GET /inventory?format=ansible", "", 200, `{"_meta": {"hostvars": {}}, "all": {"children": ["ungrouped"]}, "ungrouped": {"hosts": []}}`)
}

func TestGroupNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]string{"web-eu": "cluster_web_eu", "db": "cluster_db", "a-b": "exact_a_db", "a_b": "exact_a_ub", "a_db": "cluster_a_db"},
		groupNames([]string{"web-eu", "db", "a-b", "a_b", "a_db"}))
}

func TestSSHConfig(t *testing.T) {
	t.Parallel()
	ssh, err := exec.LookPath("ssh")
	require.NoError(t, err, "scripts/setup installs it with sshd")
	b, _ := inventoried(t)
	a := b.do(t, "GET", "/api/v0/inventory?format=ssh-config", "")
	require.Equal(t, 200, a.status)
	require.Contains(t, a.header.Get("Content-Type"), "text/plain")
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(a.body), 0o600))
	for address, want := range map[string][]string{
		"192.0.2.10":  {"user cloud", "hostname 192.0.2.10", "port 22"},
		"web.example": {"user root", "hostname web.example", "port 2222"},
		"2001:db8::1": {"user root", "hostname 2001:db8::1", "port 22"},
	} {
		out, err := exec.CommandContext(t.Context(), ssh, "-F", path, "-G", address).CombinedOutput()
		require.NoError(t, err, string(out))
		lines := strings.Split(string(out), "\n")
		for _, line := range want {
			require.Contains(t, lines, line, address)
		}
	}
}

func TestKnownHosts(t *testing.T) {
	t.Parallel()
	keygen, err := exec.LookPath("ssh-keygen")
	require.NoError(t, err, "scripts/setup installs it with sshd")
	b, keys := inventoried(t)
	a := b.do(t, "GET", "/api/v0/inventory?format=known-hosts", "")
	require.Equal(t, 200, a.status)
	require.Contains(t, a.body, "# new.example: no key is pinned yet\n")
	path := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(path, []byte(a.body), 0o600))
	for name, address := range map[string]string{"192.0.2.10": "192.0.2.10", "[web.example]:2222": "web.example", "2001:db8::1": "2001:db8::1"} {
		out, err := exec.CommandContext(t.Context(), keygen, "-F", name, "-f", path).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		require.Contains(t, string(out), name+" "+keys[address])
	}
	require.Error(t, exec.CommandContext(t.Context(), keygen, "-F", "new.example", "-f", path).Run())
}
