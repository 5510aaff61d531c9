package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// commanding plays the record and the pages of a command.
type commanding struct {
	env     *testsuite.TestWorkflowEnvironment
	begin   func(try int) (workflows.OperationBegun, error)
	page    func(context.Context, workflows.CommandPage) (workflows.CommandCounts, error)
	end     workflows.CommandEnded
	begun   int // tries
	mu      sync.Mutex
	pages   [][2]int // that were begun
	stopped [][2]int
	queues  map[string]bool // that steps of pages came from
	atWork  int
	most    int                    // pages at work at once
	ends    []workflows.CommandEnd // that differ
}

var uname = workflows.CommandInput{OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: "o"}}

func newCommanding() *commanding {
	c := &commanding{env: new(testsuite.WorkflowTestSuite).NewTestWorkflowEnvironment(), end: workflows.CommandEnded{State: fleet.OperationSucceeded}, queues: map[string]bool{}}
	c.begin = func(int) (workflows.OperationBegun, error) { return workflows.OperationBegun{}, nil }
	c.page = func(context.Context, workflows.CommandPage) (workflows.CommandCounts, error) {
		return workflows.CommandCounts{}, nil
	}
	patient(c.env)
	c.env.RegisterWorkflow(workflows.Command)
	c.env.RegisterActivityWithOptions(func(context.Context, workflows.OperationRef) (workflows.OperationBegun, error) {
		c.mu.Lock()
		c.begun++
		try := c.begun
		c.mu.Unlock()
		return c.begin(try)
	}, activity.RegisterOptions{Name: workflows.BeginOperation.Name})
	c.env.RegisterActivityWithOptions(func(ctx context.Context, in workflows.CommandPage) (workflows.CommandCounts, error) {
		c.mu.Lock()
		c.pages = append(c.pages, [2]int{in.From, in.To})
		c.queues["run "+activity.GetInfo(ctx).TaskQueue] = true
		c.atWork++
		c.most = max(c.most, c.atWork)
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			c.atWork--
			c.mu.Unlock()
		}()
		return c.page(ctx, in)
	}, activity.RegisterOptions{Name: workflows.RunCommands.Name})
	c.env.RegisterActivityWithOptions(func(ctx context.Context, in workflows.CommandPage) (workflows.CommandCounts, error) {
		c.stopped = append(c.stopped, [2]int{in.From, in.To})
		c.queues["stop "+activity.GetInfo(ctx).TaskQueue] = true
		return workflows.CommandCounts{}, nil
	}, activity.RegisterOptions{Name: workflows.StopCommands.Name})
	c.env.RegisterActivityWithOptions(func(_ context.Context, in workflows.CommandEnd) (workflows.CommandEnded, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !slices.Contains(c.ends, in) { // one that took long is repeated, and changes nothing
			c.ends = append(c.ends, in)
		}
		return c.end, nil
	}, activity.RegisterOptions{Name: workflows.EndCommand.Name})
	return c
}

func (c *commanding) run(hosts, atOnce int) error {
	in := uname
	in.Hosts, in.AtOnce = hosts, atOnce
	return c.goOn(in)
}

func (c *commanding) goOn(in workflows.CommandInput) error {
	c.env.ExecuteWorkflow(workflows.Command, in)
	slices.SortFunc(c.pages, func(a, b [2]int) int { return a[0] - b[0] })
	return c.env.GetWorkflowError()
}

func TestCommandPages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ hosts, atOnce, pages, size, most int }{
		{0, 0, 0, 0, 0},
		{1, 0, 1, 1, 1},
		{50, 0, 1, 50, 1},
		{65, 0, 2, 64, 2},
		{500, 0, 4, 125, 4},
		{10_000, 0, 20, 500, 20},
		{100_000, 0, 200, 500, 40},
		{50, 50, 1, 50, 1},
		{50, 20, 3, 20, 1},
		{5000, 1700, 10, 500, 3},
	} {
		c := newCommanding()
		require.NoError(t, c.run(tt.hosts, tt.atOnce))
		require.Len(t, c.pages, tt.pages, "%+v", tt)
		at := 0
		for _, p := range c.pages {
			require.Equal(t, at, p[0], "each host is in one page")
			at = p[1]
		}
		require.Equal(t, tt.hosts, at)
		if tt.pages > 0 {
			require.Equal(t, tt.size, c.pages[0][1])
		}
		require.LessOrEqual(t, c.most, tt.most)
		require.Equal(t, []workflows.CommandEnd{{OperationRef: uname.OperationRef}}, c.ends)
	}
}

func TestCommandThatFailed(t *testing.T) {
	t.Parallel()
	c := newCommanding()
	c.end = workflows.CommandEnded{State: fleet.OperationFailed, Reason: "2 of 50 hosts failed"}
	require.ErrorContains(t, c.run(50, 0), "2 of 50 hosts failed")
}

// TestCommandGoesOn: one page that cannot be done keeps no other from its hosts.
func TestCommandGoesOn(t *testing.T) {
	t.Parallel()
	c := newCommanding()
	c.page = func(_ context.Context, in workflows.CommandPage) (workflows.CommandCounts, error) {
		if in.From == 0 {
			return workflows.CommandCounts{}, temporal.NewNonRetryableApplicationError("it is broken", "internal", nil)
		}
		return workflows.CommandCounts{}, nil
	}
	require.NoError(t, c.run(200, 0), "the record says how it ended")
	require.Len(t, c.pages, 4)
	require.Equal(t, []workflows.CommandEnd{{OperationRef: uname.OperationRef, Failed: "it is broken"}}, c.ends)
}

// TestCommandBeginsLater: what cannot be done within the workflow's task is repeated as
// other steps are.
func TestCommandBeginsLater(t *testing.T) {
	t.Parallel()
	c := newCommanding()
	c.begin = func(try int) (workflows.OperationBegun, error) {
		if try < 4 {
			return workflows.OperationBegun{}, errors.New("Postgres is away")
		}
		return workflows.OperationBegun{}, nil
	}
	require.NoError(t, c.run(1, 0))
	require.GreaterOrEqual(t, c.begun, 4)
	require.Len(t, c.pages, 1)
}

func TestCommandThatHasEnded(t *testing.T) {
	t.Parallel()
	c := newCommanding()
	c.begin = func(int) (workflows.OperationBegun, error) { return workflows.OperationBegun{Ended: true}, nil }
	require.NoError(t, c.run(50, 0))
	require.Empty(t, c.pages)
	require.Empty(t, c.ends)
}

// TestCommandIsCancelled by somebody who has it on record: no page comes after that.
func TestCommandIsCancelled(t *testing.T) {
	t.Parallel()
	c := newCommanding()
	c.page = func(context.Context, workflows.CommandPage) (workflows.CommandCounts, error) {
		return workflows.CommandCounts{Stopped: true}, nil
	}
	require.NoError(t, c.run(50, 10))
	require.Len(t, c.pages, 1)
	require.Empty(t, c.stopped)
}

// further is what a run leaves to the next one in a fresh history.
func further(t *testing.T, err error) (in workflows.CommandInput) {
	t.Helper()
	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &again)
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &in))
	return in
}

// TestCommandGoesOnInAFreshHistory: a command of any number of pages comes to its end, and what
// failed in an earlier history is known in the last one.
func TestCommandGoesOnInAFreshHistory(t *testing.T) {
	t.Parallel()
	in := uname
	in.Hosts, in.AtOnce = 25, 10
	for from := 0; from < 20; from += 10 {
		c := newCommanding()
		c.env.SetContinueAsNewSuggested(true)
		c.page = func(_ context.Context, in workflows.CommandPage) (workflows.CommandCounts, error) {
			return workflows.CommandCounts{}, temporal.NewNonRetryableApplicationError(fmt.Sprintf("page %d is broken", in.From), "internal", nil)
		}
		in = further(t, c.goOn(in))
		require.Equal(t, [][2]int{{from, from + 10}}, c.pages)
		require.Empty(t, c.ends)
		require.Equal(t, from+10, in.From)
	}
	c := newCommanding()
	c.env.SetContinueAsNewSuggested(true)
	require.NoError(t, c.goOn(in))
	require.Equal(t, [][2]int{{20, 25}}, c.pages)
	require.Equal(t, []workflows.CommandEnd{{OperationRef: uname.OperationRef, Failed: "page 0 is broken"}}, c.ends)
}

// TestCommandAtWorkGoesOnInAFreshHistory once the history is very long: pages at work come
// to their end first.
func TestCommandAtWorkGoesOnInAFreshHistory(t *testing.T) {
	t.Parallel()
	c := newCommanding()
	c.env.SetContinueAsNewSuggested(true)
	c.env.SetCurrentHistoryLength(20_000)
	last := make(chan struct{})
	c.page = func(_ context.Context, in workflows.CommandPage) (workflows.CommandCounts, error) {
		switch in.From {
		case 0:
			<-last
		case 2500:
			close(last)
		}
		return workflows.CommandCounts{}, nil
	}
	require.NoError(t, c.run(3000, 1000))
	require.Len(t, c.pages, 6)

	c = newCommanding()
	c.env.SetContinueAsNewSuggested(true)
	c.env.SetCurrentHistoryLength(20_001)
	require.Equal(t, 500, further(t, c.run(3000, 1000)).From)
	require.Len(t, c.pages, 1)
	require.Zero(t, c.atWork)
}

// TestCommandEndsWithItsHistory when somebody cancels it as that ends: nothing goes on in a
// fresh one.
func TestCommandEndsWithItsHistory(t *testing.T) {
	t.Parallel()
	c := newCommanding()
	c.env.SetContinueAsNewSuggested(true)
	c.page = func(context.Context, workflows.CommandPage) (workflows.CommandCounts, error) {
		return workflows.CommandCounts{Stopped: true}, nil
	}
	require.NoError(t, c.run(50, 10))
	require.Len(t, c.pages, 1)
	require.Len(t, c.ends, 1)

	c = newCommanding()
	c.env.SetContinueAsNewSuggested(true)
	c.env.SetCurrentHistoryLength(20_001)
	c.end = workflows.CommandEnded{State: fleet.OperationCancelled, Reason: "cancelled by alice"}
	c.page = func(ctx context.Context, _ workflows.CommandPage) (workflows.CommandCounts, error) {
		c.env.CancelWorkflow()
		<-ctx.Done()
		return workflows.CommandCounts{}, ctx.Err()
	}
	require.ErrorContains(t, c.run(3000, 1000), "cancelled by alice")
	require.Equal(t, [][2]int{{0, 500}}, c.stopped)
	require.Equal(t, []workflows.CommandEnd{{OperationRef: uname.OperationRef, Cancelled: true}}, c.ends)
}

// TestCommandIsStopped: what runs on hosts of pages that were begun is ended there, without
// waiting for pages of other commands.
func TestCommandIsStopped(t *testing.T) {
	t.Parallel()
	const queue = "default-test-taskqueue" // which the workflow is on here
	c := newCommanding()
	c.end = workflows.CommandEnded{State: fleet.OperationCancelled, Reason: "cancelled by alice"}
	c.page = func(ctx context.Context, _ workflows.CommandPage) (workflows.CommandCounts, error) {
		c.env.CancelWorkflow()
		<-ctx.Done()
		return workflows.CommandCounts{}, ctx.Err()
	}
	require.ErrorContains(t, c.run(50, 10), "cancelled by alice")
	require.Equal(t, [][2]int{{0, 10}}, c.pages)
	require.Equal(t, c.pages, c.stopped)
	require.Equal(t, map[string]bool{"run " + workflows.CommandQueue(queue): true, "stop " + queue: true}, c.queues)
	require.Equal(t, []workflows.CommandEnd{{OperationRef: uname.OperationRef, Cancelled: true}}, c.ends)
}
