package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

// A login that is not root's works by sudo, and without sudo says so. The hosts
// of this package let in whoever runs the test, so root runs it as somebody else.
// (Their sudo is a stand-in; TestSystemdMachines has the real one.)
func TestSudo(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		runAsOrdinaryUser(t, "^TestSudo$")
		return
	}
	s := newSite(t, 2)
	s.worker()
	allowed, refused := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1]
	require.NoError(t, allowed.OnCommand("sudo", `echo "$*" >>"$FLEET_HOST/elevated"`))
	require.NoError(t, refused.OnCommand("sudo", "echo 'sudo: a password is required' >&2; exit 1"))
	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{})
	s.addHost(allowed, harness.Cluster)
	s.addHost(refused, harness.Cluster)
	s.ready(allowed)
	used, err := os.ReadFile(filepath.Join(allowed.Dir(), "elevated"))
	require.NoError(t, err)
	require.Contains(t, string(used), "-n ", "sudo may not ask")
	s.failed(refused, "investigate", "sudo-refused", "a password is required", allowed.User())
	require.Zero(t, refused.Count("uname", ""))

	require.NoError(t, refused.OnCommand("sudo", ""))
	s.ask(http.StatusCreated, http.MethodPut, hostPath(refused)+"/bootstrap", nil)
	s.ready(refused)
	s.orderRestart(harness.Cluster)
	s.restarted(allowed, refused)
}

// runAsOrdinaryUser runs tests of this package in a process of an ordinary user.
func runAsOrdinaryUser(t *testing.T, tests string) {
	t.Helper()
	const account = "postgres" // an account with a shell that is there wherever Postgres is
	u, err := user.Lookup(account)
	if err != nil {
		t.Skipf("there is no account %s to run it as; run the tests as an ordinary user", account)
	}
	uid, err := strconv.Atoi(u.Uid)
	require.NoError(t, err)
	gid, err := strconv.Atoi(u.Gid)
	require.NoError(t, err)
	dir := filepath.Join(workDir, "ordinary")
	require.NoError(t, os.Mkdir(dir, 0o700))
	self := filepath.Join(dir, "e2e.test") // the original lies where only root may go
	// Not copied by us: a child forked meanwhile would hold it open, and a file
	// that is open for writing cannot be run.
	original := "/proc/" + strconv.Itoa(os.Getpid()) + "/exe"
	require.NoError(t, exec.Command("cp", original, self).Run())
	for _, path := range []string{dir, self} {
		require.NoError(t, os.Chown(path, uid, gid))
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", tests, "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, programVariable + "=" + program}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: ")
}
