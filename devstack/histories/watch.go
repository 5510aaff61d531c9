package histories

import (
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// watchStories need an installation that watches hosts.
var watchStories = []story{{"watched", []remotetest.OS{debian}, watches}}

// watches are started by hand, so that the one is recorded that is meant: one that finds
// its host well, and one that is cancelled while the host does not answer.
func watches(r *recorder) {
	r.bootstrap()
	id := "watch/" + fleet.DefaultTenant + "/" + r.cluster
	schedule := r.Temporal.ScheduleClient().GetHandle(r.ctx, id)
	r.until("the schedule", func() (bool, error) {
		_, err := schedule.Describe(r.ctx)
		return err == nil, nil
	})
	r.try(func() error { return schedule.Pause(r.ctx, client.SchedulePauseOptions{}) })
	r.until("the last watch by the clock to end", func() (bool, error) {
		open, _, err := r.watch(id)
		return open == "", err
	})
	_, before, err := r.watch(id)
	r.try(func() error { return err })
	r.try(func() error { return schedule.Trigger(r.ctx, client.ScheduleTriggerOptions{}) })
	r.until("a watch", func() (bool, error) {
		open, ended, err := r.watch(id)
		return open == "" && ended > before, err
	})
	r.write(id+"-*", "Watch-finished")

	r.try(r.hosts[0].Hang)
	r.try(func() error { return schedule.Trigger(r.ctx, client.ScheduleTriggerOptions{}) })
	var open string
	r.until("a watch that checks its host", func() (ok bool, err error) {
		if open, _, err = r.watch(id); err != nil || open == "" {
			return false, err
		}
		now, err := r.Temporal.DescribeWorkflowExecution(r.ctx, open, "")
		if err != nil {
			return false, err
		}
		for _, a := range now.PendingActivities {
			ok = ok || a.ActivityType.Name == workflows.WatchPage.Name && a.State == enumspb.PENDING_ACTIVITY_STATE_STARTED
		}
		return ok, nil
	})
	r.try(func() error { return r.Temporal.CancelWorkflow(r.ctx, open, "") })
	r.write(id+"-*", "Watch-cancelled")
	r.try(r.hosts[0].Unhang)
}

// watch gives the workflow of a schedule that runs, "" for none, and how many have ended.
func (r *recorder) watch(id string) (open string, ended int, err error) {
	list, err := r.Temporal.ListWorkflow(r.ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: "WorkflowType = 'Watch'"})
	if err != nil {
		return "", 0, err
	}
	for _, w := range list.Executions {
		switch {
		case !strings.HasPrefix(w.Execution.WorkflowId, id+"-"):
		case w.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
			open = w.Execution.WorkflowId
		default:
			ended++
		}
	}
	return open, ended, nil
}
