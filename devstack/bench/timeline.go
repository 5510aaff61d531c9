package bench

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
)

// The phases of an operation, which follow each other.
var phases = []string{"api", "start", "take_up", "hosts", "page_end", "finish", "tell"}

// What the phases are, for people.
var phaseTitles = map[string]string{
	"api":      "API: from the request until the workflow has started (checks, the record, the call to Temporal)",
	"start":    "Temporal: until the first page of hosts is at a worker, with the worker's own transaction at the start",
	"take_up":  "Postgres: until the hosts of that page are taken up",
	"hosts":    "SSH: until the last host's command has ended and is on record",
	"page_end": "Worker: until the last page has ended",
	"finish":   "Temporal: until the workflow has put the end on record",
	"tell":     "API: until the client knows",
}

// timeline is where the time of one operation went.
type timeline struct {
	Phases       map[string]time.Duration
	Wall         time.Duration // by the record
	Client       time.Duration // by the client: the sum of the phases
	Events       int64         // of the workflow's history
	HistoryBytes int64
}

// timeline reads record and history of an operation that has ended.
func (p *product) timeline(ctx context.Context, o order) (timeline, error) {
	t := timeline{Phases: map[string]time.Duration{}, Client: o.finish.Sub(o.sent)}
	var created, finished, stepsBegan, stepsEnded time.Time
	err := p.DB.QueryRow(ctx, `SELECT o.created, o.finished, min(s.started), max(s.finished)
		FROM operation o JOIN step s ON s.operation_id = o.id WHERE o.id = $1::uuid GROUP BY o.id`, o.id).Scan(&created, &finished, &stepsBegan, &stepsEnded)
	if err != nil {
		return t, err
	}
	t.Wall = finished.Sub(created)
	id := "command/default/" + o.id
	info, err := p.Temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return t, fmt.Errorf("workflow %s: %w", id, err)
	}
	t.Events, t.HistoryBytes = info.GetWorkflowExecutionInfo().GetHistoryLength(), info.GetWorkflowExecutionInfo().GetHistorySizeBytes()
	var events []*historypb.HistoryEvent
	for all := p.Temporal.GetWorkflowHistory(ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); all.HasNext(); {
		e, err := all.Next()
		if err != nil {
			return t, err
		}
		events = append(events, e)
	}
	workflowStarted, pageStarted, pageEnded := marks(events)
	at := o.sent
	for i, until := range []time.Time{workflowStarted, pageStarted, stepsBegan, stepsEnded, pageEnded, finished, o.finish} {
		if until.Before(at) {
			until = at // the record's times are those of the beginning of transactions
		}
		t.Phases[phases[i]] = until.Sub(at)
		at = until
	}
	return t, nil
}

// marks are the times at which a workflow started, its first activity was given to a
// worker, and its last one ended. Local activities are none of these.
func marks(events []*historypb.HistoryEvent) (started, taken, ended time.Time) {
	for _, e := range events {
		at := e.GetEventTime().AsTime()
		switch e.GetEventType() {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			started = at
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			if taken.IsZero() {
				taken = at
			}
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED, enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED, enumspb.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
			ended = at
		}
	}
	return started, taken, ended
}
