package commctl

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"commissaire/api/client"
)

// childVariable holds the command line of a commctl that a test runs as a process
// of its own.
const childVariable = "COMMCTL_TEST_COMMAND"

// TestChild is that process.
func TestChild(t *testing.T) {
	line := os.Getenv(childVariable)
	if line == "" {
		t.Skip("runs as a child of other tests")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(New(os.Stdin, os.Stdout, os.Stderr, os.Getenv).Run(ctx, strings.Fields(line)))
}

// session is commctl on a terminal.
type session struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	read   chan struct{} // closed when everything was read
	mu     sync.Mutex
	text   string
}

func startSession(t *testing.T, url, line string, width, height uint16, env ...string) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	defer slave.Close()
	// Ctrl-C shows nothing of its own there, and throws nothing away that was printed.
	mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	require.NoError(t, err)
	mode.Lflag = mode.Lflag&^unix.ECHO | unix.NOFLSH
	require.NoError(t, unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, mode))
	require.NoError(t, unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}))

	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".commissaire.json"), fmt.Appendf(nil, `{"endpoint":%q,"token":"cmst_x"}`, url), 0o600))
	s := &session{t: t, master: master, read: make(chan struct{})}
	s.cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	s.cmd.Env = append([]string{"HOME=" + home, childVariable + "=" + line}, env...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, s.cmd.Start())
	go func() {
		defer close(s.read)
		for b := make([]byte, 4096); ; {
			n, err := master.Read(b)
			s.mu.Lock()
			s.text += string(b[:n])
			s.mu.Unlock()
			if err != nil { // EIO: nobody has the other end any more
				return
			}
		}
	}()
	return s
}

func (s *session) printed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

func (s *session) until(what string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return strings.Contains(s.printed(), what) }, 30*time.Second, 10*time.Millisecond, "%q", what)
}

// end waits for the end and gives what then stands on the terminal.
func (s *session) end(code int, width int) []string {
	s.t.Helper()
	_ = s.cmd.Wait()
	<-s.read
	require.Equal(s.t, code, s.cmd.ProcessState.ExitCode(), s.printed())
	v := &terminal{lines: []string{""}, width: width}
	_, err := v.Write([]byte(s.printed()))
	require.NoError(s.t, err)
	return v.lines
}

// On a terminal a long reason ends where the line does, but with -o wide.
func TestTableOnATerminal(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"GET /api/v0/hosts": {200, `[{"address":"192.0.2.1","status":"failed","reason":"ssh: the host does not answer"}]`}})
	for format, want := range map[string]string{"table": "ssh: the host does n…\r", "wide": "ssh: the host does not answer\r"} {
		v := startSession(t, server.URL, "host list -o "+format, 70, 24)
		v.end(0, 70)
		require.Contains(t, v.printed(), want)
	}
}

// On a terminal the hosts at work stand above a summary, drawn in place; failures
// stay, and Ctrl-C leaves the operation alone.
func TestWatchOnATerminal(t *testing.T) {
	t.Parallel()
	begun := []string{
		ev("1-1", "host", client.Event{At: at(1), Address: "192.0.2.10", State: "running"}),
		ev("1-2", "host", client.Event{At: at(1), Address: "192.0.2.11", State: "running"}),
		ev("1-3", "step", client.Event{At: at(1), Address: "192.0.2.10", Step: "upgrade", Attempt: 1, State: "running"}),
	}
	for name, c := range map[string]struct {
		env       []string
		width     uint16
		interrupt bool
	}{
		"colours":     {[]string{"TERM=xterm"}, 80, false},
		"no colours":  {[]string{"TERM=xterm", "NO_COLOR=1"}, 80, false},
		"narrow":      {[]string{"TERM=xterm", "NO_COLOR=1"}, 22, false},
		"dumb":        {[]string{"TERM=dumb"}, 80, false},
		"interrupted": {[]string{"TERM=xterm", "NO_COLOR=1"}, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			finish := make(chan struct{})
			var s *operationServer
			s = newOperationServer(t, func(w http.ResponseWriter, r *http.Request) {
				stream(begun...)(w, r)
				select {
				case <-finish:
				case <-r.Context().Done():
					return
				}
				s.change(func() {
					s.op.State, s.op.Reason = "failed", "a host failed"
					s.hosts = []client.HostRun{{Address: "192.0.2.10", State: "failed", Reason: "step upgrade: no space"}}
					s.steps = []client.Step{{Address: "192.0.2.10", Name: "upgrade", State: "failed", OutputSize: 7}}
				})
				stream(ev("1-4", "host", client.Event{At: at(9), Address: "192.0.2.10", State: "failed", Reason: "step upgrade: no space"}),
					ev("1-5", "host", client.Event{At: at(9), Address: "192.0.2.11", State: "succeeded"}),
					ev("1-6", "operation", client.Event{At: at(9), State: "failed", Reason: "a host failed"}), endOfStream)(w, r)
			})
			v := startSession(t, s.URL, "operations watch "+testID, c.width, 24, c.env...)
			v.until("192.0.2.11")
			if c.interrupt {
				_, err := v.master.WriteString("\x03")
				require.NoError(t, err)
				lines := v.end(exitInterrupted, int(c.width))
				require.Equal(t, []string{"upgrade of web: running, 0/2 done", "The operation goes on. To see it again: commctl operations watch " + testID, ""}, lines[len(lines)-3:])
				return
			}
			close(finish)
			lines := v.end(exitFailed, int(c.width))
			shown := strings.Join(lines, "\n")
			switch name {
			case "colours":
				require.Contains(t, v.printed(), "\x1b[33m  192.0.2.10  ")
				require.Equal(t, []string{"\x1b[31m2026-11-20T14:00:09Z 192.0.2.10: failed: step upgrade: no space\x1b[0m", "\x1b[31mupgrade of web: failed, 1/2 done, 1 failed\x1b[0m"}, lines[:2])
			case "no colours":
				require.NotContains(t, v.printed(), "m  192.0.2.10")
				require.Equal(t, []string{
					"2026-11-20T14:00:09Z 192.0.2.10: failed: step upgrade: no space",
					"upgrade of web: failed, 1/2 done, 1 failed",
					"", "FAILED       AT        BECAUSE", "192.0.2.10   upgrade   no space",
				}, lines[:5])
			case "narrow":
				require.Equal(t, []string{"2026-11-20T14:00:09Z", "192.0.2.10: failed:", "step upgrade: no", "space", "upgrade of web:", "failed, 1/2 done, 1", "failed"}, lines[:7])
			case "dumb":
				require.NotContains(t, v.printed(), "\x1b")
				require.Contains(t, shown, "2026-11-20T14:00:01Z 192.0.2.10: upgrade\n")
			}
		})
	}
}
