package dispatch

import (
	"context"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
)

// pollerAge is how long ago a worker may have asked for work and still count. A poll
// lasts a minute, and goes to one of several parts of the queue, of which Temporal
// tells about the first.
const pollerAge = 3 * time.Minute

// Workers says how many workers asked Temporal for steps lately. One that was killed
// counts for 3 minutes more.
func (d *Dispatcher) Workers(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	queue, err := d.client.DescribeTaskQueue(ctx, d.options.TaskQueue, enumspb.TASK_QUEUE_TYPE_ACTIVITY)
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for _, p := range queue.GetPollers() {
		if time.Since(p.GetLastAccessTime().AsTime()) <= pollerAge {
			seen[p.GetIdentity()] = true
		}
	}
	return len(seen), nil
}
