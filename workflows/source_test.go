package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

var cmdb = workflows.SourceInput{OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: "o"}, Source: "cmdb"}

// syncing plays the record and a source. ended is how the operation ended, and asked how
// often the source was.
func syncing(t *testing.T, begun workflows.OperationBegun, sync func(ctx context.Context, asked int) error) (env *testsuite.TestWorkflowEnvironment, ended *workflows.OperationEnd, asked *int) {
	ended, asked = new(workflows.OperationEnd), new(int)
	env = new(testsuite.WorkflowTestSuite).NewTestWorkflowEnvironment()
	patient(env)
	env.RegisterWorkflow(workflows.Sync)
	env.RegisterActivityWithOptions(func(_ context.Context, in workflows.OperationRef) (workflows.OperationBegun, error) {
		require.Equal(t, cmdb.OperationRef, in)
		return begun, nil
	}, activity.RegisterOptions{Name: workflows.BeginOperation.Name})
	env.RegisterActivityWithOptions(func(ctx context.Context, in workflows.SourceInput) (workflows.Synced, error) {
		require.Equal(t, cmdb, in)
		*asked++
		return workflows.Synced{Changed: 1}, sync(ctx, *asked)
	}, activity.RegisterOptions{Name: workflows.SyncSource.Name})
	env.RegisterActivityWithOptions(func(_ context.Context, in workflows.OperationEnd) (workflows.Nothing, error) {
		*ended = in
		return workflows.Nothing{}, nil
	}, activity.RegisterOptions{Name: workflows.EndOperation.Name})
	return env, ended, asked
}

func TestSync(t *testing.T) {
	t.Parallel()
	away := errors.New("it does not answer")
	broken := temporal.NewNonRetryableApplicationError("source cmdb: it is no list in JSON", "source-failed", nil)
	for name, c := range map[string]struct {
		sync  func(context.Context, int) error
		asked int
		state fleet.OperationState
		why   string
	}{
		"good":          {func(context.Context, int) error { return nil }, 1, fleet.OperationSucceeded, ""},
		"away at first": {func(_ context.Context, asked int) error { return map[bool]error{true: away}[asked < 3] }, 3, fleet.OperationSucceeded, ""},
		"away":          {func(context.Context, int) error { return away }, 3, fleet.OperationFailed, "it does not answer"},
		"broken":        {func(context.Context, int) error { return broken }, 1, fleet.OperationFailed, "source cmdb: it is no list in JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, ended, asked := syncing(t, workflows.OperationBegun{}, c.sync)
			env.ExecuteWorkflow(workflows.Sync, cmdb)
			require.Equal(t, c.state != fleet.OperationSucceeded, env.GetWorkflowError() != nil)
			require.Equal(t, c.asked, *asked)
			require.Equal(t, workflows.OperationEnd{OperationRef: cmdb.OperationRef, State: c.state, Reason: c.why}, *ended)
		})
	}
}

func TestSyncThatHasEnded(t *testing.T) {
	t.Parallel()
	env, _, asked := syncing(t, workflows.OperationBegun{Ended: true}, func(context.Context, int) error { return nil })
	env.ExecuteWorkflow(workflows.Sync, cmdb)
	require.NoError(t, env.GetWorkflowError())
	require.Zero(t, *asked)
}

func TestSyncIsCancelled(t *testing.T) {
	t.Parallel()
	env, ended, _ := syncing(t, workflows.OperationBegun{}, func(context.Context, int) error { return errors.New("it does not answer") })
	env.RegisterDelayedCallback(env.CancelWorkflow, 1500*time.Millisecond) // between two tries
	env.ExecuteWorkflow(workflows.Sync, cmdb)
	require.Error(t, env.GetWorkflowError())
	require.Equal(t, fleet.OperationCancelled, ended.State)
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	for _, broken := range []error{nil, errors.New("Postgres is away")} {
		env := new(testsuite.WorkflowTestSuite).NewTestWorkflowEnvironment()
		patient(env)
		env.RegisterWorkflow(workflows.Refresh)
		in, ordered := workflows.SourceRef{Tenant: fleet.DefaultTenant, Source: "cmdb"}, 0
		env.RegisterActivityWithOptions(func(_ context.Context, ref workflows.SourceRef) (workflows.Nothing, error) {
			require.Equal(t, in, ref)
			ordered++
			return workflows.Nothing{}, broken
		}, activity.RegisterOptions{Name: workflows.OrderRefresh.Name})
		env.ExecuteWorkflow(workflows.Refresh, in)
		require.Equal(t, broken != nil, env.GetWorkflowError() != nil)
		require.Equal(t, map[bool]int{false: 1, true: 3}[broken != nil], ordered, "the next refresh comes anyway")
	}
}
