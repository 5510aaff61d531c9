package activities

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// RecordStore is what the record needs of the store, for one tenant.
type RecordStore interface {
	BeginOperation(ctx context.Context, id string) (fleet.Operation, error)
	EndOperation(ctx context.Context, id string, state fleet.OperationState, reason string) error
	NextHosts(ctx context.Context, id string, limit int) (addresses []string, stop string, err error)
	HostRuns(ctx context.Context, id string) ([]fleet.HostRun, error)
	BeginHostRun(ctx context.Context, id, address string) (fleet.HostRun, error)
	EndHostRun(ctx context.Context, id, address string, state fleet.HostRunState, reason string, event fleet.HostEvent) error
}

// Record moves the record on.
type Record struct {
	Store func(tenant string) RecordStore
}

// BeginOperation marks an operation running and counts its hosts. Repeating it
// finds it running and changes nothing.
func (a *Record) BeginOperation(ctx context.Context, in workflows.OperationRef) (workflows.OperationBegun, error) {
	store := a.Store(in.Tenant)
	op, err := store.BeginOperation(ctx, in.OperationID)
	if err != nil {
		return workflows.OperationBegun{}, verdict(ctx, err)
	}
	if op.State.Ended() {
		return workflows.OperationBegun{Ended: true}, nil
	}
	runs, err := store.HostRuns(ctx, in.OperationID)
	if err != nil {
		return workflows.OperationBegun{}, verdict(ctx, err)
	}
	return workflows.OperationBegun{Hosts: len(runs)}, nil
}

// NextHost asks which host comes next. It only reads, but for leaving out hosts
// that are no longer there, which is the same each time.
func (a *Record) NextHost(ctx context.Context, in workflows.OperationRef) (workflows.NextHostResult, error) {
	addresses, stop, err := a.Store(in.Tenant).NextHosts(ctx, in.OperationID, 1)
	if err != nil {
		return workflows.NextHostResult{}, verdict(ctx, err)
	}
	out := workflows.NextHostResult{Stop: stop}
	if len(addresses) > 0 && stop == "" {
		out.Address = addresses[0]
	}
	return out, nil
}

// EndOperation writes down how an operation ended. The first ending stands;
// repeating it changes nothing.
func (a *Record) EndOperation(ctx context.Context, in workflows.OperationEnd) (workflows.Nothing, error) {
	return workflows.Nothing{}, verdict(ctx, a.Store(in.Tenant).EndOperation(ctx, in.OperationID, in.State, in.Reason))
}

// BeginHost takes a host for an operation, or says who holds it. Repeating it
// finds the host taken by the same operation and changes nothing.
func (a *Record) BeginHost(ctx context.Context, in workflows.HostRef) (workflows.HostBegun, error) {
	run, err := a.Store(in.Tenant).BeginHostRun(ctx, in.OperationID, in.Address)
	var e *fleet.Error
	if errors.As(err, &e) && e.Kind == fleet.Conflict && e.Holder != nil {
		return workflows.HostBegun{HeldBy: e.Holder.ID}, nil
	}
	if err != nil {
		return workflows.HostBegun{}, verdict(ctx, err)
	}
	if run.State.Ended() {
		return workflows.HostBegun{Ended: run.State, Reason: run.Reason}, nil
	}
	return workflows.HostBegun{}, nil
}

// EndHost writes down how a host's part ended and what that means for the
// host's state. The first ending stands; repeating it changes nothing.
func (a *Record) EndHost(ctx context.Context, in workflows.HostEnd) (workflows.Nothing, error) {
	return workflows.Nothing{}, verdict(ctx, a.Store(in.Tenant).EndHostRun(ctx, in.OperationID, in.Address, in.State, in.Reason, in.Event))
}

// mostSurprises is how often a step is repeated over an error that nobody
// foresaw. It may pass; it must not hold a cluster for days.
const mostSurprises = 10

// verdict tells Temporal whether repeating can help: it can while Postgres is
// out of reach, and it cannot when the record itself says no.
func verdict(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch kind := fleet.KindOf(err); {
	case kind == fleet.Unavailable:
		return fmt.Errorf("record: %w", err)
	case kind != "":
		var e *fleet.Error
		errors.As(err, &e)
		return temporal.NewNonRetryableApplicationError(e.Detail, string(kind), nil)
	case activity.GetInfo(ctx).Attempt >= mostSurprises:
		activity.GetLogger(ctx).Error("giving up", "error", err)
		return temporal.NewNonRetryableApplicationError("an unexpected error came again and again; the worker's log says which", "internal", nil)
	default:
		return fmt.Errorf("record: %w", err)
	}
}
