package store

import (
	"context"
	"time"

	"commissaire/internal/fleet"
)

const (
	// Kept by a trigger, so that the number of hosts does not matter.
	progressSQL = `SELECT pending, staging, staged, running, succeeded, failed, skipped, busy FROM rollout WHERE operation_id = $1`

	progressOfOneSQL = `SELECT count(*) FILTER (WHERE state = 'pending'), 0, 0, count(*) FILTER (WHERE state = 'running'),
			count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'skipped'), 0::double precision
		FROM host_run WHERE operation_id = $1`
)

// Progress counts the hosts of an operation.
func (s *Store) Progress(ctx context.Context, id string) (p fleet.Progress, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		op, err := s.operation(ctx, q, operationSQL, id)
		if err == nil {
			p, err = s.progress(ctx, q, op, time.Now())
		}
		return err
	})
	return p, err
}

func (s *Store) progress(ctx context.Context, q querier, op fleet.Operation, now time.Time) (p fleet.Progress, err error) {
	sql := progressSQL
	if !op.Kind.Counted() {
		sql = progressOfOneSQL
	}
	var busy float64 // seconds that the succeeded ones took together
	err = q.QueryRow(ctx, sql, op.ID).Scan(&p.Pending, &p.Staging, &p.Staged, &p.Running, &p.Succeeded, &p.Failed, &p.Skipped, &busy)
	p.Total = op.Hosts
	left := p.Pending + p.Staging + p.Staged + p.Running
	if err != nil || p.Succeeded == 0 || left == 0 || !op.Kind.Rollout() || op.State != fleet.OperationRunning || op.Waiting != "" || !op.Paused.IsZero() {
		return p, err
	}
	// The hosts at work are half done, on average.
	mean := busy / float64(p.Succeeded)
	rounds := (float64(left) - float64(p.Running)/2) / float64(op.Policy.Slots(op.Hosts))
	p.ExpectedEnd = now.Add(time.Duration(max(rounds, 0.5) * mean * float64(time.Second))).UTC()
	return p, nil
}
