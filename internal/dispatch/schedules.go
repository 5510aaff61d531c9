package dispatch

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// A schedule per cluster, and one per tenant for hosts in none, starts the workflow that
// checks their hosts. Every API process sees to it that Temporal has these and no others
// of their kind: what a process does not come to, another one does, or the next look.

// WatchOptions say how hosts are watched. An Interval of 0 watches none.
type WatchOptions struct {
	Interval time.Duration // between two checks of a host
	Slow     time.Duration // an answer after this is a slow one
	Failures int           // so many failed checks in a row fail a host
	Facts    time.Duration // how old the facts of a host may be
}

const (
	schedulesEvery = time.Minute     // a look at what Temporal has
	clustersEvery  = 2 * time.Second // a look whether clusters came or went
	schedulesLimit = 30 * time.Second
	schedulesPage  = 1000

	// What was missed for longer, while Temporal was down, is not made up for.
	watchCatchup = 10 * time.Second
	// Until then, a Watch that no worker takes keeps the next one from starting.
	watchLimit = time.Hour
	// jitterPart is the part of the interval by which a check may come later.
	jitterPart = 10

	watchPrefix = "watch/"
)

// Watched lists what there is to watch, over all tenants.
type Watched interface {
	Watched(ctx context.Context) ([]fleet.Watched, error)
}

// KeepSchedules keeps the schedules of Temporal as they should be, until ctx ends. When
// nothing is watched, there is nothing left to do after the first time.
func (d *Dispatcher) KeepSchedules(ctx context.Context, record Watched, o WatchOptions) {
	var had []fleet.Watched
	var looked time.Time // when all was well
	said := ""
	tick := time.NewTicker(clustersEvery)
	defer tick.Stop()
	for {
		now, err := record.Watched(ctx)
		if err == nil && (!slices.Equal(now, had) || time.Since(looked) >= schedulesEvery) {
			if err = d.setSchedules(ctx, record, o); err == nil {
				had, looked = now, time.Now()
			}
		}
		switch {
		case err == nil && o.Interval == 0:
			return
		case err != nil && ctx.Err() == nil && err.Error() != said:
			d.log.WarnContext(ctx, "the schedules that watch hosts cannot be set; this is tried again", "error", err)
		}
		said = fmt.Sprint(err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// setSchedules makes the schedules that are missing, changes those that say something
// else, and deletes those that are for nothing.
func (d *Dispatcher) setSchedules(ctx context.Context, record Watched, o WatchOptions) error {
	ctx, cancel := context.WithTimeout(ctx, schedulesLimit)
	defer cancel()
	there, err := d.schedules(ctx, watchPrefix, "Watch")
	if err != nil {
		return err
	}
	// Read after them, so that one that somebody else has made for a new cluster is none
	// that is for nothing.
	wanted := map[string]fleet.Watched{}
	if o.Interval > 0 {
		all, err := record.Watched(ctx)
		if err != nil {
			return err
		}
		for _, w := range all {
			wanted[scheduleID(w)] = w
		}
	}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		s, known := there[id]
		switch {
		case !known:
			errs = append(errs, d.createSchedule(ctx, wanted[id], o))
		case s.Note != o.note() && !s.Paused: // who paused it may have noted why
			errs = append(errs, d.updateSchedule(ctx, wanted[id], o))
		}
	}
	for id := range there {
		if _, ok := wanted[id]; !ok {
			errs = append(errs, unlessGone(d.client.ScheduleClient().GetHandle(ctx, id).Delete(ctx)))
		}
	}
	return errors.Join(errs...)
}

// schedules lists those of ours that start a workflow, by their ids. The list may lag
// behind what was done a moment ago, which is why doing it twice is no error.
func (d *Dispatcher) schedules(ctx context.Context, prefix, flow string) (ours map[string]*client.ScheduleListEntry, err error) {
	list, err := d.client.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: schedulesPage})
	if err != nil {
		return nil, err
	}
	ours = map[string]*client.ScheduleListEntry{}
	for list.HasNext() {
		s, err := list.Next()
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(s.ID, prefix) && s.WorkflowType.Name == flow {
			ours[s.ID] = s
		}
	}
	return ours, nil
}

func scheduleID(w fleet.Watched) string {
	if w.Cluster == "" {
		return watchPrefix + w.Tenant
	}
	return watchPrefix + w.Tenant + "/" + w.Cluster
}

// note says in Temporal what a schedule does. Equal options have equal notes.
func (o WatchOptions) note() string {
	return fmt.Sprintf("Made by Commissaire: checks hosts every %s; an answer after %s is slow; %d failed checks in a row fail a host; facts are at most %s old.", o.Interval, o.Slow, o.Failures, o.Facts)
}

// offset spreads schedules over their interval: else all would begin at the same second.
func offset(id string, every time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return time.Duration(h.Sum64() % uint64(every)).Truncate(time.Second)
}

func (o WatchOptions) spec(id string) client.ScheduleSpec {
	return client.ScheduleSpec{
		Intervals: []client.ScheduleIntervalSpec{{Every: o.Interval, Offset: offset(id, o.Interval)}},
		Jitter:    o.Interval / jitterPart,
	}
}

func (d *Dispatcher) watchAction(w fleet.Watched, o WatchOptions) *client.ScheduleWorkflowAction {
	attributes := []temporal.SearchAttributeUpdate{workflows.AttributeKind.ValueSet("watch")}
	summary := "check hosts in no cluster"
	if w.Cluster != "" {
		attributes = append(attributes, workflows.AttributeCluster.ValueSet(w.Cluster))
		summary = "check hosts of cluster " + w.Cluster
	}
	return &client.ScheduleWorkflowAction{
		ID:                       scheduleID(w), // Temporal adds the time
		Workflow:                 workflows.Watch,
		Args:                     []any{workflows.WatchInput{Tenant: w.Tenant, Cluster: w.Cluster, Slow: o.Slow, Failures: o.Failures, Facts: o.Facts}},
		TaskQueue:                d.options.TaskQueue,
		WorkflowExecutionTimeout: watchLimit,
		TypedSearchAttributes:    temporal.NewSearchAttributes(attributes...),
		StaticSummary:            summary,
	}
}

func (d *Dispatcher) createSchedule(ctx context.Context, w fleet.Watched, o WatchOptions) error {
	id := scheduleID(w)
	_, err := d.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:            id,
		Spec:          o.spec(id),
		Action:        d.watchAction(w, o),
		Overlap:       enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
		CatchupWindow: watchCatchup,
		Note:          o.note(),
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return nil
	}
	return err
}

// updateSchedule changes what a schedule does. Whether it is paused stays.
func (d *Dispatcher) updateSchedule(ctx context.Context, w fleet.Watched, o WatchOptions) error {
	id := scheduleID(w)
	spec := o.spec(id)
	return unlessGone(d.client.ScheduleClient().GetHandle(ctx, id).Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(old client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			s := old.Description.Schedule
			s.Spec, s.Action, s.State.Note = &spec, d.watchAction(w, o), o.note()
			return &client.ScheduleUpdate{Schedule: &s}, nil
		},
	}))
}

func unlessGone(err error) error {
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return nil
	}
	return err
}
