package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Steps of a command on many hosts.
var (
	RunCommands  = Step[CommandPage, CommandCounts]{"command.page"}
	StopCommands = Step[CommandPage, CommandCounts]{"command.stop"}
	EndCommand   = Step[CommandEnd, CommandEnded]{"command.end"}
)

// CommandInput starts a command. What it runs stands in the record.
type CommandInput struct {
	OperationRef
	Hosts  int    `json:"hosts"`            // that it has
	AtOnce int    `json:"atOnce,omitempty"` // hosts at a time, 0 for all
	Timing Timing `json:"timing"`
	From   int    `json:"from,omitempty"`   // the first host that earlier runs of this workflow have not begun
	Failed string `json:"failed,omitempty"` // why a page of theirs did not come to its end, "" when all did
}

// CommandPage is a page of the hosts of a command: those in the places from one up to
// before another.
type CommandPage struct {
	OperationRef
	From        int           `json:"from"`
	To          int           `json:"to"`
	Unreachable time.Duration `json:"unreachable"` // how long a host may be out of reach
}

// CommandCounts is what became of the hosts of a page in one attempt; the record has all.
type CommandCounts struct {
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	Skipped   int `json:"skipped,omitempty"`
	// Stopped: somebody has cancelled the command, so no more hosts begin.
	Stopped bool `json:"stopped,omitempty"`
}

// CommandEnd asks how a command has ended.
type CommandEnd struct {
	OperationRef
	Failed    string `json:"failed,omitempty"`    // why it did not come to its end
	Cancelled bool   `json:"cancelled,omitempty"` // in Temporal
}

// CommandEnded is how it has.
type CommandEnded struct {
	State  fleet.OperationState `json:"state"`
	Reason string               `json:"reason,omitempty"`
}

const (
	// CommandPageHosts is how many hosts a page has at least, where there are so many: one
	// page has one worker. commandPageMost is how many one has at most, so that the history
	// of a large command stays short; commandPages are cut where there are fewer.
	CommandPageHosts = 64
	commandPageMost  = 500
	commandPages     = 4
	// commandPagesAtOnce bounds the pages that workers have at a time, far above what one
	// worker does.
	commandPagesAtOnce = 40

	// CommandHeartbeat is the silence after which another worker gets a page.
	CommandHeartbeat = 5 * time.Second
	// localLimit bounds a step within the task of the workflow, which Temporal gives 10 s.
	localLimit = 3 * time.Second
)

// CommandQueue is the task queue of pages of commands, beside that of operations: each may
// take as long as its slowest host, and no step of an operation waits for that.
func CommandQueue(operations string) string { return operations + "-commands" }

// Command runs one command on many hosts of a cluster, once on each. It holds none of
// them: what it must not do twice is decided by the hosts, and where it stands by the
// record.
func Command(ctx workflow.Context, in CommandInput) error {
	t := in.Timing.WithDefaults()
	begun, err := inTask(ctx, BeginOperation, in.OperationRef, onRecord(ctx, t, "begin"))
	if err == nil && begun.Ended {
		return nil
	}
	next := in.Hosts
	if err == nil {
		next, err = commandOnHosts(ctx, in, t)
	}
	end := CommandEnd{OperationRef: in.OperationRef, Failed: in.Failed}
	switch {
	case ctx.Err() != nil || temporal.IsCanceledError(err):
		end.Cancelled = true
	case err != nil:
		end.Failed = cmp.Or(in.Failed, explain(err))
	}
	if next < in.Hosts && !end.Cancelled {
		in.From, in.Failed = next, end.Failed
		return workflow.NewContinueAsNewError(ctx, Command, in)
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	ended, err := inTask(ctx, EndCommand, end, onRecord(ctx, t, "end"))
	if err != nil {
		return err
	}
	markState(ctx, ended.State)
	if ended.State == fleet.OperationSucceeded {
		return nil
	}
	return temporal.NewNonRetryableApplicationError(ended.Reason, string(ended.State), nil)
}

// commandOnHosts goes over the pages. One that fails keeps no other from its hosts. next is
// the first host that is left to a fresh history, or in.Hosts when no more are to begin.
func commandOnHosts(ctx workflow.Context, in CommandInput, t Timing) (next int, err error) {
	size, most := commandPageSize(in)
	var errs []error
	stopped, atWork := false, 0
	pages := workflow.NewWaitGroup(ctx)
	slots := workflow.NewSemaphore(ctx, int64(most))
	for next = in.From; next < in.Hosts && !stopped; next += size {
		if err := slots.Acquire(ctx, 1); err != nil || stopped { // cancelled
			errs = append(errs, err)
			break
		}
		if next > in.From && long(ctx, atWork) {
			break
		}
		page := CommandPage{OperationRef: in.OperationRef, From: next, To: min(next+size, in.Hosts), Unreachable: t.Unreachable}
		pages.Add(1)
		atWork++
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer pages.Done()
			defer slots.Release(1)
			counts, err := RunCommands.Run(onPage(ctx, t, page), page)
			if ctx.Err() != nil {
				stopCommands(ctx, t, page)
			}
			stopped = stopped || counts.Stopped
			errs = append(errs, err)
			atWork--
		})
	}
	pages.Wait(ctx)
	if stopped {
		next = in.Hosts
	}
	return next, errors.Join(errs...)
}

// stopCommands ends what runs on the hosts of a page, of a command that was cancelled with
// force. It waits for no other command, as it is taken from the queue of operations. What
// cannot be ended so is closed with the operation.
func stopCommands(ctx workflow.Context, t Timing, page CommandPage) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	page.Unreachable = stopTried
	if _, err := StopCommands.Run(onCommand(ctx, t, fmt.Sprintf("end commands on hosts %d to %d", page.From+1, page.To)), page); err != nil {
		workflow.GetLogger(ctx).Warn("commands could not be ended on their hosts", "error", err)
	}
}

// commandPageSize says how many hosts a page has, and how many pages are done at a time.
func commandPageSize(in CommandInput) (size, most int) {
	if in.AtOnce > 0 && in.AtOnce < in.Hosts {
		// Pages one after the other keep the bound wherever they are done.
		return min(in.AtOnce, commandPageMost), max(1, in.AtOnce/commandPageMost)
	}
	return min(commandPageMost, max(CommandPageHosts, (in.Hosts+commandPages-1)/commandPages)), commandPagesAtOnce
}

// onPage is for a page of a command that is run.
func onPage(ctx workflow.Context, t Timing, page CommandPage) workflow.Context {
	ctx = onCommand(ctx, t, fmt.Sprintf("hosts %d to %d", page.From+1, page.To))
	return workflow.WithTaskQueue(ctx, CommandQueue(workflow.GetInfo(ctx).TaskQueueName))
}

// onCommand is for a page of a command. It ends when its last host does, each of which has
// a time limit of its own. A lost worker is replaced, and the next one re-attaches to what
// runs on the hosts.
func onCommand(ctx workflow.Context, t Timing, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: recordDeadline,
		HeartbeatTimeout:    min(t.Heartbeat, CommandHeartbeat),
		WaitForCancellation: true,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 250 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: retryMost},
		Summary:             summary,
	})
}

// inTask runs a short step on the record within the task of the workflow, which costs no
// round through Temporal. Where that does not work it is repeated as others are, under the
// options of otherwise; so it must be safe to repeat.
func inTask[In, Out any](ctx workflow.Context, s Step[In, Out], in In, otherwise workflow.Context) (out Out, err error) {
	local := workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout:    localLimit,
		ScheduleToCloseTimeout: localLimit,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	})
	err = workflow.ExecuteLocalActivity(local, s.Name, in).Get(local, &out)
	var said *temporal.ApplicationError
	if err == nil || temporal.IsCanceledError(err) || errors.As(err, &said) && said.NonRetryable() {
		return out, err
	}
	return s.Run(otherwise, in)
}
