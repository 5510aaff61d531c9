package workflows

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Step is an activity by its types: the workflow runs it and the worker binds
// a function to it, so a wrong signature does not compile and workflows never
// import what activities import.
type Step[In, Out any] struct{ Name string }

// Run runs the step under the options of ctx and waits for its result.
func (s Step[In, Out]) Run(ctx workflow.Context, in In) (out Out, err error) {
	err = workflow.ExecuteActivity(ctx, s.Name, in).Get(ctx, &out)
	return out, err
}

// Bind makes fn the effect of the step on a worker.
func (s Step[In, Out]) Bind(r worker.ActivityRegistry, fn func(context.Context, In) (Out, error)) {
	r.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: s.Name})
}

// Steps that move the record on. They touch Postgres only.
var (
	BeginOperation = Step[OperationRef, OperationBegun]{"operation.begin"}
	NextHost       = Step[OperationRef, NextHostResult]{"operation.next-host"}
	EndOperation   = Step[OperationEnd, Nothing]{"operation.end"}
	BeginHost      = Step[HostRef, HostBegun]{"host.begin"}
	EndHost        = Step[HostEnd, Nothing]{"host.end"}
)

// Steps on a host, over SSH.
var (
	Investigate = Step[HostStep, Nothing]{"host.investigate"}
	Prepare     = Step[HostStep, Nothing]{"host.prepare"}
	Check       = Step[HostStep, Boot]{"host.check"}
	Reboot      = Step[RebootStep, Nothing]{"host.reboot"}
	AwaitBoot   = Step[RebootStep, Nothing]{"host.wait"}
	Verify      = Step[RebootStep, Nothing]{"host.verify"}
)

// Nothing is the result of a step that only has an effect.
type Nothing struct{}

// OperationRef names an operation.
type OperationRef struct {
	Tenant      string `json:"tenant"`
	OperationID string `json:"operation"`
}

// OperationBegun says what an operation is about to do.
type OperationBegun struct {
	Ended bool `json:"ended,omitempty"` // by another run of the workflow; nothing is left to do
	Hosts int  `json:"hosts"`
}

// NextHostResult is the host that comes next. Both empty: none is left.
type NextHostResult struct {
	Address string `json:"address,omitempty"`
	Stop    string `json:"stop,omitempty"` // why the operation must not go on
}

// OperationEnd is how an operation ended.
type OperationEnd struct {
	OperationRef
	State  fleet.OperationState `json:"state"`
	Reason string               `json:"reason,omitempty"`
}

// HostRef names one host's part in an operation.
type HostRef struct {
	OperationRef
	Address string `json:"address"`
}

// HostBegun says whether the host is ours now.
type HostBegun struct {
	HeldBy string             `json:"heldBy,omitempty"` // the operation that holds the host
	Ended  fleet.HostRunState `json:"ended,omitempty"`  // it ended before; nothing is left to do
	Reason string             `json:"reason,omitempty"`
}

// HostEnd is how one host's part ended.
type HostEnd struct {
	HostRef
	State  fleet.HostRunState `json:"state"`
	Reason string             `json:"reason,omitempty"`
	Event  fleet.HostEvent    `json:"event,omitempty"` // what it means for the host's state
}

// HostStep is a step on a host.
type HostStep struct {
	HostRef
	Step        string        `json:"step"`
	Attempt     int           `json:"attempt"`
	Unreachable time.Duration `json:"unreachable"` // how long the host may be out of reach
}

// RebootStep is a step of a reboot away from the boot with this id.
type RebootStep struct {
	HostStep
	BootID string `json:"bootId"`
}

// Boot is one boot of a host, by /proc/sys/kernel/random/boot_id.
type Boot struct {
	BootID string `json:"bootId"`
}
