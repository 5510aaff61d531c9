package remote

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"commissaire/internal/secret"

	"github.com/stretchr/testify/require"
)

// tools are all that the scripts in script/ need on a host, beside builtins of sh.
var tools = []string{"cat", "chmod", "chown", "date", "dd", "df", "find", "grep", "id", "ln", "mkdir", "mv", "rm", "sleep", "stat", "sync", "tail", "tr"}

// TestBareHosts runs the scripts where there is nothing but one shell and the
// tools: what a minimal host of another distribution has.
func TestBareHosts(t *testing.T) {
	t.Parallel()
	for _, host := range []struct {
		name, shell, detach, box string
		within                   bool // another process leads the session, as below sudo
	}{
		{"dash", "dash", "setsid", "", false},
		{"dash-within", "dash", "setsid", "", true},
		{"bash", "bash", "setsid", "", false},
		{"bash-within", "bash", "setsid", "", true},
		{"without-setsid-and-sums", "dash", "true", "", true},
		{"dash-with-sleeps-of-seconds", "dash", "setsid", "", false},
		{"busybox", "busybox", "setsid", "busybox", false},
		{"busybox-within", "busybox", "setsid", "busybox", true},
		{"busybox-without-setsid-and-sums", "busybox", "true", "busybox", true},
	} {
		t.Run(host.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			bin := t.TempDir()
			names := append([]string{"sh", "env", "printf", host.detach}, tools...)
			if host.detach == "setsid" { // else also without what not every host has
				names = append(names, "sha256sum")
			}
			for _, tool := range names {
				if tool == "sleep" && strings.HasSuffix(host.name, "seconds") {
					whole := "#!/bin/sh\ncase $1 in *.*) exit 1 ;; esac\nexec /bin/sleep \"$1\"\n"
					if err := os.WriteFile(filepath.Join(bin, tool), []byte(whole), 0o755); err != nil {
						t.Fatal(err)
					}
					continue
				}
				program := tool
				switch {
				case tool == "sh":
					program = host.shell
				case host.box != "":
					program = host.box
				}
				path, err := exec.LookPath(program)
				if err != nil {
					t.Skipf("%s is not installed here", program)
				}
				if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
			// For those who are not root; it is no part of what is tested here.
			if err := os.Symlink(b.host.Dir()+"/bin/sudo", filepath.Join(bin, "sudo")); err != nil {
				t.Fatal(err)
			}
			b.configure(t, regexp.MustCompile(` PATH=\S+`), " PATH="+bin)
			if host.within {
				b.configure(t, regexp.MustCompile(`\z`), "\nForceCommand sh -c \"$$SSH_ORIGINAL_COMMAND\"; exit $$?\n")
			}
			checkHost(t, b)
		})
	}
}

// TestOnceCallsFewPrograms counts what a run costs its host most: programs, beside the
// two shells, the command and what only the first run on a host needs.
func TestOnceCallsFewPrograms(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.countCalls(t)
	c := b.conn(t)
	once(t, c, sh("first", "true"))
	eventually(t, "the first run cleaned up", func() bool { return exists(b.host.StateDir() + "/runs/.pruned") })
	called := b.host.Dir() + "/called"
	n := 0
	for _, run := range []struct{ script, want string }{
		{"", "mkdir ln sync sync"},
		{"echo short", "mkdir ln sync stat sync dd"},
	} {
		// On a machine under load the command lasts until we ask what there is so far.
		eventually(t, fmt.Sprintf("%q calls %s", run.script, run.want), func() bool {
			if err := os.WriteFile(called, nil, 0o666); err != nil {
				t.Fatal(err)
			}
			n++
			if o, _ := once(t, c, sh(fmt.Sprint("few", n), run.script)); o.State != Exited {
				t.Fatal(o)
			}
			raw, err := os.ReadFile(called)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(strings.Fields(string(raw)), " ") == run.want
		})
	}
}

// TestWaitingCallsNothing: who waits for a silent command, looks at no process of the
// host's.
func TestWaitingCallsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.countCalls(t)
	c := b.conn(t)
	// Looked at while it runs: at its end the host may well look for what is left of it.
	var raw []byte
	m := memory{onAlive: sync.OnceFunc(func() {
		raw, _ = os.ReadFile(b.host.Dir() + "/called")
		_ = os.WriteFile(b.host.Dir()+"/go", nil, 0o644)
	})}
	o, err := c.Once(testContext(t), sh("silent", `until [ -e "$FLEET_HOST/go" ]; do /bin/sleep 0.05; done`), 0, &m)
	require.NoError(t, err)
	require.Equal(t, Exited, o.State)
	require.NotEmpty(t, raw)
	for _, tool := range []string{"tail", "tr", "grep", "sleep"} {
		require.NotContains(t, strings.Fields(string(raw)), tool)
	}
}

// countCalls has the host write down which tools are called.
func (b *bundle) countCalls(t testing.TB) {
	t.Helper()
	shims := map[string]string{}
	for _, tool := range append([]string{"setsid", "sudo", "printf"}, tools...) {
		shims[tool] = "echo " + tool + ` >>"$FLEET_HOST/called"`
	}
	b.shim(t, shims)
}

// shim puts scripts before tools of the host, by name. The tool follows.
func (b *bundle) shim(t testing.TB, shims map[string]string) {
	t.Helper()
	bin := t.TempDir()
	for tool, before := range shims {
		path, err := exec.LookPath(tool)
		if err != nil {
			continue
		}
		script := fmt.Sprintf("#!/bin/sh\n%s\nexec %s \"$@\"\n", before, path)
		require.NoError(t, os.WriteFile(filepath.Join(bin, tool), []byte(script), 0o755))
	}
	b.configure(t, regexp.MustCompile(` PATH=`), " PATH="+bin+":")
}

// configure changes the host's sshd_config.
func (b *bundle) configure(t testing.TB, what *regexp.Regexp, with string) {
	t.Helper()
	path := b.host.Dir() + "/sshd_config"
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, what.ReplaceAll(config, []byte(with)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.host.RestartSSHD(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// checkHost goes once through everything that the scripts do.
func checkHost(t *testing.T, b *bundle) {
	c := b.conn(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	data := bytes.Repeat(all, 2000)
	if err := os.WriteFile(b.host.Dir()+"/blob", data, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := sh("bytes", `echo x >>"$FLEET_HOST/count"; cat "$FLEET_HOST/blob"; exit 9`)
	for _, from := range []int{0, 1000, 300_001} {
		m := memory{bytes: bytes.Clone(data[:from])}
		o, err := c.Once(testContext(t), cmd, int64(from), &m)
		if err != nil || o.State != Exited || o.ExitCode != 9 || !bytes.Equal(m.bytes, data) || o.OutputSize != int64(len(data)) {
			t.Fatalf("from %d: %v %+v, %d bytes", from, err, o.Status, len(m.bytes))
		}
	}
	cmd.Limits.Head = 1000
	if o, out := once(t, c, cmd); len(out) != 1000 || !bytes.Equal(o.Tail, data[len(data)-65536:]) {
		t.Errorf("head %d, tail %d at %d", len(out), len(o.Tail), o.TailOffset)
	}
	if n := count(t, b.host.Dir()+"/count"); n != 1 {
		t.Errorf("ran %d times", n)
	}
	if err := c.Forget(testContext(t), cmd.Key); err != nil {
		t.Error(err)
	}
	var wild []string
	for i := 1; i < 256; i++ {
		wild = append(wild, fmt.Sprintf("%c'%c", i, byte(i)), string([]byte{byte(i), '\'', byte(i)}))
	}
	o, out := once(t, c, Command{Key: key("argv"), Argv: append([]string{"env", "printf", "%s."}, wild...)})
	var want bytes.Buffer
	for _, w := range wild {
		want.WriteString(w + ".")
	}
	if o.ExitCode != 0 || out != want.String() {
		t.Errorf("argv changed: %d %q", o.ExitCode, out)
	}
	if _, err := c.Once(testContext(t), sh("bytes", "other"), 0, &memory{}); KindOf(err) != KeyConflict {
		t.Error(err)
	}
	written := file("/etc/a.conf", "a\n$b", 0o640)
	for _, keep := range []bool{false, true} {
		if err := c.WriteFile(testContext(t), written, keep, "docker"); err != nil {
			t.Error(err)
		}
	}
	found, err := c.ReadFile(testContext(t), "/etc/a.conf")
	if err != nil || !found.Holds(written.Content) || string(found.Content.Reveal()) != "a\n$b" || found.Mode != 0o640 {
		t.Errorf("%+v %v", found, err)
	}
	written.Content = secret.NewText([]byte("b"))
	if err := c.WriteFile(testContext(t), written, true, "docker"); err != nil || exists(b.root("/etc/a.conf.before-commissaire")) {
		t.Errorf("%v, or a backup of our own", err)
	}
	if marks, err := c.Marks(testContext(t)); err != nil || len(marks) != 1 || marks[0] != "docker" {
		t.Error(marks, err)
	}
	slow := sh("slow", "echo begun; sleep 300 & sleep 300")
	start(t, c, slow)
	b.awaitOutput(t, slow.Key)
	if err := c.Cancel(testContext(t), slow.Key, 2*time.Second); err != nil {
		t.Error(err)
	}
	if o, _ := once(t, c, slow); o.State != Exited || o.ExitCode != 143 {
		t.Errorf("%+v", o)
	}
	stubborn := sh("stubborn", `trap "" TERM; echo begun; while :; do sleep 1; done`)
	start(t, c, stubborn)
	b.awaitOutput(t, stubborn.Key)
	if err := c.Cancel(testContext(t), stubborn.Key, time.Second); err != nil {
		t.Error(err)
	}
	if o, _ := once(t, c, stubborn); o.State != Exited || o.ExitCode != 137 || !o.Told {
		t.Errorf("%+v", o)
	}
	killed := sh("killed", `echo early; until [ -e "$FLEET_HOST/go" ]; do sleep 1; done; echo late`)
	start(t, c, killed)
	b.awaitOutput(t, killed.Key)
	if err := syscall.Kill(b.runner(t, killed.Key), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.host.Dir()+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if o, out := once(t, c, killed); o.State != Indeterminate || out != "early\nlate\n" {
		t.Errorf("%+v %q", o, out)
	}
	early := sh("early", "true")
	if err := c.Cancel(testContext(t), early.Key, 0); err != nil {
		t.Error(err)
	}
	if o, _ := once(t, c, early); o.State != Cancelled {
		t.Errorf("%+v", o)
	}
	if s, err := c.Status(testContext(t), key("none")); err != nil || s.State != Absent {
		t.Errorf("%v %+v", err, s)
	}
	startedLongAgo(t, b.dir(cmd.Key))
	longAgo(t, b.dir(cmd.Key))
	b.pruneAgain(t)
	once(t, c, sh("last", "true"))
	eventually(t, "the old run aged out", func() bool { return !exists(b.dir(cmd.Key)) })
}

func (b *bundle) awaitOutput(t testing.TB, key Key) {
	t.Helper()
	eventually(t, "it prints", func() bool { out, err := os.ReadFile(b.dir(key) + "/out"); return err == nil && len(out) > 0 })
}

func BenchmarkOnce(b *testing.B) {
	h := setup(b)
	c := h.conn(b)
	n := 0
	run := func(b *testing.B, c *Conn) {
		n++
		if o, err := c.Once(testContext(b), Command{Key: key(fmt.Sprint(n)), Argv: []string{"true"}}, 0, &memory{}); err != nil || o.State != Exited {
			b.Fatal(err, o)
		}
	}
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			run(b, c)
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			c, err := h.dialer.Dial(testContext(b), h.target)
			if err != nil {
				b.Fatal(err)
			}
			run(b, c)
			_ = c.Close()
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Read(testContext(b), []string{"true"}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
