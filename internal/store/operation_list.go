package store

import (
	"context"
	"time"

	"github.com/google/uuid"

	"commissaire/internal/fleet"
)

// Limits of a page of operations.
const (
	DefaultPage = 50
	MaxPage     = 200
)

// OperationFilter chooses operations; "" means any.
type OperationFilter struct {
	Cluster string
	Host    string // all that touched this host, also as a member of a cluster
	Kind    fleet.OperationKind
	State   fleet.OperationState
	Cursor  string // next of the page before, "" for the first
	Limit   int    // 0 means DefaultPage; at most MaxPage
}

const (
	operationSQL = `SELECT id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation WHERE tenant = $1 AND id = $2`

	operationsSQL = `SELECT id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation
		WHERE tenant = $1 AND ($2 = '' OR cluster = $2) AND ($3 = '' OR kind = $3) AND ($4 = '' OR state = $4) AND ($5::uuid IS NULL OR id < $5)
		ORDER BY id DESC LIMIT $6`

	operationsOfHostSQL = `SELECT o.id, o.tenant, o.kind, coalesce(o.cluster, ''), coalesce(o.host, ''), o.state, o.reason, o.requested_by, o.request_id, o.created, o.started, o.finished
		FROM host_run r JOIN operation o ON o.id = r.operation_id
		WHERE r.tenant = $1 AND r.address = $7 AND ($2 = '' OR o.cluster = $2) AND ($3 = '' OR o.kind = $3) AND ($4 = '' OR o.state = $4) AND ($5::uuid IS NULL OR r.operation_id < $5)
		ORDER BY r.operation_id DESC LIMIT $6`

	latestOfClusterSQL = `SELECT id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation WHERE tenant = $1 AND kind = $2 AND cluster = $3 ORDER BY id DESC LIMIT 1`

	latestOfHostSQL = `SELECT id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation WHERE tenant = $1 AND kind = $2 AND host = $3 ORDER BY id DESC LIMIT 1`

	pendingOperationsSQL = `SELECT id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation WHERE state = 'pending' AND created <= now() - make_interval(secs => $1) ORDER BY id LIMIT $2`

	runningOperationsSQL = `SELECT id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation WHERE state = 'running' AND started < now() - make_interval(secs => $1) ORDER BY id LIMIT $2`
)

// Operation gives one operation.
func (s *Store) Operation(ctx context.Context, id string) (op fleet.Operation, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		op, err = s.operation(ctx, q, operationSQL, id)
		return err
	})
	return op, err
}

// operation runs a statement that takes the tenant and an operation id, and
// gives one operation.
func (s *Store) operation(ctx context.Context, q querier, sql, id string) (fleet.Operation, error) {
	if uuid.Validate(id) != nil {
		return fleet.Operation{}, notFound("operation", id)
	}
	op, err := one(ctx, q, scanOperation, sql, s.tenant, id)
	return op, orNotFound(err, "operation", id)
}

// LatestOperation gives the newest operation of a kind on a cluster or a host,
// also when that was deleted since. NotFound when there was none.
func (s *Store) LatestOperation(ctx context.Context, kind fleet.OperationKind, cluster, host string) (op fleet.Operation, err error) {
	sql, noun, name := latestOfClusterSQL, "cluster", cluster
	if cluster == "" {
		sql, noun, name = latestOfHostSQL, "host", host
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		op, err = one(ctx, q, scanOperation, sql, s.tenant, string(kind), name)
		if isNoRows(err) {
			return fleet.Errorf(fleet.NotFound, "there was no %s of %s %q", kind, noun, name)
		}
		return err
	})
	return op, err
}

// Operations lists operations, newest first. next is the cursor of the next
// page, "" on the last one.
func (s *Store) Operations(ctx context.Context, f OperationFilter) (ops []fleet.Operation, next string, err error) {
	if f.Limit <= 0 {
		f.Limit = DefaultPage
	}
	f.Limit = min(f.Limit, MaxPage)
	var before *string
	if f.Cursor != "" {
		if uuid.Validate(f.Cursor) != nil {
			return nil, "", fleet.InvalidField("cursor", "is not one that a list of operations gave")
		}
		before = &f.Cursor
	}
	// One more than asked for says whether there is a next page.
	sql, args := operationsSQL, []any{s.tenant, f.Cluster, string(f.Kind), string(f.State), before, f.Limit + 1}
	if f.Host != "" {
		sql, args = operationsOfHostSQL, append(args, f.Host)
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		ops, err = collect(ctx, q, scanOperation, sql, args...)
		return err
	})
	if len(ops) > f.Limit {
		ops = ops[:f.Limit]
		next = ops[f.Limit-1].ID
	}
	return ops, next, err
}

// PendingOperations lists operations of all tenants that nobody began within
// olderThan, oldest first. The dispatcher starts their workflows.
func (db *DB) PendingOperations(ctx context.Context, olderThan time.Duration, limit int) (ops []fleet.Operation, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		ops, err = collect(ctx, q, scanOperation, pendingOperationsSQL, olderThan.Seconds(), limit)
		return err
	})
	return ops, err
}

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
