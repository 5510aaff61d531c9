package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/nspawntest"
)

const (
	dpkgLog = "/var/log/dpkg.log"

	// holdLock holds the lock that apt-get and dpkg take, the way they do: fcntl(2),
	// by a process of its own, until that is stopped.
	holdLock = `exec systemd-run --quiet --unit=holder python3 -c '
import fcntl, signal
f = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(f, fcntl.LOCK_EX)
open("/run/locked", "w").close()
signal.pause()'`
)

// Real packages are upgraded by real apt on machines that behave differently: one
// waits for a lock and needs no reboot, one asks for a reboot, and one fails until
// somebody mends it.
func TestUpgradeOfSystemdMachines(t *testing.T) {
	t.Parallel()
	s := newMachines(t, 3)
	repository := s.repository("tool", "library", "database")
	plain, reboots, fails := s.set.All()[0], s.set.All()[1], s.set.All()[2]
	s.install(repository, plain, "tool")
	s.install(repository, reboots, "library")
	s.install(repository, fails, "database")
	s.addReady("root", plain, fails)
	s.addReady("ops", reboots)
	before := map[*nspawntest.Machine]string{}
	for _, m := range s.set.All() {
		before[m] = s.bootID(m)
	}
	require.NoError(t, repository.Publish(t.Context(),
		nspawntest.Package{Name: "tool", Version: "2.0"},
		nspawntest.Package{Name: "library", Version: "2.0", Postinst: `echo "*** System restart required ***" > /var/run/reboot-required; echo library >> /var/run/reboot-required.pkgs`},
		nspawntest.Package{Name: "database", Version: "2.0", Postinst: `[ -e /etc/database.conf ] || { echo "database: /etc/database.conf is missing" >&2; exit 1; }`},
	))
	s.sh(plain, holdLock)
	s.until(limit, "the lock to be held", func() bool { return s.has(plain, "/run/locked") })

	op := s.order("upgrade", policy(map[string]any{"max_unavailable": 2, "max_failures": 2, "min_ready": "1s"}))
	s.until(limit, "all to end but the one whose lock is held", func() bool {
		states := s.states(op)
		return states[reboots.Address()] == "succeeded" && states[fails.Address()] == "failed"
	})
	require.Equal(t, "running", s.states(op)[plain.Address()])
	require.Equal(t, "1.0", s.version(plain, "tool"))
	s.sh(plain, "systemctl stop holder")
	op = s.end(op)
	require.Equal(t, "failed", op.State)
	require.Contains(t, op.Reason, "1 of 3 hosts failed")

	for m, want := range map[*nspawntest.Machine]struct {
		steps   string
		reboots int
	}{
		plain:   {"check upgrade verify-packages reboot-needed verify settle", 0},
		reboots: {"check upgrade verify-packages reboot-needed reboot wait verify settle", 1},
		fails:   {"check upgrade", 0},
	} {
		require.Equal(t, want.steps, s.stepsOf(op, m))
		require.Equal(t, want.reboots, m.Reboots(), m.Name())
		require.Equal(t, want.reboots > 0, before[m] != s.bootID(m), m.Name())
		var v struct {
			PackageManager string `json:"package_manager"`
			BootID         string `json:"boot_id"`
		}
		s.get("host/"+m.Address(), &v)
		require.Equal(t, "apt", v.PackageManager)
		require.Equal(t, s.bootID(m), v.BootID)
	}
	require.Equal(t, "2.0", s.version(plain, "tool"))
	require.Contains(t, string(s.output(op.ID, plain.Address(), "upgrade")), "Could not get lock /var/lib/dpkg/lock-frontend. It is held by process", "it waited for the lock")
	require.Equal(t, "2.0", s.version(reboots, "library"))
	require.Equal(t, "no reboot is needed", s.step(op, plain, "reboot-needed").Reason)
	require.Equal(t, "a reboot is needed: asked for by: library", s.step(op, reboots, "reboot-needed").Reason)
	require.Contains(t, string(s.output(op.ID, reboots.Address(), "settle")), s.bootID(reboots))
	s.failedUpgrade(op, fails, "the script of a package failed", "Sub-process /usr/bin/dpkg returned an error code (1)")
	require.Contains(t, string(s.output(op.ID, fails.Address(), "upgrade")), "database: /etc/database.conf is missing")
	require.Equal(t, "half-configured", s.status(fails, "database"))

	// The package fails again until it is mended, and the others are left alone.
	logs := s.sh(plain, "cat "+dpkgLog) + s.sh(reboots, "cat "+dpkgLog)
	op = s.retry(op)
	require.Equal(t, "failed", op.State)
	require.Equal(t, map[string]string{fails.Address(): "failed"}, s.states(op))
	s.failedUpgrade(op, fails, "the script of a package failed")
	s.sh(fails, "touch /etc/database.conf")
	op = s.retry(op)
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, map[string]string{fails.Address(): "succeeded"}, s.states(op))
	require.Equal(t, "2.0", s.version(fails, "database"))
	require.Equal(t, "installed", s.status(fails, "database"))
	require.Equal(t, logs, s.sh(plain, "cat "+dpkgLog)+s.sh(reboots, "cat "+dpkgLog))
	require.Equal(t, []int{0, 1, 0}, []int{plain.Reboots(), reboots.Reboots(), fails.Reboots()})
}

// A power cut in the middle of an upgrade: nobody knows how it ended, so it is no
// success and is not begun again, and what it left is for a person to mend.
func TestPowerCutDuringUpgrade(t *testing.T) {
	t.Parallel()
	s := newMachines(t, 1, "COMMISSAIRE_SSH_KEEPALIVE=1s")
	m := s.set.All()[0]
	repository := s.repository("database")
	s.install(repository, m, "database")
	s.addReady("root", m)
	require.NoError(t, repository.Publish(t.Context(), nspawntest.Package{Name: "database", Version: "2.0", Postinst: `echo ran >> /var/lib/ledger; [ -e /etc/quick ] || sleep 600`}))

	op := s.order("upgrade", nil)
	s.until(limit, "the package's script to run", func() bool { return s.has(m, "/var/lib/ledger") })
	require.NoError(t, m.PowerCut())
	require.NoError(t, m.Start(t.Context()))
	op = s.end(op)
	require.Equal(t, "failed", op.State)
	step := s.step(op, m, "upgrade")
	require.Equal(t, "indeterminate", step.State)
	require.Nil(t, step.ExitCode)
	require.Contains(t, step.Reason, "nobody knows how apt ended")
	run := s.hostRun(op, m)
	require.Equal(t, "failed", run.State)
	require.Contains(t, run.Reason, "step upgrade: nobody knows how apt ended")
	require.Contains(t, run.Reason, "look at the host before repeating it")
	require.Equal(t, "check upgrade", s.stepsOf(op, m), "nothing is done after it")

	op = s.retry(op)
	require.Equal(t, "failed", op.State)
	s.failedUpgrade(op, m, "run 'dpkg --configure -a' on the host, then retry")
	require.Equal(t, "half-configured", s.status(m, "database"))
	require.Equal(t, "ran\n", s.sh(m, "cat /var/lib/ledger"))

	s.sh(m, "touch /etc/quick; dpkg --configure -a")
	op = s.retry(op)
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, "2.0", s.version(m, "database"))
	require.Equal(t, "ran\nran\n", s.sh(m, "cat /var/lib/ledger"))
}

// sh runs a script as root on a machine, past SSH.
func (r *realMachines) sh(m *nspawntest.Machine, script string) string {
	r.t.Helper()
	out, err := m.Run(r.t.Context(), "sh", "-ec", script)
	require.NoError(r.t, err)
	return out
}

// has says whether a file is on a machine.
func (r *realMachines) has(m *nspawntest.Machine, file string) bool {
	_, err := m.Run(r.t.Context(), "test", "-e", file)
	return err == nil
}

// repository has version 1.0 of each of these packages.
func (r *realMachines) repository(names ...string) *nspawntest.Repository {
	r.t.Helper()
	repository, err := r.set.Repository()
	require.NoError(r.t, err)
	for _, name := range names {
		require.NoError(r.t, repository.Publish(r.t.Context(), nspawntest.Package{Name: name, Version: "1.0"}))
	}
	return repository
}

func (r *realMachines) install(from *nspawntest.Repository, m *nspawntest.Machine, name string) {
	r.t.Helper()
	require.NoError(r.t, from.Install(r.t.Context(), m, name))
}

// addReady registers machines and waits until their bootstrap has ended well.
func (r *realMachines) addReady(user string, machines ...*nspawntest.Machine) {
	r.t.Helper()
	for _, m := range machines {
		r.add(m, user)
	}
	for _, m := range machines {
		op := r.ended("kind=bootstrap&host=" + m.Address())
		require.Equal(r.t, "succeeded", op.State, op.Reason)
	}
}

// version is the version of a package as dpkg has it, and status its state.
func (r *realMachines) version(m *nspawntest.Machine, name string) string {
	r.t.Helper()
	return r.sh(m, "dpkg-query -W -f '${Version}' "+name)
}

func (r *realMachines) status(m *nspawntest.Machine, name string) string {
	r.t.Helper()
	return r.sh(m, "dpkg-query -W -f '${db:Status-Status}' "+name)
}

// states are those of the hosts of an operation, by address.
func (r *realMachines) states(op operationView) map[string]string {
	r.t.Helper()
	states := map[string]string{}
	for _, run := range r.hostRuns(op.ID) {
		states[run.Address] = run.State
	}
	return states
}

// stepsOf are the names of a machine's steps in an operation, in order.
func (r *realMachines) stepsOf(op operationView, m *nspawntest.Machine) string {
	r.t.Helper()
	var names []string
	for _, step := range r.steps(op.ID) {
		if step.Address == m.Address() {
			names = append(names, step.Name)
		}
	}
	return strings.Join(names, " ")
}

func (r *realMachines) step(op operationView, m *nspawntest.Machine, name string) stepView {
	r.t.Helper()
	for _, step := range r.steps(op.ID) {
		if step.Address == m.Address() && step.Name == name {
			return step
		}
	}
	require.Failf(r.t, "no such step", "%s of %s", name, m.Name())
	return stepView{}
}

// failedUpgrade wants that apt failed on a machine and the reason of the host says
// so in one line, with these texts in it.
func (r *realMachines) failedUpgrade(op operationView, m *nspawntest.Machine, texts ...string) {
	r.t.Helper()
	step := r.step(op, m, "upgrade")
	require.Equal(r.t, "failed", step.State)
	require.NotNil(r.t, step.ExitCode)
	require.Equal(r.t, 100, *step.ExitCode)
	run := r.hostRun(op, m)
	require.Equal(r.t, "failed", run.State)
	require.NotContains(r.t, run.Reason, "\n")
	for _, text := range append(texts, "step upgrade: apt ended with exit code 100: ", "; it said: ") {
		require.Contains(r.t, run.Reason, text)
	}
}

// hostRun is a machine's part in an operation.
func (r *realMachines) hostRun(op operationView, m *nspawntest.Machine) hostRunView {
	r.t.Helper()
	for _, run := range r.hostRuns(op.ID) {
		if run.Address == m.Address() {
			return run
		}
	}
	require.Failf(r.t, "no such host", "%s in operation %s", m.Name(), op.ID)
	return hostRunView{}
}

// retry does again what failed of an operation, and waits for the end of that.
func (r *realMachines) retry(op operationView) operationView {
	r.t.Helper()
	r.ask(http.StatusCreated, http.MethodPost, "operations/"+op.ID+"/retry", nil)
	again := r.latest("kind=upgrade&cluster=" + harness.Cluster)
	require.Equal(r.t, op.ID, again.RetryOf)
	return r.end(again)
}
