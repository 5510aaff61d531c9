package commctl

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// doing stands where Temporal and a worker would be, for commands.
type doing struct {
	noDispatcher
	do func(fleet.Operation)
}

func (d *doing) Start(_ context.Context, op fleet.Operation) {
	if op.Kind == fleet.KindCommand && d.do != nil {
		go d.do(op)
	}
}

// TestRun: what hosts print comes behind their names, how it went on standard error.
func TestRun(t *testing.T) {
	t.Parallel()
	worker := &doing{}
	server, record := newRealAPIWith(t, worker)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).Run())
	run := func(code int, command string) *testApp {
		t.Helper()
		a := appFor(t, server.URL)
		require.Equal(t, code, a.Run(t.Context(), strings.Fields(command)), "%s: %s%s", command, a.out, a.errs)
		return a
	}
	run(0, "cluster create web")
	for _, address := range []string{"192.0.2.10", "192.0.2.11"} {
		run(0, "host create -c web "+address+" "+key)
	}
	run(0, "host labels set 192.0.2.11 env=prod")

	ended := make(chan error, 1)
	worker.do = func(op fleet.Operation) {
		ended <- func() error {
			if _, err := record.BeginOperation(t.Context(), op.ID); err != nil {
				return err
			}
			page, err := record.TakeUpCommand(t.Context(), op.ID, 0, op.Hosts, "")
			if err != nil {
				return err
			}
			var writes []store.CommandWrite
			for i, h := range page.Hosts {
				w := store.CommandWrite{StepID: h.StepID, Data: []byte("6.12\n\x1b[31mred\nno end"), End: fleet.HostRunSucceeded, State: fleet.StepSucceeded}
				if i == 1 {
					w.End, w.State, w.Reason = fleet.HostRunFailed, fleet.StepFailed, "the command ended with exit code 3"+fleet.HostSaid+"no end"
				}
				writes = append(writes, w)
			}
			if err := record.RecordCommands(t.Context(), op.ID, writes); err != nil {
				return err
			}
			_, err = record.EndCommand(t.Context(), op.ID, "", false)
			return err
		}()
	}
	a := run(exitFailed, "run web -- uname -r")
	require.NoError(t, <-ended)
	var lines []string
	for _, host := range []string{"192.0.2.10", "192.0.2.11"} {
		for _, line := range []string{"6.12", "\u241b[31mred", "no end"} {
			lines = append(lines, host+": "+line)
		}
	}
	require.ElementsMatch(t, lines, strings.Split(strings.TrimSpace(a.out.String()), "\n"))
	require.Regexp(t, `^operation [0-9a-f-]{36}: command of web was begun
192\.0\.2\.11: failed: the command ended with exit code 3
operation [0-9a-f-]{36}: 1 of 2 hosts succeeded, 1 failed, 0 skipped, in [0-9.]+m?s

Next:
  commctl logs [0-9a-f-]{36} 192\.0\.2\.11 command
  commctl operations retry [0-9a-f-]{36}
commctl: error: command of web failed: 1 of 2 hosts failed
$`, a.errs.String())

	a = run(0, "run --host 192.0.2.10 -o json web -- uname -r")
	require.NoError(t, <-ended)
	require.Contains(t, a.out.String(), `"state": "succeeded"`)
	require.NotContains(t, a.out.String(), "6.12")
	require.Regexp(t, `^operation [0-9a-f-]{36}: command of web was begun\n$`, a.errs.String())

	// A token may do less than that takes. What it has begun is told in any case.
	limited := func(code int, operations string) *testApp {
		t.Helper()
		token := strings.TrimSpace(run(0, "tokens create --role admin --operation "+operations+" t").out.String())
		a := newTestApp(t)
		a.configure(t, map[string]any{"endpoint": server.URL, "token": token})
		require.Equal(t, code, a.Run(t.Context(), strings.Fields("run web -- uname -r")), a.errs)
		require.NoError(t, <-ended)
		return a
	}
	a = limited(exitUnknown, "runCommand")
	require.Regexp(t, `^operation (\S+): command of web was begun
commctl: error: operation \S+ was begun, and commctl did not see its end: this token may not use getOperation; .* To see it: commctl operations get \S+
$`, a.errs.String())
	a = limited(exitFailed, "runCommand,getOperation")
	require.Empty(t, a.out)
	require.Regexp(t, `^operation \S+: command of web was begun
what the hosts print is not shown: this token may not use listOperationSteps; .*
operation \S+: 1 of 2 hosts succeeded, 1 failed, 0 skipped, in .*

Next:
  commctl operations retry \S+
commctl: error: command of web failed: 1 of 2 hosts failed
$`, a.errs.String())
	a = limited(exitFailed, "runCommand,streamOperationEvents")
	require.Contains(t, a.out.String(), "192.0.2.10: 6.12\n")
	require.Contains(t, a.errs.String(), "192.0.2.11: failed: ")

	worker.do = nil
	id := strings.TrimSpace(run(0, "run --no-wait -o name -l env=prod --timeout 90s --at-once 5 web -- ls -l").out.String())
	op, err := record.Operation(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, []any{1, []string{"ls", "-l"}, "1m30s", 5}, []any{op.Hosts, op.Command.Argv, op.Command.Timeout.String(), op.Command.AtOnce})
	for _, bad := range []string{"run web uname", "run web --", "run -- uname", "run web x -- uname", "run --timeout 1ms web -- uname", "run -l env=test web -- uname", "run a/b web -- uname", "run a/b -- uname"} {
		run(exitUsage, bad)
	}
	a = appFor(t, server.URL)
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"run", "web", "--", "rm", "caf\xe9"}))
	require.Contains(t, a.errs.String(), `argument 1 of the command, "caf\xe9", is not UTF-8`)
	require.Contains(t, run(0, "operations get "+id).out.String(), "Command:       ls -l\nSelector:      env=prod\nTimeout:       1m30s\nAt once:       5\n")
	for _, empty := range [][]string{{"--host", ""}, {"--host", "192.0.2.10,"}, {"-l", ""}, {"--selector", " "}} {
		a := appFor(t, server.URL)
		require.Equal(t, exitUsage, a.Run(t.Context(), append(append([]string{"run"}, empty...), "web", "--", "uname")))
		require.Contains(t, a.errs.String(), "leave it out to run the command on all hosts")
	}
	for _, zero := range []string{"--timeout 0s", "--timeout -1s", "--at-once 0", "--at-once -1"} {
		require.Contains(t, run(exitUsage, "run "+zero+" web -- uname").errs.String(), "leave it out")
	}
	run(exitNotFound, "run none -- uname")
	run(exitConflict, "operations pause "+id)
	run(0, "operations cancel "+id)
	require.Contains(t, run(exitFailed, "operations watch "+id).errs.String(), "commctl operations retry "+id)

	// The name of the cluster means the rollout, whatever was begun after it.
	run(0, "cluster restart start web")
	id = strings.TrimSpace(run(0, "run --no-wait -o name web -- sleep 1000").out.String())
	require.Contains(t, run(0, "operations cancel web").errs.String(), ": restart of web, ")
	require.Contains(t, run(0, "operations cancel web").errs.String(), "Operation "+id+": command of web, ")
}
