package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Steps that ask sources for facts of hosts.
var (
	SyncSource   = Step[SourceInput, Synced]{"source.sync"}
	OrderRefresh = Step[SourceRef, Nothing]{"source.refresh"}
)

// SourceRef names a source.
type SourceRef struct {
	Tenant string `json:"tenant"`
	Source string `json:"source"`
}

// SourceInput starts the sync of a source.
type SourceInput struct {
	OperationRef
	Source string `json:"source"`
	Timing Timing `json:"timing"`
}

// Synced counts what came of a sync; the record has more.
type Synced struct {
	Changed   int `json:"changed"`
	Same      int `json:"same"`
	Missing   int `json:"missing"`
	Strangers int `json:"strangers"`
}

const (
	// syncLimit is above what the slowest source may take and 100,000 hosts need.
	syncLimit     = 15 * time.Minute
	syncHeartbeat = 15 * time.Second
	syncTries     = 3
	// refreshLimit is for an order, which the next refresh repeats anyway.
	refreshLimit = 15 * time.Second
)

// Sync asks a source for facts of its hosts, and puts on record what has changed. It does
// nothing to the hosts themselves, and waits for no operation that does.
func Sync(ctx workflow.Context, in SourceInput) error {
	t := in.Timing.WithDefaults()
	begun, err := BeginOperation.Run(onRecord(ctx, t, "begin"), in.OperationRef)
	if err == nil && begun.Ended {
		return nil
	}
	if err == nil {
		markState(ctx, fleet.OperationRunning)
		_, err = SyncSource.Run(onSource(ctx, "ask "+in.Source), in)
	}
	end := OperationEnd{OperationRef: in.OperationRef, State: fleet.OperationSucceeded}
	if err != nil {
		end.State, end.Reason = fleet.OperationFailed, explain(err)
	}
	if ctx.Err() != nil || temporal.IsCanceledError(err) {
		end.State, end.Reason = fleet.OperationCancelled, "cancelled"
	}
	return writeEnd(ctx, t, end)
}

// Refresh orders the sync of a source. A schedule starts it; who carries out the order is
// whoever does so with others'.
func Refresh(ctx workflow.Context, in SourceRef) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: refreshLimit,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: retryFirst, BackoffCoefficient: 2, MaximumInterval: retryMost, MaximumAttempts: syncTries},
		Summary:             "order a sync of " + in.Source,
	})
	_, err := OrderRefresh.Run(ctx, in)
	return err
}

// onSource is for the step that asks a source, whose own time limit is shorter. A lost
// worker is replaced.
func onSource(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: syncLimit,
		HeartbeatTimeout:    syncHeartbeat,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: retryFirst, BackoffCoefficient: 2, MaximumInterval: retryMost, MaximumAttempts: syncTries},
		Summary:             summary,
	})
}
