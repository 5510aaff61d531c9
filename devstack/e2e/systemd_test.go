package e2e

import (
	"encoding/base64"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/nspawntest"
)

// Machines with systemd are bootstrapped and restarted for real, one as root and
// one by sudo. The worker runs in the machines' network, which nothing else can
// reach. Without root or systemd-nspawn the test is skipped.
func TestSystemdMachines(t *testing.T) {
	t.Parallel()
	if err := nspawntest.Available(); err != nil {
		t.Skip(err)
	}
	key := newKey(t)
	signer, err := ssh.ParsePrivateKey([]byte(key))
	require.NoError(t, err)
	ms := nspawntest.Start(t, 2, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	require.NoError(t, ms.Expose(shared.address()))
	s := newSite(t, 0)
	worker := ms.Command(t.Context(), program, "worker")
	worker.Env = s.Environment()
	worker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, s.Launch(worker, "worker"))
	t.Cleanup(func() { harness.Kill(worker) })

	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{})
	put := func(m *nspawntest.Machine, user string) {
		s.ask(http.StatusCreated, http.MethodPut, "host/"+m.Address(), map[string]any{
			"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(key)), "remote_user": user, "cluster": harness.Cluster,
		})
	}
	root, sudo := ms.All()[0], ms.All()[1]
	put(root, "root")
	put(sudo, "nosudo")
	refused := s.ended("host=" + sudo.Address())
	require.Equal(t, "failed", refused.State)
	require.Contains(t, refused.Reason, "step investigate: ")
	require.Contains(t, refused.Reason, "sudo-refused")
	s.ask(http.StatusCreated, http.MethodPut, "host/"+sudo.Address()+"/creds", map[string]any{
		"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(key)), "remote_user": "ops",
	})
	s.ask(http.StatusCreated, http.MethodPut, "host/"+sudo.Address()+"/bootstrap", nil)

	before := map[string]string{}
	for _, m := range ms.All() {
		op := s.ended("host=" + m.Address())
		require.Equal(t, "succeeded", op.State, op.Reason)
		before[m.Name()], err = m.BootID()
		require.NoError(t, err)
		var v hostView
		s.get("host/"+m.Address(), &v)
		require.Equal(t, []string{"disassociated", "debian", before[m.Name()], fingerprint(t, m.HostKey())}, []string{v.Status, v.OS, v.BootID, v.HostKey})
		name, err := m.Run(t.Context(), "uname", "-a")
		require.NoError(t, err)
		require.Equal(t, name, string(s.output(op.ID, m.Address(), "prepare")), "what the machine printed, with its own name in it")
		require.Contains(t, name, " "+m.Name()+" ")
	}

	s.orderRestart(harness.Cluster)
	op := s.ended("kind=restart")
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, []string{root.Address(), sudo.Address()}, s.restart(harness.Cluster).Restarted)
	for _, m := range ms.All() {
		require.Equal(t, 1, m.Reboots(), "%s rebooted so often", m.Name())
		now, err := m.BootID()
		require.NoError(t, err)
		require.NotEqual(t, before[m.Name()], now)
		var v hostView
		s.get("host/"+m.Address(), &v)
		require.Equal(t, now, v.BootID)
		require.Contains(t, string(s.output(op.ID, m.Address(), "verify")), "system ")
	}
}
