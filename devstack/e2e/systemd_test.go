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

// realMachines are machines with systemd, and an installation whose worker runs in
// their network, which nothing else can reach.
type realMachines struct {
	*site
	set *nspawntest.Machines
	key string // lets in root, ops (sudo without password) and nosudo
}

// newMachines boots n machines. Without root or systemd-nspawn the test is skipped.
func newMachines(t *testing.T, n int, env ...string) *realMachines {
	t.Helper()
	if err := nspawntest.Available(); err != nil {
		t.Skip(err)
	}
	key := newKey(t)
	signer, err := ssh.ParsePrivateKey([]byte(key))
	require.NoError(t, err)
	ms := nspawntest.Start(t, n, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	require.NoError(t, ms.Expose(shared.address()))
	s := newSite(t, 0, env...)
	worker := ms.Command(t.Context(), program, "worker")
	worker.Env = s.Environment()
	worker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, s.Launch(worker, "worker"))
	t.Cleanup(func() { harness.Kill(worker) })
	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{})
	return &realMachines{s, ms, key}
}

// add registers a machine in the cluster.
func (r *realMachines) add(m *nspawntest.Machine, user string) {
	r.t.Helper()
	r.ask(http.StatusCreated, http.MethodPut, "host/"+m.Address(), map[string]any{
		"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(r.key)), "remote_user": user, "cluster": harness.Cluster,
	})
}

// bootID is a machine's boot id, read past SSH.
func (r *realMachines) bootID(m *nspawntest.Machine) string {
	r.t.Helper()
	id, err := m.BootID()
	require.NoError(r.t, err)
	return id
}

// Machines with systemd are bootstrapped and restarted for real, one as root and
// one by sudo.
func TestSystemdMachines(t *testing.T) {
	t.Parallel()
	s := newMachines(t, 2)
	ms := s.set
	root, sudo := ms.All()[0], ms.All()[1]
	s.add(root, "root")
	s.add(sudo, "nosudo")
	refused := s.ended("host=" + sudo.Address())
	require.Equal(t, "failed", refused.State)
	require.Contains(t, refused.Reason, "step investigate: ")
	require.Contains(t, refused.Reason, "sudo-refused")
	s.ask(http.StatusCreated, http.MethodPut, "host/"+sudo.Address()+"/creds", map[string]any{
		"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(s.key)), "remote_user": "ops",
	})
	s.ask(http.StatusCreated, http.MethodPut, "host/"+sudo.Address()+"/bootstrap", nil)

	before := map[string]string{}
	for _, m := range ms.All() {
		op := s.ended("host=" + m.Address())
		require.Equal(t, "succeeded", op.State, op.Reason)
		before[m.Name()] = s.bootID(m)
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
		now := s.bootID(m)
		require.NotEqual(t, before[m.Name()], now)
		var v hostView
		s.get("host/"+m.Address(), &v)
		require.Equal(t, now, v.BootID)
		require.Contains(t, string(s.output(op.ID, m.Address(), "verify")), "system ")
	}
}
