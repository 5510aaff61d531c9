package commctl

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
)

// newCommandServer is an operationServer whose operation is a command.
func newCommandServer(t *testing.T, streams ...http.HandlerFunc) *operationServer {
	t.Helper()
	s := newOperationServer(t, streams...)
	s.op.Kind, s.op.Progress, s.op.Argv = "command", nil, []string{"uname"}
	return s
}

func hostIs(n int, state, reason string) string {
	return ev(fmt.Sprintf("1-%d", n), "host", client.Event{At: at(n), Address: fmt.Sprintf("192.0.2.%d", n), State: state, Reason: reason})
}

func printed(host int, offset int64, text string) string {
	return ev("2-1", "output", client.Event{Address: fmt.Sprintf("192.0.2.%d", host), Step: "command", Attempt: 1, Offset: &offset, Length: len(text), Text: text})
}

// TestRunTells what is known of hosts when it is known, and what is to be done in the end.
func TestRunTells(t *testing.T) {
	t.Parallel()
	end := func(state, reason string) string {
		return ev("3-1", "operation", client.Event{At: at(9), State: state, Reason: reason}) + endOfStream
	}
	for name, c := range map[string]struct {
		events []string
		steps  []client.Step
		code   int
	}{
		"fails": {[]string{
			hostIs(1, "running", ""), hostIs(2, "running", ""),
			ev("1-3", "step", client.Event{Address: "192.0.2.1", Step: "command", State: "running", Reason: "does not answer\x1b[2J"}),
			printed(2, 0, "6.12\n"), hostIs(1, "failed", "unreachable\nfor long"), printed(2, 5, "last"), hostIs(2, "succeeded", ""), end("failed", "1 of 2 hosts failed"),
		}, []client.Step{{Address: "192.0.2.1", Name: "command", State: "failed"}}, exitFailed},
		"end unknown": {[]string{
			hostIs(1, "running", ""), hostIs(1, "failed", "it may still run"), end("failed", "1 of 1 hosts failed"),
		}, []client.Step{{Address: "192.0.2.1", Name: "command", State: "indeterminate"}}, exitFailed},
		"cancelled too late": {[]string{hostIs(1, "running", ""), hostIs(1, "succeeded", ""), end("cancelled", "cancelled by alice")}, nil, exitFailed},
		"long output": {[]string{
			hostIs(1, "running", ""), printed(1, 0, "first\n"), printed(1, 1000, "last\n"), hostIs(1, "succeeded", ""), end("succeeded", ""),
		}, nil, exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCommandServer(t, stream(c.events...))
			s.steps = c.steps
			for _, step := range c.steps {
				s.hosts = append(s.hosts, client.HostRun{Address: step.Address, State: "failed"})
			}
			a, code := s.run(t, "run web -- uname")
			require.Equal(t, c.code, code, a.errs)
			golden(t, "run-"+filepath.Base(t.Name()), "--- out\n"+a.out.String()+"--- err\n"+a.errs.String())
		})
	}
}

// tellingWriter closes told when it is told which hosts are waited for.
type tellingWriter struct {
	io.Writer
	begin string // of what is waited for
	told  chan struct{}
}

func (w *tellingWriter) Write(text []byte) (int, error) {
	if bytes.HasPrefix(text, []byte(w.begin)) && w.told != nil {
		close(w.told)
		w.told = nil
	}
	return w.Writer.Write(text)
}

// TestRunIsQuiet: when nothing comes, it is told which hosts are waited for.
func TestRunIsQuiet(t *testing.T) {
	t.Parallel()
	told := make(chan struct{})
	s := newCommandServer(t, func(w http.ResponseWriter, r *http.Request) {
		stream(hostIs(1, "pending", ""), hostIs(2, "running", ""), hostIs(3, "running", ""), hostIs(3, "succeeded", ""))(w, r)
		select {
		case <-told:
		case <-r.Context().Done():
			return
		}
		stream(hostIs(1, "skipped", "x"), hostIs(2, "succeeded", ""), ev("3-1", "operation", client.Event{At: at(9), State: "succeeded"}), endOfStream)(w, r)
	})
	a := appFor(t, s.URL)
	a.Err = &tellingWriter{a.errs, "waiting for 2 of 3", told}
	c, err := a.client()
	require.NoError(t, err)
	r := a.newRunning(c, s.op)
	r.quiet = time.Millisecond
	require.NoError(t, r.follow(t.Context(), a.App))
	require.Contains(t, a.errs.String(), "waiting for 2 of 3 hosts: 192.0.2.2, 192.0.2.1\n")
}

// TestCommandThatIsBeingEnded says so, in its record's words.
func TestCommandThatIsBeingEnded(t *testing.T) {
	t.Parallel()
	op := client.Operation{Kind: "command", State: "running", CancelRequestedAt: at(1)}
	require.Equal(t, "ends when the hosts at work have ended", waitingFor(op))
	op.Waiting = "ends the commands on the hosts at work"
	require.Equal(t, op.Waiting, waitingText(op))
	op.Kind = "upgrade"
	require.Equal(t, "ends when the hosts at work have ended", waitingText(op))
}

// TestRunOutlivesItsReader: it still tells that the command goes on.
func TestRunOutlivesItsReader(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	s := newCommandServer(t, func(w http.ResponseWriter, r *http.Request) {
		stream(hostIs(1, "running", ""))(w, r)
		<-closed
		stream(printed(1, 0, "y\n"))(w, r)
		<-r.Context().Done()
	})
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".commissaire.json"), fmt.Appendf(nil, `{"endpoint":%q,"token":"cmst_x"}`, s.URL), 0o600))
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer write.Close()
	errs := filepath.Join(home, "errs")
	to, err := os.Create(errs)
	require.NoError(t, err)
	defer to.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = []string{"HOME=" + home, childVariable + "=run web -- yes"}
	cmd.Stdout, cmd.Stderr = write, to
	require.NoError(t, cmd.Start())
	require.NoError(t, read.Close())
	close(closed)
	require.Error(t, cmd.Wait())
	text, err := os.ReadFile(errs)
	require.NoError(t, err)
	require.Equal(t, exitUnknown, cmd.ProcessState.ExitCode(), "%s", text)
	require.Regexp(t, `operation `+testID+` was begun, and commctl did not see its end: .*broken pipe\. To see it: `, string(text))
}
