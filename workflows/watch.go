package workflows

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// Steps that watch hosts between operations.
var (
	PlanWatch = Step[WatchInput, WatchPlan]{"watch.plan"}
	WatchPage = Step[WatchPageInput, WatchCounts]{"watch.page"}
)

// WatchInput says which hosts are watched and what is made of it.
type WatchInput struct {
	Tenant   string        `json:"tenant"`
	Cluster  string        `json:"cluster,omitempty"` // "" is the hosts that are in none
	Slow     time.Duration `json:"slow"`              // an answer after this is a slow one
	Failures int           `json:"failures"`          // so many failed checks in a row fail a host
	Facts    time.Duration `json:"facts"`             // how old the facts of a host may be
}

// WatchPlan cuts the hosts into pages.
type WatchPlan struct {
	Bounds []string `json:"bounds,omitempty"` // the last address of each page but the last one
}

// WatchPageInput is a page of hosts: those behind one address up to another.
type WatchPageInput struct {
	WatchInput
	After string `json:"after,omitempty"` // "" is the first page
	UpTo  string `json:"upTo,omitempty"`  // "" is the last page
}

// WatchCounts is how many hosts were found how.
type WatchCounts struct {
	Healthy     int `json:"healthy,omitempty"`
	Slow        int `json:"slow,omitempty"`
	Unreachable int `json:"unreachable,omitempty"`
	AuthRefused int `json:"authRefused,omitempty"`
	KeyChanged  int `json:"keyChanged,omitempty"`
	Rebooting   int `json:"rebooting,omitempty"`
	Unknown     int `json:"unknown,omitempty"`   // could not be checked, for reasons of ours
	Overtaken   int `json:"overtaken,omitempty"` // of all of these: something fresher was known
	Lost        int `json:"lost,omitempty"`      // failed by this
	Found       int `json:"found,omitempty"`     // work again
}

func (c *WatchCounts) add(more WatchCounts) {
	c.Healthy += more.Healthy
	c.Slow += more.Slow
	c.Unreachable += more.Unreachable
	c.AuthRefused += more.AuthRefused
	c.KeyChanged += more.KeyChanged
	c.Rebooting += more.Rebooting
	c.Unknown += more.Unknown
	c.Overtaken += more.Overtaken
	c.Lost += more.Lost
	c.Found += more.Found
}

const (
	// WatchPageHosts is how many hosts a page has, and WatchPages how many pages there are
	// at most; hosts beyond both make larger pages. So history stays short.
	WatchPageHosts = 500
	WatchPages     = 200

	watchedAtOnce = 4 // pages of one Watch; what a worker checks at once has a bound of its own
	watchTries    = 3
	watchPlanTime = 15 * time.Second
	// watchPageTime is above what the largest page takes whose hosts are all silent.
	watchPageTime = 30 * time.Minute
	// WatchHeartbeat is the silence after which another worker gets a page.
	WatchHeartbeat = 15 * time.Second
)

// WatchQueue is the task queue of steps that watch, beside that of operations: when many
// hosts are silent, no step of an operation waits for a page of them.
func WatchQueue(operations string) string { return operations + "-watch" }

// onWatch is for steps that watch. What cannot be done now is done by the next Watch.
func onWatch(ctx workflow.Context, limit time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           WatchQueue(workflow.GetInfo(ctx).TaskQueueName),
		StartToCloseTimeout: limit,
		HeartbeatTimeout:    WatchHeartbeat,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: retryFirst, BackoffCoefficient: 2, MaximumInterval: retryMost, MaximumAttempts: watchTries},
		Summary:             summary,
	})
}

// Watch checks the hosts of a cluster once, or those of a tenant that are in none. A
// schedule starts it. Hosts that an operation is at work on are passed over. A page that
// cannot be checked does not keep others from it.
func Watch(ctx workflow.Context, in WatchInput) (counts WatchCounts, err error) {
	plan, err := PlanWatch.Run(onWatch(ctx, watchPlanTime, "pages"), in)
	if err != nil {
		return counts, err
	}
	var errs []error
	pages := workflow.NewWaitGroup(ctx)
	slots := workflow.NewSemaphore(ctx, watchedAtOnce)
	for i := range len(plan.Bounds) + 1 {
		if err := slots.Acquire(ctx, 1); err != nil { // cancelled
			errs = append(errs, err)
			break
		}
		page := WatchPageInput{WatchInput: in}
		if i > 0 {
			page.After = plan.Bounds[i-1]
		}
		if i < len(plan.Bounds) {
			page.UpTo = plan.Bounds[i]
		}
		pages.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer pages.Done()
			defer slots.Release(1)
			found, err := WatchPage.Run(onWatch(ctx, watchPageTime, "hosts up to "+page.UpTo), page)
			counts.add(found)
			errs = append(errs, err)
		})
	}
	pages.Wait(ctx)
	return counts, errors.Join(errs...)
}
