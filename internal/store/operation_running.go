package store

import (
	"context"
	"time"

	"commissaire/internal/fleet"
)

const runningOperationsSQL = `SELECT id::text, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation WHERE state = 'running' AND started < now() - make_interval(secs => $1) ORDER BY id LIMIT $2`

// RunningOperations lists operations of all tenants that began longer than
// olderThan ago and have not ended, oldest first. The dispatcher looks whether
// their workflows are still there.
func (db *DB) RunningOperations(ctx context.Context, olderThan time.Duration, limit int) (ops []fleet.Operation, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		ops, err = collect(ctx, q, scanOperation, runningOperationsSQL, olderThan.Seconds(), limit)
		return err
	})
	return ops, err
}
