package versions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"

	"commissaire/devstack/harness"
	"commissaire/devstack/overlay"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

const root = "../.."

// What the next releases change in the workflows. A guarded change is made only
// where the old code has not been yet; the other one meets histories without it.
const (
	question = "	planned, err := Plan.Run("
	look     = "	before, err := Check.Run("

	guarded = `	if workflow.GetVersion(ctx, fmt.Sprintf("turn-%d", r.in.Turn), workflow.DefaultVersion, 1) == 1 {
		if err := workflow.Sleep(ctx, 10_000_000); err != nil {
			return Planned{}, err
		}
	}
`
	guardedLook = `	if workflow.GetVersion(ctx, "` + marker + `", workflow.DefaultVersion, 1) == 1 {
		if err := workflow.Sleep(ctx, 10_000_000); err != nil {
			return err
		}
	}
`
	unguarded = `	if err := workflow.Sleep(ctx, 10_000_000); err != nil {
		return Planned{}, err
	}
`
	marker = "look-later"
)

// The releases, each built once, by the name of what they do.
var (
	present = build("present")
	next    = build("next", overlay.Revision(workflows.Revision, workflows.Revision+1),
		overlay.Edit{File: "workflows/rollout.go", Old: question, New: guarded + question},
		overlay.Edit{File: "workflows/slot.go", Old: look, New: guardedLook + look})
	wrong = build("wrong", overlay.Revision(workflows.Revision, workflows.Revision+1),
		overlay.Edit{File: "workflows/rollout.go", Old: question, New: unguarded + question})
	mended = build("mended", overlay.Revision(workflows.Revision, workflows.Revision+2))
)

type release func(t *testing.T) (binary string)

func build(name string, edits ...overlay.Edit) release {
	path := sync.OnceValues(func() (string, error) {
		out := filepath.Join(workDir, "commissaire-"+name)
		return out, overlay.Build(context.Background(), root, out, edits...)
	})
	return func(t *testing.T) string {
		t.Helper()
		binary, err := path()
		require.NoError(t, err)
		return binary
	}
}

// site is an installation of the present release. The others that its test needs
// are built before it begins, since nothing waits for them later.
type site struct {
	*harness.Installation
	t *testing.T
}

func newSite(t *testing.T, hosts int, later ...release) *site {
	t.Helper()
	for _, of := range later {
		of(t)
	}
	i, err := harness.New(t.Context(), harness.Options{
		Dir: workDir, Name: strings.ReplaceAll(nameOf(t), "-", "_"), Binary: present(t), Postgres: postgres, Temporal: server.Addr(), Hosts: hosts,
		// A host may be held for as long as a worker takes to start.
		Env: []string{"COMMISSAIRE_LOG_LEVEL=info", "COMMISSAIRE_STEP_TIMEOUT=" + limit.String(), "COMMISSAIRE_REBOOT_TIMEOUT=" + limit.String()},
	})
	require.NoError(t, err)
	t.Cleanup(i.Close)
	return &site{Installation: i, t: t}
}

// worker starts a worker of a release, which ends with the test.
func (s *site) worker(of release) *exec.Cmd {
	s.t.Helper()
	binary := of(s.t)
	cmd := exec.Command(binary, "worker")
	cmd.Env = s.Environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, s.Launch(cmd, filepath.Base(binary)))
	s.t.Cleanup(func() { harness.Kill(cmd) })
	return cmd
}

// log is what the workers of a release have said.
func (s *site) log(of release) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, filepath.Base(of(s.t))+".log"))
	require.NoError(s.t, err)
	return string(text)
}

func (s *site) until(what string, check func() bool) {
	s.t.Helper()
	require.NoError(s.t, harness.Until(s.t.Context(), limit, what, func() (bool, error) { return check(), nil }))
}

func (s *site) call(method, path string, body any) {
	s.t.Helper()
	require.NoError(s.t, s.Call(s.t.Context(), method, path, body))
}

// state is the state of the latest operation that fits a filter, and its id.
func (s *site) state(filter string) (state, id string) {
	s.t.Helper()
	r, err := s.Request(s.t.Context(), http.MethodGet, "operations?limit=1&"+filter, nil)
	require.NoError(s.t, err)
	var page struct {
		Operations []struct{ ID, State, Reason string }
	}
	require.NoError(s.t, json.Unmarshal(r.Body, &page), "%s", r.Body)
	require.Len(s.t, page.Operations, 1, filter)
	require.Empty(s.t, page.Operations[0].Reason)
	return page.Operations[0].State, page.Operations[0].ID
}

func (s *site) succeeds(filter string) {
	s.t.Helper()
	s.until("the end of the operation with "+filter, func() bool {
		state, _ := s.state(filter)
		return state == "succeeded"
	})
}

// cluster makes a cluster of bootstrapped hosts.
func (s *site) cluster(name string, hosts ...*remotetest.Host) {
	s.t.Helper()
	s.call(http.MethodPut, "cluster/"+name, map[string]any{})
	for _, h := range hosts {
		body := s.HostBody(h)
		body["cluster"] = name
		s.call(http.MethodPut, "host/"+url.PathEscape(h.Address()), body)
	}
	for _, h := range hosts {
		s.succeeds("kind=bootstrap&host=" + url.QueryEscape(h.Address()))
	}
}

// hold has a host wait with its reboot until it is released; waits says that it does.
func hold(t *testing.T, h *remotetest.Host) (waits func() bool, release func()) {
	t.Helper()
	began, goOn := filepath.Join(h.Dir(), "began"), filepath.Join(h.Dir(), "go-on")
	require.NoError(t, h.OnCommand("systemctl", `[ "$1" != reboot ] || { touch `+began+`; until [ -e `+goOn+` ]; do sleep 0.1; done; }`))
	waits = func() bool {
		_, err := os.Stat(began)
		return err == nil
	}
	return waits, func() { require.NoError(t, os.WriteFile(goOn, nil, 0o600)) }
}

// histories are the events of every workflow of the installation, by workflow id.
func (s *site) histories() map[string][]*historypb.HistoryEvent {
	s.t.Helper()
	list, err := s.Temporal.ListWorkflow(s.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1000})
	require.NoError(s.t, err)
	out := map[string][]*historypb.HistoryEvent{}
	for _, w := range list.Executions {
		events := s.Temporal.GetWorkflowHistory(s.t.Context(), w.Execution.WorkflowId, w.Execution.RunId, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			require.NoError(s.t, err)
			out[w.Execution.WorkflowId] = append(out[w.Execution.WorkflowId], e)
		}
	}
	return out
}

// failures are the workflow tasks that failed, as code that does not fit a
// history makes them.
func failures(histories map[string][]*historypb.HistoryEvent) (out []string) {
	for id, events := range histories {
		for _, e := range events {
			if a := e.GetWorkflowTaskFailedEventAttributes(); a != nil {
				out = append(out, fmt.Sprintf("%s: %s: %s", id, a.Cause, a.GetFailure().GetMessage()))
			}
		}
	}
	return out
}

// guards are the guarded changes that a workflow has gone through.
func guards(events []*historypb.HistoryEvent) (n int) {
	for _, e := range events {
		if e.GetMarkerRecordedEventAttributes().GetMarkerName() == "Version" {
			n++
		}
	}
	return n
}

// Several rollouts are under way, one is paused. Workers of the next release
// begin beside the old ones, of which one is then killed and one stopped. Every
// rollout goes on under the new code and ends well, every host reboots once.
func TestWorkersAreUpgradedInTheMiddleOfRollouts(t *testing.T) {
	t.Parallel()
	const clusters, hostsEach = 4, 3
	s := newSite(t, clusters*hostsEach, next)
	old := []*exec.Cmd{s.worker(present), s.worker(present)}
	hosts := s.Fleet.Hosts()
	name := func(i int) string { return fmt.Sprintf("c%d", i) }
	of := func(i int) []*remotetest.Host { return hosts[i*hostsEach : (i+1)*hostsEach] }
	for i := range clusters {
		s.cluster(name(i), of(i)...)
	}
	paused := clusters - 1
	reboots, goOn := hold(t, of(paused)[0]) // until it is paused
	var release []func()
	for i := range clusters {
		of(i)[0].SetReboot(remotetest.Reboot{Shutdown: 5 * time.Second}) // the workers change meanwhile
		if i != paused {
			_, next := hold(t, of(i)[1]) // and have changed before the last host begins
			release = append(release, next)
		}
		s.call(http.MethodPut, "cluster/"+name(i)+"/restart", nil)
	}
	s.until("the first host to reboot", reboots)
	_, id := s.state("cluster=" + name(paused))
	s.call(http.MethodPost, "operations/"+id+"/pause", nil)
	goOn()
	for i := range clusters {
		s.until("the first host to reboot", func() bool { return of(i)[0].Count("systemctl", "reboot") == 1 })
	}

	s.worker(next)
	s.worker(next)
	s.until("the next release to be current", func() bool {
		return strings.Contains(s.log(next), "Temporal gives operations to workers of this revision")
	})
	harness.Kill(old[0])
	require.NoError(t, old[1].Process.Signal(syscall.SIGTERM))
	require.NoError(t, old[1].Wait())
	for _, r := range release {
		r()
	}
	for i := range paused {
		s.succeeds("cluster=" + name(i))
	}

	// Resumed by a newer worker, while somebody starts an old one again.
	s.worker(present)
	s.until("the old release to say that it gets nothing", func() bool {
		return strings.Contains(s.log(present), "Temporal gives operations to newer workers")
	})
	require.Zero(t, of(paused)[1].Reboots())
	s.call(http.MethodPost, "operations/"+id+"/resume", nil)
	s.succeeds("cluster=" + name(paused))

	for _, h := range hosts {
		require.Equal(t, 1, h.Count("systemctl", "reboot"), h.Name())
		require.Equal(t, 1, h.Reboots(), h.Name())
	}
	var histories map[string][]*historypb.HistoryEvent
	s.until("Temporal to list all bootstraps, rollouts and slots", func() bool {
		histories = s.histories()
		return len(histories) == len(hosts)+clusters+len(hosts)
	})
	require.Empty(t, failures(histories))
	for i := range clusters {
		rollout := workflows.ClusterWorkflowID("default", name(i))
		require.Positive(t, guards(histories[rollout]), "%s went on under the new code", rollout)
		slot := func(h *remotetest.Host) int { return guards(histories[rollout+"/"+h.Address()]) }
		require.Zero(t, slot(of(i)[0]), "the old code had begun with the first host")
		require.Equal(t, 1, slot(of(i)[2]), "the new code begins with the last one")
	}
}

// A release whose code does not fit a history that is under way: the rollout
// stands still, nothing is done twice, and the next release brings it to its end.
func TestAWrongReleaseIsMendedByTheNext(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, wrong, mended)
	old := s.worker(present)
	hosts := s.Fleet.Hosts()
	s.cluster("web", hosts...)
	reboots, goOn := hold(t, hosts[0]) // until the workers have changed
	s.call(http.MethodPut, "cluster/web/restart", nil)
	s.until("the first host to reboot", reboots)
	bad := s.worker(wrong)
	s.until("the wrong release to be current", func() bool {
		return strings.Contains(s.log(wrong), "Temporal gives operations to workers of this revision")
	})
	harness.Kill(old)
	goOn()
	s.until("a task to fail", func() bool {
		return strings.Contains(strings.Join(failures(s.histories()), "\n"), enumspb.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR.String())
	})
	state, _ := s.state("cluster=web")
	require.Equal(t, "running", state)
	s.worker(mended)
	s.until("the mended release to be current", func() bool {
		return strings.Contains(s.log(mended), "Temporal gives operations to workers of this revision")
	})
	harness.Kill(bad)
	s.succeeds("cluster=web")
	for _, h := range hosts {
		require.Equal(t, 1, h.Count("systemctl", "reboot"), h.Name())
		require.Equal(t, 1, h.Reboots(), h.Name())
	}
}
