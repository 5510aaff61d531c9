package versions

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"commissaire/devstack/harness"
	"commissaire/internal/dispatch"
	"commissaire/workflows"
)

// limit is how long something may take that has nothing to wait for: far more
// than it needs, since the machine may be busy.
const limit = 3 * time.Minute

const queue = "toys"

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// nameOf is the test's name as the name of a database, a namespace and a folder.
func nameOf(t *testing.T) string { return unfit.ReplaceAllString(strings.ToLower(t.Name()), "-") }

// toys is a fresh namespace.
type toys struct {
	t *testing.T
	c client.Client
}

func newToys(t *testing.T) *toys {
	t.Helper()
	o := client.Options{HostPort: server.Addr(), Namespace: nameOf(t), Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))}
	require.NoError(t, dispatch.Setup(t.Context(), o))
	c, err := client.NewLazyClient(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return &toys{t: t, c: c}
}

// step is a workflow that waits for signals, one a step, and says by which
// revisions each step was made. Revision 2 has one more command in each step that
// it begins itself, as an upgraded rollout would.
func step(revision int) func(workflow.Context, int) ([]int, error) {
	return func(ctx workflow.Context, steps int) (by []int, err error) {
		for i := range steps {
			workflow.GetSignalChannel(ctx, "go").Receive(ctx, nil)
			if revision > 1 && workflow.GetVersion(ctx, fmt.Sprintf("sleep-%d", i), workflow.DefaultVersion, 1) == 1 {
				if err := workflow.Sleep(ctx, time.Millisecond); err != nil {
					return nil, err
				}
			}
			var r int
			err := workflow.SideEffect(ctx, func(workflow.Context) any { return revision }).Get(&r)
			if err != nil {
				return nil, err
			}
			by = append(by, r)
		}
		return by, nil
	}
}

// worker runs toys of a revision until it is stopped.
func (s *toys) worker(revision int) (stop func()) {
	s.t.Helper()
	w := worker.New(s.c, queue, worker.Options{DeploymentOptions: worker.DeploymentOptions{
		UseVersioning:             true,
		Version:                   worker.WorkerDeploymentVersion{DeploymentName: workflows.Deployment, BuildID: strconv.Itoa(revision)},
		DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	}})
	w.RegisterWorkflowWithOptions(step(revision), workflow.RegisterOptions{Name: "step"})
	require.NoError(s.t, w.Start())
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() { dispatch.KeepCurrent(ctx, s.c, revision, slog.New(slog.DiscardHandler)) })
	stop = sync.OnceFunc(func() { w.Stop(); cancel(); keeping.Wait() })
	s.t.Cleanup(stop)
	return stop
}

func (s *toys) start(id string, steps int) client.WorkflowRun {
	s.t.Helper()
	run, err := s.c.ExecuteWorkflow(s.t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: queue}, "step", steps)
	require.NoError(s.t, err)
	return run
}

func (s *toys) signal(id string) {
	s.t.Helper()
	require.NoError(s.t, s.c.SignalWorkflow(s.t.Context(), id, "", "go", nil))
}

func (s *toys) result(run client.WorkflowRun) (by []int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	require.NoError(s.t, run.Get(ctx, &by))
	return by
}

// current is the revision that Temporal gives operations to, 0 for none.
func (s *toys) current() int {
	s.t.Helper()
	d, err := s.c.WorkerDeploymentClient().GetHandle(workflows.Deployment).Describe(s.t.Context(), client.WorkerDeploymentDescribeOptions{})
	if err != nil || d.Info.RoutingConfig.CurrentVersion == nil {
		return 0
	}
	n, err := strconv.Atoi(d.Info.RoutingConfig.CurrentVersion.BuildID)
	require.NoError(s.t, err)
	return n
}

func (s *toys) failedTasks(id string) (n int) {
	s.t.Helper()
	events := s.c.GetWorkflowHistory(s.t.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		e, err := events.Next()
		require.NoError(s.t, err)
		if e.EventType == enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED {
			n++
		}
	}
	return n
}

// The first worker of a fresh namespace makes its revision current, and an
// operation that waits already begins soon.
func TestTheFirstWorkerBeginsSoon(t *testing.T) {
	t.Parallel()
	s := newToys(t)
	run := s.start("a", 1)
	s.signal("a")
	began := time.Now()
	s.worker(1)
	require.Equal(t, []int{1}, s.result(run))
	t.Logf("the first workflow of the namespace ended %s after its first worker began", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	run = s.start("b", 1)
	s.signal("b")
	require.Equal(t, []int{1}, s.result(run))
	t.Logf("the second one took %s", time.Since(began).Round(time.Millisecond))
}

// Operations under way move to newer code as soon as it is there, while the old
// workers still run, and older code never gets them again.
func TestOperationsMoveToTheNewerRevisionAndStay(t *testing.T) {
	t.Parallel()
	s := newToys(t)
	stopOld := s.worker(1)
	const n, steps = 8, 4
	runs := make([]client.WorkflowRun, n)
	signal := func() {
		for i := range runs {
			s.signal(strconv.Itoa(i))
		}
	}
	for i := range runs {
		runs[i] = s.start(strconv.Itoa(i), steps)
	}
	signal()
	s.until("the first step by revision 1", func() bool { return s.waiting(runs, 1) })

	began := time.Now()
	s.worker(2)
	s.until("revision 2 to be current", func() bool { return s.current() == 2 })
	t.Logf("revision 2 was current %s after its worker began", time.Since(began).Round(time.Millisecond))
	signal()
	s.until("the second step", func() bool { return s.waiting(runs, 2) })
	stopOld()
	signal()
	s.until("the third step", func() bool { return s.waiting(runs, 3) })
	s.worker(1)
	signal()
	for _, run := range runs {
		by := s.result(run)
		require.True(t, slices.IsSorted(by), "never back: %v", by)
		// Task queues learn of a new current revision a moment later, so the second
		// step may still be made by the old one.
		require.Equal(t, []int{1, 2, 2}, slices.Delete(by, 1, 2))
	}
	require.Equal(t, []int{2}, s.result(s.once("late")))
	require.Equal(t, 2, s.current())
	for i := range runs {
		require.Zero(t, s.failedTasks(strconv.Itoa(i)))
	}
}

// Whoever comes first: in the end the newest has it.
func TestRevisionsThatBeginAtOnceAgree(t *testing.T) {
	t.Parallel()
	s := newToys(t)
	var all sync.WaitGroup
	for _, revision := range []int{2, 3, 1, 3, 10, 1, 10, 9} {
		all.Go(func() { s.worker(revision) })
	}
	all.Wait()
	s.until("revision 10 to be current", func() bool { return s.current() == 10 })
	require.Equal(t, []int{10}, s.result(s.once("a")))
}

// Workers of one revision come and go, at times none is there: nothing has to be
// made current again, and what was begun goes on.
func TestWorkersOfARevisionComeAndGo(t *testing.T) {
	t.Parallel()
	s := newToys(t)
	const rounds = 10
	run := s.start("a", rounds)
	for range rounds {
		stop := s.worker(1)
		s.signal("a")
		require.Equal(t, []int{1}, s.result(s.once("b")))
		stop()
	}
	s.worker(1)
	require.Len(t, s.result(run), rounds)
	require.Zero(t, s.failedTasks("a"))
}

// once runs a toy of one step.
func (s *toys) once(id string) client.WorkflowRun {
	s.t.Helper()
	run := s.start(id, 1)
	s.signal(id)
	return run
}

// until waits for a condition.
func (s *toys) until(what string, check func() bool) {
	s.t.Helper()
	require.NoError(s.t, harness.Until(s.t.Context(), limit, what, func() (bool, error) { return check(), nil }))
}

// waiting says whether every workflow has made so many steps.
func (s *toys) waiting(runs []client.WorkflowRun, steps int) bool {
	s.t.Helper()
	for _, run := range runs {
		made := 0
		events := s.c.GetWorkflowHistory(s.t.Context(), run.GetID(), run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			require.NoError(s.t, err)
			if e.GetMarkerRecordedEventAttributes().GetMarkerName() == "SideEffect" {
				made++
			}
		}
		if made < steps {
			return false
		}
	}
	return true
}
