package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func (b *bundle) dir(k Key) string { return filepath.Join(b.host.StateDir(), "runs", k.name()) }

func start(t testing.TB, c *Conn, cmd Command) {
	t.Helper()
	s, err := c.Start(testContext(t), cmd)
	if err != nil || s.State != Running {
		t.Fatalf("start: %v %+v", err, s)
	}
}

// runner is the pid of the detached process.
func (b *bundle) runner(t testing.TB, k Key) int {
	t.Helper()
	raw, err := os.ReadFile(b.dir(k) + "/claim")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for line := range strings.Lines(string(raw)) {
		_, _ = fmt.Sscanf(line, "pid %d", &pid)
	}
	if pid < 2 {
		t.Fatalf("claim has no pid: %s", raw)
	}
	return pid
}

func TestRunnerKilledIsIndeterminateOnceChildrenEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("killed", `echo x >>"$FLEET_HOST/count"; while [ ! -e "$FLEET_HOST/go" ]; do sleep 0.05; done; echo from the child`)
	start(t, c, cmd)
	eventually(t, "the command runs", func() bool { return exists(b.host.Dir() + "/count") })
	if err := syscall.Kill(b.runner(t, cmd.Key), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s, err := c.Status(testContext(t), cmd.Key)
	if err != nil || s.State != Running {
		t.Fatalf("its child lives, but: %v %+v", err, s)
	}
	if err := os.WriteFile(b.host.Dir()+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		o, out := once(t, c, cmd)
		if o.State != Indeterminate || o.Reason == "" || out != "from the child\n" {
			t.Errorf("%+v %q", o, out)
		}
	}
	if n := count(t, b.host.Dir()+"/count"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

func TestRebootInTheMiddleIsIndeterminate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("reboot", `echo x >>"$FLEET_HOST/count"; echo begun; systemctl reboot; sleep 60; echo never`)
	var m memory
	if _, err := c.Once(testContext(t), cmd, 0, &m); KindOf(err) != Lost {
		t.Fatalf("the host went away, but: %v", err)
	}
	eventually(t, "the host is back", func() bool { return b.host.Reboots() == 1 })
	c = b.conn(t)
	for range 2 {
		o, out := once(t, c, cmd)
		if o.State != Indeterminate || !strings.Contains(o.Reason, "rebooted") || out != "begun\n" || o.BootID == o.BootIDNow {
			t.Errorf("%+v %q", o, out)
		}
	}
	if count(t, b.host.Dir()+"/count") != 1 || b.host.Count("systemctl", "reboot") != 1 {
		t.Error("not once")
	}
}

func TestPowerCutKeepsClaim(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cmd := sh("power", `echo x >>"$FLEET_HOST/count"; sleep 300`)
	start(t, b.conn(t), cmd)
	eventually(t, "the command runs", func() bool { return written(b.host.Dir() + "/count") })
	if err := b.host.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.host.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if o, _ := once(t, b.conn(t), cmd); o.State != Indeterminate {
		t.Errorf("%+v", o)
	}
	if n := count(t, b.host.Dir()+"/count"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

func TestIfBootID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := Command{Key: key("guarded"), Argv: []string{"systemctl", "reboot"}, IfBootID: "another"}
	for range 2 {
		if o, _ := once(t, c, cmd); o.State != BootIDChanged || o.BootID != b.host.BootID() {
			t.Fatalf("%+v", o)
		}
	}
	id, err := c.BootID(testContext(t))
	if err != nil || id != b.host.BootID() {
		t.Fatalf("%v %q", err, id)
	}
	cmd = Command{Key: key("reboot"), Argv: []string{"systemctl", "reboot"}, IfBootID: id}
	if _, err := c.Start(testContext(t), cmd); err != nil && KindOf(err) != Lost {
		t.Fatal(err)
	}
	eventually(t, "reboot", func() bool { return b.host.Reboots() == 1 })
	s, err := b.conn(t).Start(testContext(t), cmd)
	if err != nil || s.State == Absent || s.State == Running || s.BootID != id || s.BootIDNow == id {
		t.Errorf("%v %+v", err, s)
	}
	if n := b.host.Count("systemctl", "reboot"); n != 1 {
		t.Errorf("%d reboots", n)
	}
}

func TestSameKeyOtherCommandIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	once(t, c, sh("k", "echo one"))
	var m memory
	_, err := c.Once(testContext(t), sh("k", `echo two >"$FLEET_HOST/two"`), 0, &m)
	if KindOf(err) != KeyConflict || exists(b.host.Dir()+"/two") || m.len() != 0 {
		t.Errorf("%v %q", err, m.String())
	}
}

func TestCancelReachesGrandchildren(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	// The second one hides its mark and the third one does not mind TERM.
	cmd := sh("cancel", `trap 'echo bye; exit 5' TERM
(sh -c 'echo $$ >"$FLEET_HOST/p1"; exec sleep 300' &)
env -i sh -c 'echo $$ >'"$FLEET_HOST"'/p2; exec sleep 300' &
sh -c 'trap "" TERM; echo $$ >"$FLEET_HOST/p3"; while :; do sleep 1; done' &
while :; do sleep 0.1; done`)
	start(t, c, cmd)
	pids := []string{"p1", "p2", "p3"}
	for _, p := range pids {
		eventually(t, "grandchild "+p, func() bool { b, err := os.ReadFile(b.host.Dir() + "/" + p); return err == nil && len(b) > 1 })
	}
	began := time.Now()
	if err := c.Cancel(testContext(t), cmd.Key, 700*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	t.Logf("cancelled in %v", time.Since(began))
	for _, p := range pids {
		raw, _ := os.ReadFile(b.host.Dir() + "/" + p)
		pid := strings.TrimSpace(string(raw))
		if cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && len(cmdline) > 0 {
			t.Errorf("%s lives: %q", p, cmdline)
		}
	}
	o, out := once(t, c, cmd)
	if o.State != Exited || o.ExitCode != 5 || !o.Told || !strings.HasSuffix(out, "bye\n") {
		t.Errorf("%+v %q", o, out)
	}
}

func TestCancelOfWhatHasEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("ended", "exit 3")
	once(t, c, cmd)
	if err := c.Cancel(testContext(t), cmd.Key, time.Second); err != nil {
		t.Error(err)
	}
	if o, _ := once(t, c, cmd); o.State != Exited || o.ExitCode != 3 || o.Told {
		t.Errorf("%+v", o)
	}
}

func TestCancelBeforeStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("early", `echo x >"$FLEET_HOST/ran"`)
	if err := c.Cancel(testContext(t), cmd.Key, 0); err != nil {
		t.Fatal(err)
	}
	o, err := c.Once(testContext(t), cmd, 0, &memory{})
	if err != nil || o.State != Cancelled || exists(b.host.Dir()+"/ran") {
		t.Errorf("%v %+v", err, o)
	}
}

// Nothing but the run's own processes is ever signalled: here the pid in the
// claim belongs to somebody else by now.
func TestReusedPidIsNotKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("victim", "sleep 300")
	start(t, c, cmd)
	runner := b.runner(t, cmd.Key)
	r, err := c.Script(testContext(t), `sleep 300 >/dev/null 2>&1 & echo $!`)
	if err != nil {
		t.Fatal(err)
	}
	stranger := strings.TrimSpace(string(r.Stdout))
	claim := b.dir(cmd.Key) + "/claim"
	raw, err := os.ReadFile(claim)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(raw), fmt.Sprintf("pid %d", runner), "pid "+stranger, 1)
	if err := os.WriteFile(claim, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Cancel(testContext(t), cmd.Key, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if cmdline, err := os.ReadFile("/proc/" + stranger + "/cmdline"); err != nil || len(cmdline) == 0 {
		t.Error("a process that is not the run's was killed")
	}
}

func TestForgetKeepsTombstone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("forget", `echo x >>"$FLEET_HOST/count"; echo out; exit 4`)
	long := sh("long", "sleep 60")
	start(t, c, long)
	if err := c.Forget(testContext(t), long.Key); err == nil {
		t.Error("forgot a run that still runs")
	}
	once(t, c, cmd)
	for range 2 {
		if err := c.Forget(testContext(t), cmd.Key); err != nil {
			t.Fatal(err)
		}
	}
	if exists(b.dir(cmd.Key) + "/out") {
		t.Error("the output is still there")
	}
	o, out := once(t, c, cmd)
	if o.State != Exited || o.ExitCode != 4 || o.OutputSize != 4 || out != "" || count(t, b.host.Dir()+"/count") != 1 {
		t.Errorf("%+v %q", o, out)
	}
	s, err := c.Status(testContext(t), key("unheard of"))
	if err != nil || s.State != Absent {
		t.Errorf("%v %+v", err, s)
	}
}

// pruneAgain lets the next run clean up, which it else does once in an hour.
func (b *bundle) pruneAgain(t testing.TB) {
	t.Helper()
	stamp := b.host.StateDir() + "/runs/.pruned"
	eventually(t, "the first run cleaned up", func() bool { return exists(stamp) })
	if err := os.Remove(stamp); err != nil {
		t.Fatal(err)
	}
}

// startedLongAgo makes a run one of 8 days ago by the clock of who started it.
func startedLongAgo(t testing.TB, dir string) {
	t.Helper()
	claim, err := os.ReadFile(dir + "/claim")
	if err != nil {
		t.Fatal(err)
	}
	start := fmt.Sprint("start ", time.Now().AddDate(0, 0, -8).Unix())
	if err := os.WriteFile(dir+"/claim", regexp.MustCompile(`(?m)^start .*`).ReplaceAll(claim, []byte(start)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// longAgo makes it one of 8 days ago by the clock of the host.
func longAgo(t testing.TB, dir string) {
	t.Helper()
	then := time.Now().AddDate(0, 0, -8)
	if err := os.Chtimes(dir, then, then); err != nil {
		t.Fatal(err)
	}
}

func TestOldRunsAgeOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	old, unfinished, fresh := sh("old", "true"), sh("unfinished", "sleep 900"), sh("fresh", "true")
	once(t, c, old)
	once(t, c, fresh)
	start(t, c, unfinished)
	leftover := b.host.StateDir() + "/runs/leftover"
	if err := os.Mkdir(leftover, 0o700); err != nil {
		t.Fatal(err)
	}
	// Only the host's clock says that this one is old, and it may have jumped.
	jumped := sh("jumped", "true")
	once(t, c, jumped)
	for _, dir := range []string{b.dir(old.Key), b.dir(unfinished.Key), b.dir(jumped.Key), leftover} {
		if dir != leftover && dir != b.dir(jumped.Key) {
			startedLongAgo(t, dir)
		}
		longAgo(t, dir)
	}
	b.pruneAgain(t)
	once(t, c, sh("next", "true"))
	eventually(t, "old ones are gone", func() bool { return !exists(b.dir(old.Key)) && !exists(leftover) })
	if !exists(b.dir(unfinished.Key)) || !exists(b.dir(fresh.Key)) || !exists(b.dir(jumped.Key)) {
		t.Error("more aged out than should")
	}
}

// Who claims a key for nobody may be killed before that is written as its end.
func TestClaimForNobodyWithoutAnEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("nobody", `echo x >"$FLEET_HOST/ran"`)
	if err := os.MkdirAll(b.dir(cmd.Key), 0o700); err != nil {
		t.Fatal(err)
	}
	claim := fmt.Sprintf("%80s\ndigest cancelled\nboot %s\npid 4000000\ntick 1\nleader 4000000\nstart 1700000000\n", "", b.host.BootID())
	if err := os.WriteFile(b.dir(cmd.Key)+"/claim", []byte(claim), 0o600); err != nil {
		t.Fatal(err)
	}
	if o, _ := once(t, c, cmd); o.State != Cancelled || exists(b.host.Dir()+"/ran") {
		t.Errorf("%+v", o)
	}
}

// A command has not begun whose output would have no place.
func TestNoPlaceForOutput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("no-place", `echo x >"$FLEET_HOST/ran"`)
	if err := os.MkdirAll(b.dir(cmd.Key), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nonexistent/out", b.dir(cmd.Key)+"/out"); err != nil {
		t.Fatal(err)
	}
	if o, _ := once(t, c, cmd); o.State != Indeterminate || !strings.Contains(o.Reason, "never began") || exists(b.host.Dir()+"/ran") {
		t.Errorf("%+v", o)
	}
}

// What a disk leaves of a claim is neither a run that may begin nor one that is waited
// for.
func TestHalfClaimIsIndeterminate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	for i, half := range []string{"", " ", " \ndigest 12", " \ndigest 1\nboot x\npid 1\ntick 1\n"} {
		cmd := sh(fmt.Sprint("half", i), `echo x >>"$FLEET_HOST/count"`)
		if err := os.MkdirAll(b.dir(cmd.Key), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.dir(cmd.Key)+"/claim", []byte(half), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			o, _ := once(t, c, cmd)
			if o.State != Indeterminate || !strings.Contains(o.Reason, "lost its content") || exists(b.host.Dir()+"/count") {
				t.Errorf("%q: %+v", half, o)
			}
		}
		if err := c.Cancel(testContext(t), cmd.Key, time.Second); err != nil {
			t.Errorf("%q: %v", half, err)
		}
		if err := c.Forget(testContext(t), cmd.Key); err != nil {
			t.Errorf("%q: %v", half, err)
		}
	}
}

// The end of a run that a power cut took the content of is no end.
func TestLostEndIsIndeterminate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("lost", "echo out")
	once(t, c, cmd)
	for _, rc := range []string{"", "\n", "exit 0"} {
		if err := os.WriteFile(b.dir(cmd.Key)+"/rc", []byte(rc), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, out := once(t, c, cmd); o.State != Indeterminate || out != "out\n" {
			t.Errorf("%q: %+v %q", rc, o, out)
		}
	}
}

// An end that a power cut could still take away is not reported.
func TestEndIsOnTheDiskBeforeItIsReported(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.shim(t, map[string]string{"sync": `d=${1%/*}; if [ -e "$d/rc" ]; then sleep 2; echo >"$d/synced"; fi`})
	c := b.conn(t)
	for _, seconds := range []string{"0.1", "1.5"} {
		cmd := Command{Key: key("synced" + seconds), Argv: []string{"/bin/sleep", seconds}}
		o, _ := once(t, c, cmd)
		require.Equal(t, Exited, o.State)
		require.FileExists(t, b.dir(cmd.Key)+"/synced")
	}
}

// Cancel kills whatever is of a run but for its runner, so also what that one calls to
// write the end down.
func TestEndSurvivesKilledHelpers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.shim(t, map[string]string{"sync": `if [ -e "$FLEET_HOST/ended" ] && [ ! -e "$FLEET_HOST/killed" ]; then echo >"$FLEET_HOST/killed"; kill -9 $$; fi`})
	c := b.conn(t)
	cmd := sh("helpers", `echo x >>"$FLEET_HOST/ended"; exit 6`)
	o, _ := once(t, c, cmd)
	require.Equal(t, Exited, o.State, o.Reason)
	require.Equal(t, 6, o.ExitCode)
	require.FileExists(t, b.host.Dir()+"/killed")
}

// Without a claim that outlives a power cut nothing is run.
func TestNoCommandWithoutDurableClaim(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.shim(t, map[string]string{"sync": `[ ! -e "$FLEET_HOST/broken" ] || exit 1`})
	c := b.conn(t)
	once(t, c, sh("first", "true"))
	require.NoError(t, os.WriteFile(b.host.Dir()+"/broken", nil, 0o644))
	for range 2 {
		o, _ := once(t, c, sh("unsynced", `echo x >>"$FLEET_HOST/count"`))
		require.Equal(t, Indeterminate, o.State)
		require.Contains(t, o.Reason, "never began")
		require.NoFileExists(t, b.host.Dir()+"/count")
	}
}

// A runner that dies between the name of its claim and the sync of it has begun
// nothing, and nobody takes over: a power cut may or may not take the name away.
func TestRunnerDiesBeforeItsClaimIsOnTheDisk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.shim(t, map[string]string{"sync": `case $1 in */claim) if [ ! -e "${1%/*}/rc" ]; then kill -9 $PPID; exit 1; fi ;; esac`})
	c := b.conn(t)
	cmd := sh("between", `echo x >>"$FLEET_HOST/count"`)
	for range 2 {
		o, _ := once(t, c, cmd)
		require.Equal(t, Indeterminate, o.State)
		require.NoFileExists(t, b.host.Dir()+"/count")
	}
	require.NoError(t, c.Cancel(testContext(t), cmd.Key, time.Second))
}

// A runner that dies between the name of the end and the sync of it has told the end.
// A power cut may still take the line, and then it is no end.
func TestRunnerDiesBeforeItsEndIsOnTheDisk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.shim(t, map[string]string{"sync": `case $1 in */claim) if [ -e "${1%/*}/rc" ]; then kill -9 $PPID; exit 1; fi ;; esac`})
	c := b.conn(t)
	cmd := sh("between", `echo x >>"$FLEET_HOST/count"; echo out; exit 3`)
	o, out := once(t, c, cmd)
	require.Equal(t, Exited, o.State)
	require.Equal(t, 3, o.ExitCode)
	require.Equal(t, "out\n", out)
	claim, err := os.ReadFile(b.dir(cmd.Key) + "/claim")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(claim), "\n")
	require.NoError(t, os.WriteFile(b.dir(cmd.Key)+"/claim", fmt.Appendf(nil, "%-80s\n%s", "", rest), 0o600))
	require.NoError(t, os.WriteFile(b.dir(cmd.Key)+"/rc", nil, 0o600))
	for range 2 {
		o, out = once(t, c, cmd)
		require.Equal(t, Indeterminate, o.State)
		require.Equal(t, "out\n", out)
	}
	require.Equal(t, 1, count(t, b.host.Dir()+"/count"))
}

// Cancel spares who waits for the run, in the session that both may share.
func TestCancelSparesWhoWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("awaited", `env -i sleep 300 & echo begun; sleep 300`)
	type answer struct {
		Outcome
		error
	}
	answered := make(chan answer, 1)
	go func() {
		o, err := c.Once(testContext(t), cmd, 0, &memory{})
		answered <- answer{o, err}
	}()
	b.awaitOutput(t, cmd.Key)
	require.NoError(t, b.conn(t).Cancel(testContext(t), cmd.Key, 5*time.Second))
	a := <-answered
	require.NoError(t, a.error)
	require.Equal(t, Exited, a.State)
	require.Equal(t, 143, a.ExitCode)
}

// What a runner calls before the command is not taken for the command: cancelled in
// time, it never begins.
func TestCancelBetweenClaimAndCommand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.shim(t, map[string]string{"sync": `if [ -e "$2/claim" ] && [ ! -e "$2/rc" ]; then
  echo >"$FLEET_HOST/between"
  until [ -e "$2/cancel" ]; do sleep 0.05; done
  sleep 0.5
fi`})
	c := b.conn(t)
	cmd := sh("between", `echo x >>"$FLEET_HOST/count"; sleep 60`)
	ended := make(chan error, 1)
	go func() {
		o, err := c.Once(testContext(t), cmd, 0, &memory{})
		if err == nil && o.State != Cancelled {
			err = fmt.Errorf("%+v", o)
		}
		ended <- err
	}()
	eventually(t, "it is claimed", func() bool { return exists(b.host.Dir() + "/between") })
	require.NoError(t, c.Cancel(testContext(t), cmd.Key, 20*time.Second))
	require.NoError(t, <-ended)
	require.NoFileExists(t, b.host.Dir()+"/count")
}

// Nothing of ours has the words of a command among its own arguments.
func TestCommandFindsNoneOfUsByItsWords(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	for _, tool := range []string{"pgrep", "pkill"} {
		o, out := once(t, c, Command{Key: key(tool), Argv: []string{tool, "-f", "no-such-app-xyzzy"}})
		require.Equal(t, Exited, o.State, o.Reason)
		require.Equal(t, 1, o.ExitCode)
		require.Empty(t, out)
	}
}

// A run ends with its command, whatever that leaves behind goes on printing.
func TestChattyChildDelaysNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	for _, delay := range []string{"0.02", "0.05"} {
		cmd := sh("chatty"+delay, `echo hi; (sleep `+delay+`; exec timeout 60 sh -c 'while :; do echo a line of a log; done') &`)
		cmd.Limits.Head = 1000
		ctx, cancel := context.WithTimeout(testContext(t), 45*time.Second)
		var m memory
		o, err := c.Once(ctx, cmd, 0, &m)
		cancel()
		require.NoError(t, err)
		require.Equal(t, Exited, o.State)
		require.True(t, strings.HasPrefix(m.String(), "hi\n"), "%.20q", m.String())
		require.NoError(t, c.Cancel(testContext(t), cmd.Key, 0))
	}
}

// Who waits on a host for a run that is still at work ends with the connection.
func TestFollowerEndsWithItsClient(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	ctx, cancel := context.WithCancel(testContext(t))
	cmd := sh("abandoned", `echo $PPID >"$FLEET_HOST/runner"; while [ ! -e "$FLEET_HOST/go" ]; do sleep 0.05; done; echo done`)
	ended := make(chan error)
	go func() {
		_, err := c.Once(ctx, cmd, 0, &memory{})
		ended <- err
	}()
	eventually(t, "the command runs", func() bool { b, err := os.ReadFile(b.host.Dir() + "/runner"); return err == nil && len(b) > 1 })
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.runner(t, cmd.Key)))
	if err != nil {
		t.Fatal(err)
	}
	follower := strings.Fields(string(stat))[3] // the runner's parent
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	eventually(t, "its shell on the host has ended", func() bool { return !exists("/proc/" + follower) })
	if err := os.WriteFile(b.host.Dir()+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if o, out := once(t, c, cmd); o.State != Exited || out != "done\n" {
		t.Errorf("%+v %q", o, out)
	}
}

// A starter that dies before the claim leaves the key startable.
func TestLeftoverJobDoesNotBlock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("leftover", "echo fine")
	if err := os.MkdirAll(b.dir(cmd.Key), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"job.DEAD", "claim.4711"} {
		if err := os.WriteFile(b.dir(cmd.Key)+"/"+name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if o, out := once(t, c, cmd); o.State != Exited || out != "fine\n" {
		t.Errorf("%+v %q", o, out)
	}
	for _, name := range []string{"job.DEAD", "claim.4711"} {
		require.NoFileExists(t, b.dir(cmd.Key)+"/"+name)
	}
}

func TestStateDirUnusable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	if err := os.WriteFile(b.host.StateDir(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := c.Once(testContext(t), sh("ro", "true"), 0, &memory{})
	if KindOf(err) != HostUnusable || !strings.Contains(err.Error(), "commissaire") {
		t.Error(err)
	}
}

// A disk without a free byte: refused with the reason, nothing run, and startable
// once there is space.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	b := setup(t)
	c := b.conn(t)
	dir := b.host.StateDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	fill := func() {
		f, err := os.Create(dir + "/fill")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
	}
	fill()
	cmd := sh("full", `echo x >>"$FLEET_HOST/count"; head -c 1000000 /dev/zero; exit 6`)
	_, err := c.Once(testContext(t), cmd, 0, &memory{})
	if KindOf(err) != HostUnusable || !strings.Contains(err.Error(), "100%") {
		t.Fatal(err)
	}
	if exists(b.host.Dir() + "/count") {
		t.Fatal("it ran")
	}
	if err := os.Remove(dir + "/fill"); err != nil {
		t.Fatal(err)
	}
	// Now it is the command's own output that fills the disk: its exit code
	// still comes through.
	o, _ := once(t, c, cmd)
	if o.State != Exited || o.ExitCode != 6 || count(t, b.host.Dir()+"/count") != 1 {
		t.Errorf("%+v", o)
	}
}

// With systemd the run is a transient unit, which has none of the login's
// environment. The manager is a stand-in here.
func TestTransientUnit(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root's runs are units of the system manager")
	}
	b := setup(t)
	if err := os.MkdirAll(b.host.Dir()+"/root/run/systemd/system", 0o755); err != nil {
		t.Fatal(err)
	}
	c := b.conn(t)
	cmd := sh("unit", `echo x >>"$FLEET_HOST/count"; echo "$COMMISSAIRE_RUN $COMMISSAIRE_STATE_DIR"; exit 2`)
	o, out := once(t, c, cmd)
	if o.State != Exited || o.ExitCode != 2 || out != b.dir(cmd.Key)+" "+b.host.StateDir()+"\n" {
		t.Errorf("%+v %q", o, out)
	}
	if n := b.host.Count("systemd-run", "commissaire-"); n != 1 {
		t.Errorf("%d units", n)
	}
}

// A command is a program. Words that the host's shell knows by itself are none.
func TestCommandIsAProgram(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	for _, word := range []string{"exit", "exec", "return", "set", "trap", "eval"} {
		o, out := once(t, c, Command{Key: key("word-" + word), Argv: []string{word, "0"}})
		require.Equal(t, Exited, o.State, word)
		require.Equal(t, 127, o.ExitCode, word)
		require.Contains(t, out, word)
	}
	o, out := once(t, c, Command{Key: key("word-echo"), Argv: []string{"echo", `a\nb`}})
	require.Equal(t, Exited, o.State)
	require.Equal(t, `a\nb`+"\n", out)
	_, err := c.Once(testContext(t), Command{Key: key("word-dash"), Argv: []string{"-c", "true"}}, 0, &memory{})
	require.ErrorContains(t, err, "begins with a dash")
}
