package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

// commctl is built once for all tests.
var commctl = sync.OnceValues(func() (string, error) {
	return filepath.Join(workDir, "commctl"), harness.Build(context.Background(), "../..", workDir, "", "commctl")
})

// commandLine is commctl as one user has it.
type commandLine struct {
	t       *testing.T
	program string
	config  string
}

func (s *site) commandLine() commandLine {
	s.t.Helper()
	program, err := commctl()
	require.NoError(s.t, err)
	text, err := json.Marshal(map[string]any{"endpoint": s.API, "username": harness.User, "password": harness.Password})
	require.NoError(s.t, err)
	config := filepath.Join(s.t.TempDir(), "commissaire.json")
	require.NoError(s.t, os.WriteFile(config, text, 0o600))
	return commandLine{s.t, program, config}
}

func (c commandLine) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Env = append(os.Environ(), "COMMCTL_CONFIG="+c.config)
	return cmd
}

// away is the exit code for a server that can do nothing now, and did nothing.
const away = 8

// run runs a command line that must end with a code, and gives what it printed. It is
// repeated while the server, on a busy machine, can do nothing.
func (c commandLine) run(code int, line string) (out, errs string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	ended := away
	require.NoError(c.t, harness.Until(ctx, limit, "the server, for commctl "+line, func() (bool, error) {
		stdout.Reset()
		stderr.Reset()
		cmd := c.command(ctx, strings.Fields(line)...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		ended = exitCode(c.t, cmd.Run())
		return ended != away, nil
	}))
	require.Equal(c.t, code, ended, "commctl %s\n%s%s", line, &stdout, &stderr)
	return stdout.String(), stderr.String()
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode()
	}
	require.NoError(t, err)
	return 0
}

// background is a command line that runs while the test goes on.
type background struct {
	t    *testing.T
	cmd  *exec.Cmd
	file string // what it prints, errors too
}

func (c commandLine) start(line string) background {
	c.t.Helper()
	cmd := c.command(c.t.Context(), strings.Fields(line)...)
	out, err := os.CreateTemp(c.t.TempDir(), "out-")
	require.NoError(c.t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(c.t, cmd.Start())
	c.t.Cleanup(func() { harness.Kill(cmd) })
	return background{c.t, cmd, out.Name()}
}

func (b background) printed() string {
	text, err := os.ReadFile(b.file)
	require.NoError(b.t, err)
	return string(text)
}

func (b background) end(code int) string {
	b.t.Helper()
	err := b.cmd.Wait()
	require.Equal(b.t, code, exitCode(b.t, err), "%s", b.printed())
	return b.printed()
}

// The story of an upgrade that goes wrong and is mended, told by commctl alone.
func TestCommctlUpgrade(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	for _, h := range hosts {
		require.NoError(t, h.Publish("bash", "2.0"))
	}
	bad := hosts[2]
	require.NoError(t, bad.OnCommand("apt-get", `case " $* " in *" -s "*|*update*) ;; *upgrade*) echo "no space left"; exit 100 ;; esac`))
	c := s.commandLine()

	out, _ := c.run(0, "cluster upgrade start --dry-run -o wide --canary 1 web")
	require.Contains(t, out, "Would begin upgrade of web: 4 hosts, at most 1 at once; 0 may fail\n")
	require.Contains(t, out, "apt-get")
	out, _ = c.run(0, "operations list --kind upgrade -o name")
	require.Empty(t, out, "a dry run begins nothing")

	for i, h := range hosts {
		c.run(0, fmt.Sprintf("host labels set %s rack=r%d", h.Address(), i))
	}
	out, _ = c.run(0, "host list -o name -l rack=r1")
	require.Equal(t, hosts[1].Address()+"\n", out)

	watch := c.start("cluster upgrade start --watch --canary 1 --canary-then approve web")
	s.waiting(s.first("upgrade"), "waits for approval")
	id, _ := c.run(0, "operations list --cluster web --state running -o name")
	id = strings.TrimSpace(id)
	c.run(6, "wait --timeout 5s "+id)
	c.run(0, "wait --for=running "+id)
	paused := c.start("wait --for=paused " + id)
	c.run(0, "operations pause "+id)
	paused.end(0)
	c.run(0, "operations approve "+id)
	out, _ = c.run(0, "operations policy set --max-unavailable 2 "+id)
	require.Contains(t, out, "max_unavailable   2\n")
	out, _ = c.run(0, "operations get "+id)
	require.Regexp(t, `(?m)^State: +running, paused$`, out)
	require.Regexp(t, `(?m)^Hosts: +1/4 done, 3 pending$`, out)
	out, _ = c.run(0, "cluster upgrade start -o name web")
	require.Equal(t, id+"\n", out, "it runs already")
	c.run(0, "operations resume "+id)

	told := watch.end(5)
	for _, line := range []string{
		" upgrade of web: running\n", " upgrade of web: paused by tester\n", " upgrade of web: approved by tester\n",
		" upgrade of web: policy changed by tester: max_unavailable=2\n", " upgrade of web: resumed by tester\n",
		" " + hosts[0].Address() + ": running\n", " " + hosts[0].Address() + ": upgrade\n", " " + hosts[0].Address() + ": succeeded\n",
		" " + bad.Address() + ": upgrade failed: ", "1 failed", "commctl: error: upgrade of web failed: host " + bad.Address(),
		"commctl logs " + id + " " + bad.Address() + " upgrade\n", "commctl operations retry " + id + "\n",
	} {
		require.Contains(t, told, line)
	}
	require.Equal(t, 1, strings.Count(told, " "+hosts[0].Address()+": succeeded\n"))
	c.run(5, "wait "+id)
	c.run(0, "wait --for=failed "+id)
	out, _ = c.run(0, "operations get "+id)
	require.Regexp(t, `(?m)^`+bad.Address()+` +upgrade +`, out, "which host failed at which step")
	require.Contains(t, out, "commctl operations retry "+id)
	out, _ = c.run(0, "logs "+id+" "+bad.Address()+" upgrade")
	require.Equal(t, "Reading package lists...\nno space left\n", out, "byte for byte")
	_, errs := c.run(4, "operations pause "+id)
	require.Contains(t, errs, "commctl: error: ")
	c.run(3, "operations get 019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d")

	require.NoError(t, bad.OnCommand("apt-get", ""))
	out, _ = c.run(0, "operations retry --watch "+id)
	require.Contains(t, out, "upgrade of web: succeeded, ")
	require.Equal(t, "2.0", bad.Package("bash"))
	require.NotContains(t, out, hosts[0].Address(), "what succeeded is left alone")
	c.run(4, "operations retry "+id)
}

// Logs go on over the restart of a server, without a line lost or twice.
func TestCommctlFollowsLogs(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.worker()
	h := s.Fleet.Hosts()[0]
	s.bootstrap(harness.Cluster, h)
	require.NoError(t, h.Publish("bash", "2.0"))
	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, h.OnCommand("apt-get", fmt.Sprintf(`case " $* " in *" -s "*|*update*) ;; *upgrade*)
  i=0; while [ $i -lt 100 ]; do echo "line $i"; i=$((i+1)); [ $i != 50 ] || until [ -e %s ]; do sleep 0.1; done; done ;; esac`, gate)))
	c := s.commandLine()
	op := s.order("upgrade", nil)
	logs := c.start("logs -f " + op.ID + " " + h.Address() + " upgrade")
	all := c.start("logs -f " + op.ID)
	s.until(limit, "the first lines", func() bool {
		return strings.Contains(logs.printed(), "line 49\n") && strings.Contains(all.printed(), "line 49\n")
	})
	harness.Kill(s.Server)
	s.until(limit, "the loss to be noticed", func() bool { return strings.Contains(logs.printed(), "commctl: the server does not answer") })
	server, err := s.Start("server")
	require.NoError(t, err)
	s.Server = server
	require.NoError(t, s.Ready(t.Context()))
	require.NoError(t, os.WriteFile(gate, nil, 0o644))

	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	without := func(text string) string {
		var kept []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "line ") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	require.Equal(t, want.String(), without(logs.end(0)))
	prefix := h.Address() + " upgrade | "
	require.Equal(t, want.String(), without(strings.ReplaceAll(all.end(0), prefix, "")))
	out, _ := c.run(0, "logs "+op.ID+" "+h.Address()+" upgrade")
	require.Equal(t, want.String(), without(out))
}

// What a person does with a host: its key changes, it is trusted anew, and its
// bootstrap is tried again.
func TestCommctlTrustsAHost(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.worker()
	h := s.Fleet.Hosts()[0]
	s.bootstrap(harness.Cluster, h)
	c := s.commandLine()
	_, errs := c.run(0, "host trust "+h.Address())
	require.Contains(t, errs, "is pinned already")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, h.Kill()) // a connection that is still open would rightly be used
	require.NoError(t, h.NewHostKey(ctx))
	_, errs = c.run(5, "host bootstrap start --wait "+h.Address())
	require.Contains(t, errs, "commctl host trust "+h.Address(), "it says what to do")
	c.run(2, "host trust "+h.Address()) // nobody says yes
	out, errs := c.run(0, "host trust --yes -o wide "+h.Address())
	require.Contains(t, out, strings.Join(strings.Fields(h.HostKey())[:2], " "))
	require.Contains(t, errs, "Presented: SHA256:")
	out, _ = c.run(0, "host bootstrap start --watch "+h.Address())
	require.Contains(t, out, "bootstrap of "+h.Address()+": succeeded")
}

// first waits for the first operation of a kind.
func (s *site) first(kind string) (op operationView) {
	s.t.Helper()
	s.until(limit, "an operation", func() bool {
		var page struct{ Operations []operationView }
		s.get("operations?limit=1&kind="+kind, &page)
		if len(page.Operations) > 0 {
			op = page.Operations[0]
		}
		return len(page.Operations) > 0
	})
	return op
}
