package workflows_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"commissaire/activities"
	"commissaire/worker"
	"commissaire/workflows"
)

// endings are the histories that revisions have of each workflow, from the first that
// has it: it came to its end, failed, was cancelled, and stood still for a while in
// between, where it can. make histories records them, and more.
var endings = map[string]struct {
	since int
	names []string
}{
	"Bootstrap":    {1, []string{"finished", "failed", "cancelled", "held"}},
	"Rollout":      {1, []string{"finished", "failed", "cancelled", "paused", "staged", "approved"}},
	"Slot":         {1, []string{"finished", "failed", "cancelled", "settled", "staged", "kept"}},
	"Register":     {2, []string{"finished", "failed", "cancelled", "not-ready"}},
	"Unregister":   {2, []string{"finished", "deleted", "cancelled", "held"}},
	"CheckManager": {2, []string{"finished", "refused", "away"}},
	"ReadNode":     {2, []string{"finished", "away"}},
	"Watch":        {2, []string{"finished", "cancelled"}},
	"Sync":         {2, []string{"finished", "failed", "cancelled"}},
	"Refresh":      {2, []string{"finished", "away"}},
	"Command":      {2, []string{"finished", "failed", "cancelled", "stopped", "long", "continued"}},

	"DiagnoseCluster": {2, []string{"finished", "away"}},
	"Uncordon":        {2, []string{"finished", "away"}},
}

// later are further histories of a workflow that are as old as this revision.
var later = map[int][]string{2: {
	"Bootstrap-registered", "Bootstrap-not-ready", "Rollout-drained", "Slot-drained", "Slot-drained-and-upgraded", "Slot-drained-and-booted",
	"Slot-undrainable", "Slot-not-drained", "Slot-drain-cancelled", "Slot-not-uncordoned",
}}

// registered collects the workflows that a worker runs.
type registered struct {
	sdk.Registry
	workflows []any
}

func (r *registered) RegisterWorkflow(w any) { r.workflows = append(r.workflows, w) }

func (r *registered) RegisterActivityWithOptions(any, activity.RegisterOptions) {}

func allWorkflows() []any {
	var r registered
	worker.Register(&r, new(activities.Record), new(activities.Hosts), new(activities.Nodes), new(activities.Watch), new(activities.Sources), new(activities.Commands))
	return r.workflows
}

func nameOf(w any) string {
	name := runtime.FuncForPC(reflect.ValueOf(w).Pointer()).Name()
	return name[strings.LastIndexByte(name, '.')+1:]
}

// quiet is a log for replays, which say a lot.
func quiet() log.Logger { return log.NewStructuredLogger(slog.New(slog.DiscardHandler)) }

// newReplayer makes one that does not take a workflow for stuck which gets no turn on a busy
// machine for a second.
func newReplayer(t *testing.T) sdk.WorkflowReplayer {
	t.Helper()
	replayer, err := sdk.NewWorkflowReplayerWithOptions(sdk.WorkflowReplayerOptions{DisableDeadlockDetection: true})
	require.NoError(t, err)
	return replayer
}

// An operation that an older revision began goes on under this one.
func TestHistoriesOfEveryRevisionReplay(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/histories/*/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/histories/"), func(t *testing.T) {
			t.Parallel()
			replayer := newReplayer(t)
			for _, w := range allWorkflows() {
				replayer.RegisterWorkflow(w)
			}
			require.NoError(t, replayer.ReplayWorkflowHistoryFromJSONFile(quiet(), file))
		})
	}
}

func TestEveryWorkflowHasItsHistories(t *testing.T) {
	t.Parallel()
	for _, w := range allWorkflows() {
		name := nameOf(w)
		of := endings[name]
		require.GreaterOrEqual(t, len(of.names), 2, "histories of %s", name)
		for revision := of.since; revision <= workflows.Revision; revision++ {
			for _, how := range of.names {
				require.FileExists(t, fmt.Sprintf("testdata/histories/%d/%s-%s.json", revision, name, how))
			}
		}
	}
	for since, names := range later {
		for revision := since; revision <= workflows.Revision; revision++ {
			for _, name := range names {
				require.FileExists(t, fmt.Sprintf("testdata/histories/%d/%s.json", revision, name))
			}
		}
	}
}

var (
	payload  = regexp.MustCompile(`"data":"([^"]*)"`)
	identity = regexp.MustCompile(`"identity":"([^"]*)"`)
)

// Histories say nothing of the machine that recorded them, and hold no secret.
func TestHistoriesTellNothing(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/histories/*/*.json")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, who := range identity.FindAllSubmatch(text, -1) {
			require.Equal(t, "worker", string(who[1]), file)
		}
		for _, p := range payload.FindAllSubmatch(text, -1) {
			plain, err := base64.StdEncoding.DecodeString(string(p[1]))
			require.NoError(t, err)
			text = append(text, plain...)
		}
		for _, trace := range []string{"PRIVATE KEY", "ssh_priv_key", "password", "/root/", "/home/", "/tmp/"} {
			require.NotContains(t, string(text), trace, file)
		}
	}
}

// A replay notices code that does not do what a history says.
func TestReplayNoticesOtherCode(t *testing.T) {
	t.Parallel()
	replayer := newReplayer(t)
	replayer.RegisterWorkflowWithOptions(func(ctx workflow.Context, in workflows.RolloutInput) error {
		return workflow.Sleep(ctx, 1)
	}, workflow.RegisterOptions{Name: "Rollout"})
	err := replayer.ReplayWorkflowHistoryFromJSONFile(quiet(), fmt.Sprintf("testdata/histories/%d/Rollout-finished.json", workflows.Revision))
	require.ErrorContains(t, err, "[TMPRL1100]")
}
