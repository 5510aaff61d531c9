package e2e

import (
	"encoding/base64"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/remote/remotetest"
)

// bootstrapFailures: what is wrong with a host, what must be in the reason, and
// how it is mended.
var bootstrapFailures = []struct {
	name    string
	step    string
	because []string
	spoil   func(*site, *remotetest.Host)
	mend    func(*site, *remotetest.Host)
}{
	{
		name: "nothing listens", step: "investigate", because: []string{"unreachable", "connection refused", "gave up after 20s"},
		spoil: func(s *site, h *remotetest.Host) { require.NoError(s.t, h.Refuse()) },
		mend:  func(s *site, h *remotetest.Host) { require.NoError(s.t, h.Accept(s.t.Context())) },
	},
	{
		name: "login is refused", step: "investigate", because: []string{"auth-refused", "does not accept user"},
		spoil: func(*site, *remotetest.Host) {}, // the key is wrong, see below
		mend: func(s *site, h *remotetest.Host) {
			creds := map[string]any{"ssh_priv_key": s.HostBody(h)["ssh_priv_key"], "remote_user": h.User()}
			s.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/creds", creds)
		},
	},
	{
		name: "sshd hangs", step: "investigate", because: []string{"no-banner", "sent no banner in time", "gave up after 20s"},
		spoil: func(s *site, h *remotetest.Host) { require.NoError(s.t, h.Hang()) },
		mend:  func(s *site, h *remotetest.Host) { require.NoError(s.t, h.Unhang()) },
	},
	{
		name: "state folder is not writable", step: "prepare", because: []string{"host-unusable", "/var/lib/commissaire", "Not a directory", "gave up after 20s"},
		// Root may write anywhere, but not below a file.
		spoil: func(s *site, h *remotetest.Host) { require.NoError(s.t, os.WriteFile(h.StateDir(), nil, 0o600)) },
		mend:  func(s *site, h *remotetest.Host) { require.NoError(s.t, os.Remove(h.StateDir())) },
	},
	{
		name: "command fails", step: "prepare", because: []string{"exit code 7", "no such system"},
		spoil: func(s *site, h *remotetest.Host) {
			require.NoError(s.t, h.OnCommand("uname", "echo one; echo no such system >&2; exit 7"))
		},
		mend: func(s *site, h *remotetest.Host) { require.NoError(s.t, h.OnCommand("uname", "")) },
	},
}

// A bootstrap that fails says at which step and why: at once, or after the patience with
// hosts that cannot be reached. When the cause is mended it can be repeated on the same
// host.
func TestBootstrapFailures(t *testing.T) {
	t.Parallel()
	// Sat out by those that are not in reach; the others have to log in within it.
	s := newSite(t, len(bootstrapFailures), "COMMISSAIRE_UNREACHABLE_AFTER=20s", "COMMISSAIRE_SSH_HANDSHAKE_TIMEOUT=5s")
	s.worker()
	for i, c := range bootstrapFailures {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, h := s.in(t), s.Fleet.Hosts()[i]
			c.spoil(s, h)
			body := s.HostBody(h)
			delete(body, "cluster")
			if c.name == "login is refused" {
				body["ssh_priv_key"] = base64.StdEncoding.EncodeToString([]byte(newKey(t)))
			}
			s.ask(http.StatusCreated, http.MethodPut, hostPath(h), body)
			s.failed(h, c.step, c.because...)
			patient := slices.Contains(c.because, "gave up after 20s")
			require.Equal(t, patient, strings.Contains(s.host(h).Reason, "gave up"))

			c.mend(s, h)
			s.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/bootstrap", nil)
			s.ready(h)
			require.Empty(t, s.host(h).Reason)
			require.Equal(t, 1, h.Count("uname", "-a"))
		})
	}
}

// failed wants the bootstrap of a host ended badly, and the reason in every
// place where one looks for it.
func (s *site) failed(h *remotetest.Host, step string, because ...string) {
	s.t.Helper()
	op := s.ended("kind=bootstrap&host=" + h.Address())
	require.Equal(s.t, "failed", op.State)
	v := s.host(h)
	require.Equal(s.t, "failed", v.Status)
	require.Contains(s.t, op.Reason, "host "+h.Address()+": step "+step+": ")
	require.Contains(s.t, v.Reason, "step "+step+": ")
	for _, part := range because {
		require.Contains(s.t, op.Reason, part)
		require.Contains(s.t, v.Reason, part)
	}
	steps := s.steps(op.ID)
	last := steps[len(steps)-1]
	require.Equal(s.t, step, last.Name)
	require.Contains(s.t, []string{"failed", "indeterminate"}, last.State) // the latter where its command may still run
	var record struct{ Status string }
	s.get(hostPath(h)+"/bootstrap", &record)
	require.Equal(s.t, "failed", record.Status)
}

// A host that presents another key than the pinned one gets no command until an
// operator accepts the key.
func TestHostKeyChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	countLogins(t, s)
	s.worker()
	h := s.Fleet.Hosts()[0]
	s.addHost(h, "")
	s.ready(h)
	before := logins(t, h)
	require.Positive(t, before, "logins are counted (the login shell must be bash)")

	pinned := s.host(h).HostKey
	require.NoError(t, h.Kill()) // a connection that is still open would rightly be used
	require.NoError(t, h.NewHostKey(t.Context()))
	for range 2 {
		s.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/bootstrap", nil)
		s.failed(h, "investigate", "host-key-changed", pinned, fingerprint(t, h.HostKey()), "accept the new key")
	}
	require.Equal(t, before, logins(t, h), "not one command reached the host")
	require.Equal(t, 1, h.Count("uname", "-a"))
	require.Equal(t, pinned, s.host(h).HostKey)

	s.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/hostkey", map[string]any{"key": h.HostKey()})
	require.Equal(t, before, logins(t, h))
	s.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/bootstrap", nil)
	s.ready(h)
	require.Equal(t, 2, h.Count("uname", "-a"))
	require.Equal(t, fingerprint(t, h.HostKey()), s.host(h).HostKey)
}
