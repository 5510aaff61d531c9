package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/internal/profile"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// RecordStore is what the record needs of the store, for one tenant.
type RecordStore interface {
	BeginOperation(ctx context.Context, id string) (fleet.Operation, error)
	EndOperation(ctx context.Context, id string, state fleet.OperationState, reason string) error
	Operation(ctx context.Context, id string) (fleet.Operation, error)
	Claim(ctx context.Context, id string, turn int, hold time.Duration) (store.Claimed, error)
	BeginHostRun(ctx context.Context, id, address string) (fleet.HostRun, error)
	EndHostRun(ctx context.Context, end store.HostRunEnd) (next *store.Assignment, err error)
	EndSlot(ctx context.Context, id string, lost store.Assignment, reason string) error
	HostNode(ctx context.Context, address string) (store.Node, error)
	HostProfile(ctx context.Context, address string) (string, error)
}

// Record moves the record on.
type Record struct {
	Store   func(tenant string) RecordStore
	Profile string // of hosts whose cluster names none
}

// BeginOperation marks an operation running. Repeating it finds it running and
// changes nothing.
func (a *Record) BeginOperation(ctx context.Context, in workflows.OperationRef) (workflows.OperationBegun, error) {
	op, err := a.Store(in.Tenant).BeginOperation(ctx, in.OperationID)
	return workflows.OperationBegun{Ended: op.State.Ended()}, verdict(ctx, err)
}

// Plan hands out the hosts that come next. Repeating a turn gives the hosts again
// that it handed out, and no others; a turn that was overtaken is refused.
func (a *Record) Plan(ctx context.Context, in workflows.PlanInput) (workflows.Planned, error) {
	c, err := a.Store(in.Tenant).Claim(ctx, in.OperationID, in.Turn, in.Hold)
	if err != nil {
		return workflows.Planned{}, verdict(ctx, err)
	}
	planned := workflows.Planned{
		Policy: hostPolicy(c.Operation.Policy), More: c.More, Waiting: c.Waiting, Again: c.Again,
		End: c.End, Ended: c.Operation.State.Ended(), Reason: c.Reason, Progress: c.Progress,
	}
	for _, given := range c.Assignments {
		planned.Hosts = append(planned.Hosts, workflows.Assignment(given))
	}
	return planned, nil
}

// hostPolicy is the part of a policy that concerns one host.
func hostPolicy(p fleet.Policy) workflows.HostPolicy {
	or := func(d *fleet.Duration) time.Duration {
		if d == nil {
			return 0
		}
		return time.Duration(*d)
	}
	h := workflows.HostPolicy{HostTimeout: or(p.HostTimeout), StepTimeout: or(p.StepTimeout), MinReady: or(p.MinReady), Reboot: p.RebootWhen()}
	switch {
	case p.Drain == nil:
		h.Drain = &fleet.Drain{}
	case !p.Drain.Disabled:
		h.Drain = p.Drain
	}
	return h
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
	n, err := a.Store(in.Tenant).HostNode(ctx, in.Address)
	if fleet.KindOf(err) == fleet.NotFound {
		return workflows.HostBegun{}, nil // the next step says so, where it matters
	}
	if err != nil {
		return workflows.HostBegun{}, verdict(ctx, err)
	}
	name, err := a.profile(ctx, in)
	return workflows.HostBegun{Registers: n.Type.HasNodes(), Profile: name}, verdict(ctx, err)
}

// profile is what a bootstrap puts on a host, "" for nothing.
func (a *Record) profile(ctx context.Context, in workflows.HostRef) (string, error) {
	name, err := a.Store(in.Tenant).HostProfile(ctx, in.Address)
	if name == "" {
		name = a.Profile
	}
	if name == profile.None {
		name = ""
	}
	return name, err
}

// EndHost writes down how a host's part ended and what that means for the host's
// state, and hands its slot on. The first ending stands; repeating it changes
// nothing and names the same next host.
func (a *Record) EndHost(ctx context.Context, in workflows.HostEnd) (workflows.HostEnded, error) {
	s := a.Store(in.Tenant)
	next, err := s.EndHostRun(ctx, store.HostRunEnd{
		OperationID: in.OperationID, Address: in.Address, State: in.State, Reason: in.Reason, Event: in.Event, Down: in.Down, Next: in.Next, Turn: in.Turn,
	})
	if err != nil || next == nil {
		return workflows.HostEnded{}, verdict(ctx, err)
	}
	op, err := s.Operation(ctx, in.OperationID) // the policy may have changed meanwhile
	given := workflows.Assignment(*next)
	return workflows.HostEnded{Next: &given, Policy: hostPolicy(op.Policy)}, verdict(ctx, err)
}

// EndSlot takes back the slot of a workflow that was lost. Repeating it, or
// doing it for one that gave its slot back itself, changes nothing.
func (a *Record) EndSlot(ctx context.Context, in workflows.SlotEnd) (workflows.Nothing, error) {
	return workflows.Nothing{}, verdict(ctx, a.Store(in.Tenant).EndSlot(ctx, in.OperationID, store.Assignment(in.Assignment), in.Reason))
}

// mostSurprises is how often a step is repeated over an error that nobody
// foresaw. It may pass; it must not hold a cluster for days.
const mostSurprises = 10

// verdict tells Temporal whether repeating can help: it can while Postgres is
// out of reach, and it cannot when the record itself says no.
func verdict(ctx context.Context, err error) error {
	return verdictAfter(ctx, err, int(activity.GetInfo(ctx).Attempt))
}

// verdictAfter is the verdict on an error that, when nobody foresaw it, is one of so many.
func verdictAfter(ctx context.Context, err error, surprises int) error {
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
	case surprises >= mostSurprises:
		activity.GetLogger(ctx).Error("giving up", "error", err)
		return temporal.NewNonRetryableApplicationError("an unexpected error came again and again; the worker's log says which", "internal", nil)
	default:
		return fmt.Errorf("record: %w", err)
	}
}
