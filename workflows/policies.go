package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// Timing holds the time limits that an operator may set. The zero value of a
// member means its default. It travels in the workflow's input, so a running
// operation keeps the limits it began with.
type Timing struct {
	Heartbeat   time.Duration `json:"heartbeat,omitempty"`   // a silent worker is given up after this, default 10 s
	Step        time.Duration `json:"step,omitempty"`        // one step on a host, default 30 min
	Unreachable time.Duration `json:"unreachable,omitempty"` // a host may be unreachable for so long, default 2 min
	Reboot      time.Duration `json:"reboot,omitempty"`      // until a new boot id is seen, default 10 min
	Hold        time.Duration `json:"hold,omitempty"`        // waiting for a host that another operation holds, default 1 h
}

// WithDefaults fills in what is not set.
func (t Timing) WithDefaults() Timing {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&t.Heartbeat, 10*time.Second)
	or(&t.Step, 30*time.Minute)
	or(&t.Unreachable, 2*time.Minute)
	or(&t.Reboot, 10*time.Minute)
	or(&t.Hold, time.Hour)
	return t
}

// recordDeadline bounds how long the record may wait for Postgres. An
// operation outlives any outage that an operator would sit out.
const recordDeadline = 14 * 24 * time.Hour

// Retry intervals.
const (
	retryFirst = time.Second
	retryMost  = 15 * time.Second
	holdFirst  = 2 * time.Second
	holdMost   = time.Minute
)

// onRecord is for steps that only move the record on in Postgres. They are
// short, and are repeated until Postgres answers.
func onRecord(ctx workflow.Context, t Timing, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    t.Heartbeat,
		ScheduleToCloseTimeout: recordDeadline,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 250 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 5 * time.Second},
		Summary:                summary,
	})
}

// Limits of what container managers are asked.
const (
	// registerLimit is above the longest time that a node may be given to become ready.
	registerLimit = time.Hour + 5*time.Minute
	// removeFor is how long a container manager may be away before its node is left to it.
	removeFor   = 24 * time.Hour
	removeMost  = 5 * time.Minute
	removeLimit = 30 * time.Second
	// AskLimit bounds what somebody waits for at the other end of a request.
	AskLimit = 10 * time.Second
	// DiagnoseLimit is that for hundreds of nodes.
	DiagnoseLimit = 20 * time.Second
	// nodeSettleLimit is for a node that was ready before: a moment without an answer of
	// the container manager is not the node's.
	nodeSettleLimit = 30 * time.Second
	// uncordonLimit bounds one attempt to let a node go.
	uncordonLimit = 15 * time.Second
	// UncordonFor is how long a slot tries that. Who comes after it has no such bound.
	UncordonFor = time.Minute
	// UncordonTries is how often it does so at least, also when nobody was there to try
	// for longer than that.
	UncordonTries = 4
	uncordonFirst = 500 * time.Millisecond
	uncordonMost  = 5 * time.Second
	// uncordonBeat is after how much silence another worker tries: a node is closed. A
	// worker that froze may be given one try for each of its pollers.
	uncordonBeat = 2 * time.Second
)

// onRemoval is for a step that is repeated for a day.
func onRemoval(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    removeLimit,
		ScheduleToCloseTimeout: removeFor,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: retryFirst, BackoffCoefficient: 2, MaximumInterval: removeMost},
		Summary:                summary,
	})
}

// onCordon is for letting a node go, which nothing but its success ends: it is short,
// and somebody's node is closed meanwhile. A lost worker is replaced at once.
func onCordon(ctx workflow.Context, t Timing, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    uncordonLimit,
		ScheduleToCloseTimeout: recordDeadline,
		HeartbeatTimeout:       min(t.Heartbeat, uncordonBeat),
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: uncordonFirst, BackoffCoefficient: 1.5, MaximumInterval: uncordonMost},
		Summary:                summary,
	})
}

// whileAsked is for a step whose answer somebody waits for.
func whileAsked(ctx workflow.Context, limit time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    limit,
		ScheduleToCloseTimeout: limit,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: retryFirst, BackoffCoefficient: 2, MaximumInterval: retryMost},
		Summary:                summary,
	})
}

// EndGrace is how long a step may take to say that its time is over.
const EndGrace = 10 * time.Second

// stopLimit bounds how long a host may keep us from ending its command, beside the
// time that it may be out of reach.
const stopLimit = time.Minute

// stopTried is that time for a host with which patience is over already.
const stopTried = 10 * time.Second

// onHost is for steps on a host. limit is the host's own budget: it counts from
// when a worker takes the step, so an outage of ours is not the host's failure.
// A lost worker is replaced, and the step re-attaches to what runs on the host;
// a step that cannot succeed says so itself (a non-retryable error). Cancelling
// waits for the step to end cleanly.
func onHost(ctx workflow.Context, t Timing, limit time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    limit + EndGrace,
		ScheduleToCloseTimeout: recordDeadline,
		HeartbeatTimeout:       t.Heartbeat,
		WaitForCancellation:    true,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: retryFirst, BackoffCoefficient: 2, MaximumInterval: retryMost},
		Summary:                summary,
	})
}
