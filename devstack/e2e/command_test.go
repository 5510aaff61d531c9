package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

type commandView struct {
	operationView
	Argv     []string
	Timeout  string
	AtOnce   int `json:"at_once"`
	Progress struct{ Total, Pending, Running, Succeeded, Failed, Skipped int }
}

// command runs one on a cluster.
func (s *site) command(cluster string, body map[string]any) (v commandView) {
	s.t.Helper()
	require.NoError(s.t, jsonInto(s.ask(http.StatusCreated, http.MethodPost, "cluster/"+cluster+"/command", body).Body, &v))
	return v
}

func (s *site) commandNow(id string) (v commandView) {
	s.t.Helper()
	s.get("operations/"+id, &v)
	return v
}

func (s *site) commandEnded(id string) (v commandView) {
	s.t.Helper()
	s.until(limit, "the end of the command", func() bool {
		v = s.commandNow(id)
		return v.State != "pending" && v.State != "running"
	})
	return v
}

func shell(script string) map[string]any { return map[string]any{"argv": []string{"sh", "-c", script}} }

// TestCommandWhoseWorkerIsKilled: another worker goes on with what runs on 20 hosts. It
// ran once on each, and all that it printed is on record.
func TestCommandWhoseWorkerIsKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, 20)
	first := s.worker()
	s.bootstrap("web", s.Fleet.Hosts()...)
	dir := t.TempDir()
	ran, open := filepath.Join(dir, "ran"), filepath.Join(dir, "go")
	op := s.command("web", shell(fmt.Sprintf(`echo "${FLEET_HOST##*/}" >>%s; echo begun; until [ -e %s ]; do sleep 0.05; done; echo done`, ran, open)))
	lines := func() int {
		text, _ := os.ReadFile(ran)
		return strings.Count(string(text), "\n")
	}
	s.until(limit, "the command to begin on some hosts", func() bool { return lines() >= 7 })
	harness.Kill(first)
	s.worker()
	s.until(limit, "the command to begin on all hosts", func() bool { return lines() >= 20 })
	require.NoError(t, os.WriteFile(open, nil, 0o644))
	done := s.commandEnded(op.ID)
	require.Equal(t, "succeeded", done.State, done.Reason)
	require.Equal(t, []int{20, 20}, []int{done.Progress.Total, done.Progress.Succeeded})
	require.Equal(t, 20, lines(), "it ran once on each host")
	for _, h := range s.Fleet.Hosts() {
		require.Equal(t, "begun\ndone\n", string(s.output(op.ID, h.Address(), "command")))
	}
}

// TestCommands: what fails says so, what is cancelled ends, and neither has to do with
// what else is done on the hosts.
func TestCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap("web", hosts...)
	dir := t.TempDir()

	op := s.commandEnded(s.command("web", shell(`[ "${FLEET_HOST##*/}" != h2 ] || { echo no; exit 3; }`)).ID)
	require.Equal(t, []any{"failed", "1 of 3 hosts failed", "10m0s"}, []any{op.State, op.Reason, op.Timeout})
	runs := s.hostRuns(op.ID)
	require.Equal(t, "the command ended with exit code 3; it said: no", runs[1].Reason)
	require.Equal(t, "disassociated", s.host(hosts[1]).Status)
	var retry commandView
	require.NoError(t, jsonInto(s.ask(http.StatusCreated, http.MethodPost, "operations/"+op.ID+"/retry", nil).Body, &retry))
	again := s.commandEnded(retry.ID)
	require.Equal(t, []any{"failed", "1 of 1 hosts failed", op.Argv}, []any{again.State, again.Reason, again.Argv})

	// Two at once, one after the other on each host; the second is cancelled in the middle.
	slow := shell("echo begun; until [ -e " + filepath.Join(dir, "go") + " ]; do sleep 0.05; done")
	slow["at_once"] = 2
	op = s.command("web", slow)
	s.until(limit, "two hosts to begin", func() bool { return s.commandNow(op.ID).Progress.Running == 2 })
	s.ask(http.StatusConflict, http.MethodPost, "operations/"+op.ID+"/pause", nil)
	quick := s.commandEnded(s.command("web", shell("true")).ID)
	require.Equal(t, "succeeded", quick.State, "it waits for no other")
	s.ask(http.StatusOK, http.MethodPost, "operations/"+op.ID+"/cancel", nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	op = s.commandEnded(op.ID)
	require.Equal(t, []any{"cancelled", 2, 1}, []any{op.State, op.Progress.Succeeded, op.Progress.Skipped}, op.Reason)

	op = s.command("web", shell("echo begun; exec sleep 300"))
	s.until(limit, "it to print", func() bool {
		return s.commandNow(op.ID).Progress.Running == 3 && len(s.outputs(op.ID)) == 3
	})
	s.ask(http.StatusOK, http.MethodPost, "operations/"+op.ID+"/cancel", map[string]any{"force": true})
	op = s.commandEnded(op.ID)
	require.Equal(t, []any{"cancelled", 3}, []any{op.State, op.Progress.Failed}, op.Reason)
	for _, run := range s.hostRuns(op.ID) {
		require.True(t, strings.HasPrefix(run.Reason, "cancelled by "+op.RequestedBy+"; its command was ended by signal 15"), run.Reason)
	}
}

// TestLongCommandKeepsNoOperationWaiting: beside one that has the one slot of a worker for
// commands, that worker bootstraps a host, and ends the command when it is told to. Another
// command waits for it.
func TestLongCommandKeepsNoOperationWaiting(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "COMMISSAIRE_WORKER_SLOTS=1")
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap("web", hosts[0])
	long := s.command("web", shell("echo begun; exec sleep 300"))
	s.until(limit, "it to print", func() bool { return len(s.outputs(long.ID)) == 1 })
	s.bootstrap("db", hosts[1])
	quick := s.command("db", shell("true"))
	s.until(limit, "it to be accepted by a worker", func() bool { return s.commandNow(quick.ID).State == "running" })
	require.Equal(t, 1, s.commandNow(quick.ID).Progress.Pending)
	s.ask(http.StatusOK, http.MethodPost, "operations/"+long.ID+"/cancel", map[string]any{"force": true})
	require.Equal(t, "cancelled", s.commandEnded(long.ID).State)
	require.Equal(t, "succeeded", s.commandEnded(quick.ID).State)
}

// outputs are the steps of an operation that have printed something.
func (s *site) outputs(id string) (some []stepView) {
	s.t.Helper()
	for _, step := range s.steps(id) {
		if step.OutputSize > 0 {
			some = append(some, step)
		}
	}
	return some
}
