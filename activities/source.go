package activities

import (
	"context"
	"errors"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/internal/hostsource"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// SourceStore is what sources need of the store, for one tenant.
type SourceStore interface {
	StartOperation(ctx context.Context, o store.NewOperation) (op fleet.Operation, created bool, err error)
	SyncHosts(ctx context.Context, id string, found map[string]fleet.SourceFacts) (fleet.SyncCounts, error)
}

// Sources are the steps that ask sources for facts of hosts.
type Sources struct {
	Store func(tenant string) SourceStore
	Known []hostsource.Configured
}

// sourceFailedType is the type of an error that says why a source was of no use.
const sourceFailedType = "source-failed"

// Sync asks the source and gives its hosts what it says. It changes nothing there, and
// hosts that a forerunner has done stay as they are, so repeating it is safe.
func (a *Sources) Sync(ctx context.Context, in workflows.SourceInput) (workflows.Synced, error) {
	ctx, stop := alive(ctx)
	defer stop()
	source := a.find(in.Source)
	if source == nil { // perhaps another worker has it
		return workflows.Synced{}, temporal.NewApplicationError("no worker that was asked has a source "+in.Source+" in host-sources; give all servers and workers the same", sourceFailedType)
	}
	found, err := source.Fetch(ctx)
	var known *hostsource.Error
	switch {
	case errors.As(err, &known):
		if known.Said != "" {
			activity.GetLogger(ctx).Warn("a host source failed", "source", in.Source, "reason", known.Reason, "said", known.Said)
		}
		return workflows.Synced{}, temporal.NewApplicationErrorWithOptions("source "+in.Source+": "+printable(known.Reason), sourceFailedType, temporal.ApplicationErrorOptions{NonRetryable: !known.Passes})
	case ctx.Err() != nil:
		return workflows.Synced{}, context.Cause(ctx)
	case err != nil:
		return workflows.Synced{}, err
	}
	counts, err := a.Store(in.Tenant).SyncHosts(ctx, in.OperationID, found)
	return workflows.Synced{Changed: counts.Changed, Same: counts.Same, Missing: counts.Missing, Strangers: len(counts.Strangers) + counts.More}, verdict(ctx, err)
}

// Refresh orders a sync. While one is under way, repeating it orders none.
func (a *Sources) Refresh(ctx context.Context, in workflows.SourceRef) (workflows.Nothing, error) {
	_, _, err := a.Store(in.Tenant).StartOperation(ctx, store.NewOperation{Kind: fleet.KindSync, Source: in.Source, RequestedBy: fleet.BySchedule})
	if fleet.KindOf(err) == fleet.Conflict { // a dry run is under way; the next refresh comes
		err = nil
	}
	return workflows.Nothing{}, verdict(ctx, err)
}

func (a *Sources) find(name string) hostsource.Source {
	for _, s := range a.Known {
		if s.Name == name {
			return s.Ask
		}
	}
	return nil
}
