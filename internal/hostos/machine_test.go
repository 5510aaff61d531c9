package hostos_test

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
	"commissaire/internal/remote/nspawntest"
)

// machine is a real Debian with systemd, asked past the network.
type machine struct{ *nspawntest.Machine }

func (m machine) run(t *testing.T, argv []string) (exit int, out string) {
	t.Helper()
	out, err := m.Run(t.Context(), argv...)
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return failed.ExitCode(), out
	}
	require.NoError(t, err)
	return 0, out
}

func (m machine) must(t *testing.T, argv []string) {
	t.Helper()
	_, err := m.Run(t.Context(), argv...)
	require.NoError(t, err)
}

func (m machine) service(t *testing.T, name string) hostos.Service {
	t.Helper()
	s, err := hostos.ParseServiceState(m.run(t, hostos.ServiceState(name)))
	require.NoError(t, err)
	return s
}

// TestVerbsOnAMachine runs the verbs that stand-ins cannot prove: apt's on packages of
// a repository, systemctl's on a service.
func TestVerbsOnAMachine(t *testing.T) {
	ms := nspawntest.Start(t, 1, "")
	m := machine{ms.All()[0]}
	f := family(t, "apt")

	repository, err := ms.Repository()
	require.NoError(t, err)
	require.NoError(t, repository.Publish(t.Context(), nspawntest.Package{Name: "other", Version: "1"}))
	require.NoError(t, repository.Install(t.Context(), m.Machine, "other"))
	require.NoError(t, repository.Publish(t.Context(), nspawntest.Package{Name: "tool", Version: "1"}))

	asked := []string{"other", "tool", "libc6", "unheard-of"}
	exit, out := m.run(t, f.Installed(asked))
	missing, err := hostos.ParseInstalled(asked, exit, out)
	require.NoError(t, err)
	require.Equal(t, []string{"tool", "unheard-of"}, missing)

	argv, err := f.Install([]string{"tool"})
	require.NoError(t, err)
	m.must(t, argv)
	m.must(t, argv) // nothing is left to do
	exit, out = m.run(t, f.Installed([]string{"tool"}))
	missing, err = hostos.ParseInstalled([]string{"tool"}, exit, out)
	require.NoError(t, err)
	require.Empty(t, missing)
	argv, err = f.Install([]string{"unheard-of"})
	require.NoError(t, err)
	exit, _ = m.run(t, argv)
	require.Equal(t, 100, exit)

	// What was removed but for its configuration is missing, too.
	m.must(t, []string{"dpkg", "--remove", "tool"})
	exit, out = m.run(t, f.Installed([]string{"tool"}))
	missing, err = hostos.ParseInstalled([]string{"tool"}, exit, out)
	require.NoError(t, err)
	require.Equal(t, []string{"tool"}, missing)

	const unit = "/etc/systemd/system/example.service"
	require.Equal(t, "not-found", m.service(t, "example").State)
	m.must(t, []string{"sh", "-c", `printf '[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n' >"$1"`, "write", unit})
	m.must(t, hostos.ReloadServices())
	require.Equal(t, hostos.Service{Exists: true, State: "inactive (dead)"}, m.service(t, "example"))
	m.must(t, hostos.EnableService("example"))
	m.must(t, hostos.EnableService("example"))
	require.Equal(t, hostos.Service{Exists: true, Enabled: true, State: "inactive (dead)"}, m.service(t, "example"))
	m.must(t, hostos.StartService("example"))
	m.must(t, hostos.RestartService("example"))
	require.Equal(t, hostos.Service{Exists: true, Enabled: true, Active: true, State: "active (running)"}, m.service(t, "example.service"))

	m.must(t, []string{"sed", "-i", "s/sleep 1000/false/", unit})
	m.must(t, hostos.ReloadServices())
	m.must(t, hostos.RestartService("example"))
	require.Eventually(t, func() bool { return m.service(t, "example").Failed }, time.Minute, 50*time.Millisecond)
	exit, _ = m.run(t, hostos.EnableService("unheard-of"))
	require.NotZero(t, exit)
	exit, _ = m.run(t, hostos.StartService("unheard-of"))
	require.NotZero(t, exit)
}
