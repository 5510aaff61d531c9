package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// A schedule per source that is to be refreshed orders its syncs. Every API process sees
// to it that Temporal has these and no others of their kind.

const (
	refreshPrefix = "refresh/"
	// An order that no worker takes keeps the next one from coming until then.
	refreshLimit = 10 * time.Minute
)

// KeepRefreshes keeps the schedules of Temporal that order syncs as the settings say,
// until ctx ends. When nothing is refreshed, there is nothing left to do after the first
// time.
func (d *Dispatcher) KeepRefreshes(ctx context.Context, tenant string, sources []fleet.Source) {
	wanted := map[string]fleet.Source{}
	for _, s := range sources {
		if s.Refresh > 0 {
			wanted[refreshID(tenant, s)] = s
		}
	}
	said := ""
	for {
		err := d.setRefreshes(ctx, tenant, wanted)
		wait := schedulesEvery
		switch {
		case err == nil && len(wanted) == 0:
			return
		case err != nil && ctx.Err() == nil:
			wait = clustersEvery
			if err.Error() != said {
				d.log.WarnContext(ctx, "the schedules that refresh host sources cannot be set; this is tried again", "error", err)
			}
		}
		said = fmt.Sprint(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func refreshID(tenant string, s fleet.Source) string { return refreshPrefix + tenant + "/" + s.Name }

// refreshNote says in Temporal what a schedule does. Schedules that are equal have equal
// notes.
func refreshNote(s fleet.Source) string {
	return fmt.Sprintf("Made by Commissaire: asks host source %s every %s.", s.Name, s.Refresh)
}

func (d *Dispatcher) setRefreshes(ctx context.Context, tenant string, wanted map[string]fleet.Source) error {
	ctx, cancel := context.WithTimeout(ctx, schedulesLimit)
	defer cancel()
	there, err := d.schedules(ctx, refreshPrefix, "Refresh")
	if err != nil {
		return err
	}
	var errs []error
	for id, s := range wanted {
		old, known := there[id]
		if known && (old.Note == refreshNote(s) || old.Paused) {
			continue
		}
		if known {
			errs = append(errs, unlessGone(d.client.ScheduleClient().GetHandle(ctx, id).Delete(ctx)))
		}
		errs = append(errs, d.createRefresh(ctx, tenant, id, s))
	}
	for id := range there {
		if _, ok := wanted[id]; !ok {
			errs = append(errs, unlessGone(d.client.ScheduleClient().GetHandle(ctx, id).Delete(ctx)))
		}
	}
	return errors.Join(errs...)
}

func (d *Dispatcher) createRefresh(ctx context.Context, tenant, id string, s fleet.Source) error {
	_, err := d.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:   id,
		Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: s.Refresh, Offset: offset(id, s.Refresh)}}},
		Action: &client.ScheduleWorkflowAction{
			ID:                       id, // Temporal adds the time
			Workflow:                 workflows.Refresh,
			Args:                     []any{workflows.SourceRef{Tenant: tenant, Source: s.Name}},
			TaskQueue:                d.options.TaskQueue,
			WorkflowExecutionTimeout: refreshLimit,
			TypedSearchAttributes:    temporal.NewSearchAttributes(workflows.AttributeKind.ValueSet("refresh")),
			StaticSummary:            "refresh source " + s.Name,
		},
		Overlap:       enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
		CatchupWindow: s.Refresh,
		Note:          refreshNote(s),
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return nil
	}
	return err
}
