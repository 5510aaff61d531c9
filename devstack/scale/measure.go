package scale

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale/simhost"
)

// historiesLimit is how long Temporal may take to list what has ended as ended.
const historiesLimit = 3 * time.Minute

// measure fills in what the record, the worker, Temporal and the hosts say about
// the restart that has ended.
func (l *installation) measure(ctx context.Context, r *Result) error {
	var created, finished time.Time
	var state, reason string
	err := l.DB.QueryRow(ctx, `SELECT created, finished, state, reason FROM operation WHERE id = $1::uuid`, l.operation).
		Scan(&created, &finished, &state, &reason)
	if err != nil {
		return err
	}
	r.Wall = finished.Sub(created)
	if state != "succeeded" {
		r.Problems = append(r.Problems, fmt.Sprintf("the operation %s: %s", state, reason))
	}
	if err := l.verifyHostRuns(ctx, r); err != nil {
		return err
	}
	if r.WorkerMB, err = peakMemory(l.worker); err != nil {
		return err
	}
	if r.EventsMax, err = l.longestHistory(ctx); err != nil {
		return err
	}
	l.verifyReboots(r)
	return nil
}

// verifyHostRuns wants a host run of every host, and ended well.
func (l *installation) verifyHostRuns(ctx context.Context, r *Result) error {
	rows, err := l.DB.Query(ctx, `SELECT state, count(*), min(address || ': ' || reason) FROM host_run
		WHERE operation_id = $1::uuid GROUP BY state`, l.operation)
	if err != nil {
		return err
	}
	defer rows.Close()
	succeeded := 0
	for rows.Next() {
		var state, example string
		var n int
		if err := rows.Scan(&state, &n, &example); err != nil {
			return err
		}
		if state == "succeeded" {
			succeeded = n
			continue
		}
		r.Problems = append(r.Problems, fmt.Sprintf("%d hosts are %s, such as %s", n, state, example))
	}
	if succeeded != r.Hosts {
		r.Problems = append(r.Problems, fmt.Sprintf("%d hosts succeeded, not %d", succeeded, r.Hosts))
	}
	return rows.Err()
}

// verifyReboots wants each host rebooted once, by its own account, and never
// more of them down than the budget.
func (l *installation) verifyReboots(r *Result) {
	var all []simhost.Down
	wrong := 0
	for _, h := range l.hosts.Hosts() {
		downs := h.Downs()
		if len(downs) != 1 {
			if wrong++; wrong == 1 {
				r.Problems = append(r.Problems, fmt.Sprintf("host %s rebooted %d times, not once", h.Address(), len(downs)))
			}
		}
		all = append(all, downs...)
	}
	if wrong > 1 {
		r.Problems = append(r.Problems, fmt.Sprintf("and %d other hosts", wrong-1))
	}
	r.Problems = append(r.Problems, l.hosts.Unknown()...)
	r.OverBudget, r.DownMost = overBudget(all, r.Budget)
}

// overBudget sweeps over the times at which hosts went down: over is at how many
// of them more hosts than the budget were down, most how many were at worst.
func overBudget(downs []simhost.Down, budget int) (over, most int) {
	var starts, ends []time.Time
	for _, d := range downs {
		starts = append(starts, d.Start)
		if !d.Up.IsZero() {
			ends = append(ends, d.Up)
		}
	}
	slices.SortFunc(starts, time.Time.Compare)
	slices.SortFunc(ends, time.Time.Compare)
	up := 0
	for i, start := range starts {
		for up < len(ends) && !ends[up].After(start) {
			up++
		}
		down := i + 1 - up
		most = max(most, down)
		if down > budget {
			over++
		}
	}
	return over, most
}

// longestHistory gives the events of the longest of all workflows. This
// installation has a namespace of its own, and it has run nothing else.
func (l *installation) longestHistory(ctx context.Context) (events int64, err error) {
	err = harness.Until(ctx, historiesLimit, "Temporal to list all workflows as ended", func() (bool, error) {
		var listed, open int
		events = 0
		request := &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1000}
		for {
			page, err := l.Temporal.ListWorkflow(ctx, request)
			if err != nil {
				return false, err
			}
			for _, w := range page.GetExecutions() {
				if w.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
					open++
				}
				events = max(events, w.GetHistoryLength())
			}
			listed += len(page.GetExecutions())
			if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
				break
			}
		}
		return open == 0 && listed > 1, nil // the operation's own, and those that work on its hosts
	})
	return events, err
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s*(\d+) kB$`)

// peakMemory is the largest resident memory that a process has had, in MiB:
// VmHWM of proc_pid_status(5). A process that has ended is an error.
func peakMemory(pid int) (int, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	status, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	m := highWater.FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("%s has no VmHWM", path) // as of a process that nobody has waited for
	}
	kib, err := strconv.Atoi(string(m[1]))
	return kib / 1024, err
}
