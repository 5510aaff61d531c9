package api

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBastions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := key64(t)
	b.v0(t, "PUT /host/192.0.2.1", `{"ssh_priv_key":"`+key+`","remote_user":"jump","port":2222}`, 201, "")
	a := b.v0(t, "PUT /host/192.0.2.10", `{"ssh_priv_key":"`+key+`","bastion":"::ffff:192.0.2.1"}`, 201, "")
	require.Equal(t, "192.0.2.1", field(t, a, "bastion"))
	require.Equal(t, "192.0.2.1", field(t, b.v0(t, "GET /host/192.0.2.10", "", 200, ""), "bastion"))
	require.NotContains(t, b.v0(t, "GET /host/192.0.2.1", "", 200, "").body, "bastion")
	b.v0(t, "PUT /host/192.0.2.10/bastion", `{"bastion":""}`, 201, `{"bastion":""}`)
	b.v0(t, "PUT /host/192.0.2.10/bastion", `{"bastion":"192.0.2.1"}`, 201, `{"bastion":"192.0.2.1"}`)
	b.v0(t, "PUT /host/192.0.2.99/bastion", `{"bastion":"192.0.2.1"}`, 404, "")

	b.v0(t, "PUT /host/192.0.2.11", `{"ssh_priv_key":"`+key+`"}`, 201, "")
	for body, says := range map[string]string{
		`{"bastion":"192.0.2.99"}`: "does not exist",
		`{"bastion":"192.0.2.11"}`: "is the host itself",
		`{"bastion":"192.0.2.10"}`: "is reached through a bastion itself",
		`{"bastion":"no one"}`:     "must be an IP literal or a host name",
		`{}`:                       "bastion",
	} {
		a := b.v0(t, "PUT /host/192.0.2.11/bastion", body, 400, "")
		require.Contains(t, a.body, `"bastion"`, body)
		require.Contains(t, a.body, says, body)
	}
	a = b.v0(t, "DELETE /host/192.0.2.1", "", 409, "")
	require.Contains(t, a.body, "is the bastion of 1 host (192.0.2.10);")

	b.v0(t, "PUT /cluster/web", `{"bastion":"192.0.2.1"}`, 201, "")
	require.Equal(t, "192.0.2.1", field(t, b.v0(t, "GET /cluster/web", "", 200, ""), "bastion"))
	a = b.v0(t, "PUT /cluster/web", `{"bastion":"192.0.2.10"}`, 400, "")
	require.Contains(t, a.body, "through a bastion itself")
	a = b.v0(t, "PUT /cluster/web", `{"bastion":"-"}`, 400, "")
	require.Contains(t, a.body, `"bastion"`)
	a = b.v0(t, "DELETE /host/192.0.2.1", "", 409, "")
	require.Contains(t, a.body, "is the bastion of 1 host (192.0.2.10) and 1 cluster (web);")
	b.v0(t, "PUT /host/192.0.2.12", `{"ssh_priv_key":"`+key+`","cluster":"web"}`, 201, "")

	a = b.v0(t, "GET /inventory?format=ansible", "", 200, "")
	vars := field(t, a, "_meta").(map[string]any)["hostvars"].(map[string]any)
	require.NotContains(t, vars["192.0.2.1"], "ansible_ssh_common_args")
	require.NotContains(t, vars["192.0.2.11"], "ansible_ssh_common_args")
	for _, address := range []string{"192.0.2.10", "192.0.2.12"} {
		require.Equal(t, "-o ProxyJump=jump@192.0.2.1:2222", vars[address].(map[string]any)["ansible_ssh_common_args"])
	}

	b.v0(t, "PUT /cluster/web", `{"bastion":""}`, 201, "")
	require.NotContains(t, b.v0(t, "GET /cluster/web", "", 200, "").body, "bastion")
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("ssh is not here")
	}
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(b.do(t, "GET", "/api/v0/inventory?format=ssh-config", "").body), 0o600))
	for address, jump := range map[string]string{"192.0.2.10": "jump@[192.0.2.1]:2222", "192.0.2.12": ""} {
		out, err := exec.CommandContext(t.Context(), ssh, "-F", path, "-G", address).CombinedOutput()
		require.NoError(t, err, string(out))
		_, got, _ := strings.Cut(string(out), "\nproxyjump ")
		got, _, _ = strings.Cut(got, "\n")
		require.Equal(t, jump, got, address)
	}
}
