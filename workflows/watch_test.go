package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

var watchWeb = workflows.WatchInput{Tenant: fleet.DefaultTenant, Cluster: "web", Slow: time.Second, Failures: 3, Facts: time.Hour}

// watching plays pages of hosts: what each finds, or why it cannot be checked.
func watching(t *testing.T, bounds []string, page func(workflows.WatchPageInput) (workflows.WatchCounts, error)) *testsuite.TestWorkflowEnvironment {
	env := new(testsuite.WorkflowTestSuite).NewTestWorkflowEnvironment()
	patient(env)
	env.RegisterWorkflow(workflows.Watch)
	env.RegisterActivityWithOptions(func(_ context.Context, in workflows.WatchInput) (workflows.WatchPlan, error) {
		require.Equal(t, watchWeb, in)
		return workflows.WatchPlan{Bounds: bounds}, nil
	}, activity.RegisterOptions{Name: workflows.PlanWatch.Name})
	env.RegisterActivityWithOptions(func(_ context.Context, in workflows.WatchPageInput) (workflows.WatchCounts, error) {
		return page(in)
	}, activity.RegisterOptions{Name: workflows.WatchPage.Name})
	return env
}

func TestWatchChecksEveryPageOnce(t *testing.T) {
	t.Parallel()
	for _, pages := range []int{1, 2, 5, 40} {
		var bounds []string
		for i := range pages - 1 {
			bounds = append(bounds, fmt.Sprintf("h%02d", i))
		}
		var mu sync.Mutex
		var seen []string
		atWork, most := 0, 0
		env := watching(t, bounds, func(in workflows.WatchPageInput) (workflows.WatchCounts, error) {
			mu.Lock()
			seen = append(seen, in.After+"-"+in.UpTo)
			atWork++
			most = max(most, atWork)
			mu.Unlock()
			time.Sleep(5 * time.Millisecond) // so that pages can meet
			mu.Lock()
			atWork--
			mu.Unlock()
			return workflows.WatchCounts{Healthy: 1, Slow: 2, Unreachable: 3, AuthRefused: 4, KeyChanged: 5, Rebooting: 6, Unknown: 7, Overtaken: 8, Lost: 9, Found: 10}, nil
		})
		env.ExecuteWorkflow(workflows.Watch, watchWeb)
		require.NoError(t, env.GetWorkflowError())
		var counts workflows.WatchCounts
		require.NoError(t, env.GetWorkflowResult(&counts))
		n := pages
		require.Equal(t, workflows.WatchCounts{Healthy: n, Slow: 2 * n, Unreachable: 3 * n, AuthRefused: 4 * n, KeyChanged: 5 * n, Rebooting: 6 * n, Unknown: 7 * n, Overtaken: 8 * n, Lost: 9 * n, Found: 10 * n}, counts)
		slices.Sort(seen)
		want, after := []string{}, ""
		for _, b := range append(bounds, "") {
			want, after = append(want, after+"-"+b), b
		}
		require.Equal(t, want, seen)
		require.LessOrEqual(t, most, 4)
	}
}

func TestAPageThatCannotBeCheckedKeepsNoOtherFromIt(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tries := map[string]int{}
	env := watching(t, []string{"a", "b"}, func(in workflows.WatchPageInput) (workflows.WatchCounts, error) {
		mu.Lock()
		defer mu.Unlock()
		tries[in.UpTo]++
		if in.UpTo == "a" || in.UpTo == "b" && tries["b"] < 3 {
			return workflows.WatchCounts{}, errors.New("the database does not answer")
		}
		return workflows.WatchCounts{Healthy: 1}, nil
	})
	env.ExecuteWorkflow(workflows.Watch, watchWeb)
	require.ErrorContains(t, env.GetWorkflowError(), "the database does not answer")
	require.Equal(t, map[string]int{"a": 3, "b": 3, "": 1}, tries)
}

func TestACancelledWatchEnds(t *testing.T) {
	t.Parallel()
	env := watching(t, []string{"a", "b", "c", "d", "e", "f"}, func(workflows.WatchPageInput) (workflows.WatchCounts, error) {
		return workflows.WatchCounts{Healthy: 1}, nil
	})
	env.RegisterDelayedCallback(env.CancelWorkflow, 0)
	env.ExecuteWorkflow(workflows.Watch, watchWeb)
	var cancelled *temporal.CanceledError
	require.ErrorAs(t, env.GetWorkflowError(), &cancelled)
}
