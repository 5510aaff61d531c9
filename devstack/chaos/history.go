package chaos

import (
	"context"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
)

// walk reads the history of a workflow and those of all workflows that it
// started.
func (l *lane) walk(ctx context.Context, workflowID, runID string, see func(workflowID string, e *historypb.HistoryEvent)) error {
	events := l.Temporal.GetWorkflowHistory(ctx, workflowID, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		e, err := events.Next()
		if err != nil {
			return fmt.Errorf("history of %s: %w", workflowID, err)
		}
		see(workflowID, e)
		if child := e.GetChildWorkflowExecutionStartedEventAttributes().GetWorkflowExecution(); child != nil {
			if err := l.walk(ctx, child.GetWorkflowId(), child.GetRunId(), see); err != nil {
				return err
			}
		}
	}
	return nil
}
