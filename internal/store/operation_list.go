package store

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"

	"commissaire/internal/fleet"
)

// Limits of a page.
const (
	DefaultPage = 50
	MaxPage     = 1000
)

// OperationFilter chooses operations; "" means any.
type OperationFilter struct {
	Cluster string
	Host    string // all that touched this host, also as a member of a cluster
	Kind    fleet.OperationKind
	State   fleet.OperationState

	RequestedBy string
	Since       time.Time // created at this time or later; zero means any
	Until       time.Time // created before this time; zero means any

	Cursor string // next of the page before, "" for the first
	Limit  int    // 0 means DefaultPage; at most MaxPage
}

// operationColumns are what scanOperation reads.
const operationColumns = `o.id, o.tenant, o.kind, coalesce(o.cluster, ''), coalesce(o.host, ''), o.manager, o.state, o.reason,
		o.version, coalesce(o.retry_of::text, ''), o.hosts, o.requested_by, o.request_id, o.created, o.started, o.finished,
		coalesce(p.policy, '{}'), p.paused, coalesce(p.paused_by, ''), p.approved, coalesce(p.approved_by, ''),
		p.cancelled, coalesce(p.cancelled_by, ''), coalesce(p.waiting, o.waiting), coalesce(o.source, ''), o.dry_run, o.sync, o.command`

// selectOperations lacks its WHERE.
const selectOperations = `SELECT ` + operationColumns + ` FROM operation o LEFT JOIN rollout p ON p.operation_id = o.id `

const (
	operationSQL = selectOperations + `WHERE o.tenant = $1 AND o.id = $2`

	operationsSQL = selectOperations + `
		WHERE o.tenant = $1 AND ($2 = '' OR o.cluster = $2) AND ($3 = '' OR o.kind = $3) AND ($4 = '' OR o.state = $4) AND ($5::uuid IS NULL OR o.id < $5)
			AND ($7 = '' OR o.requested_by = $7) AND ($8::timestamptz IS NULL OR o.created >= $8) AND ($9::timestamptz IS NULL OR o.created < $9)
		ORDER BY o.id DESC LIMIT $6`

	// The same without a filter, which is what is asked most.
	newestOperationsSQL = selectOperations + `WHERE o.tenant = $1 AND o.id < $2 ORDER BY o.id DESC LIMIT $3`

	operationsOfHostSQL = `SELECT ` + operationColumns + `
		FROM host_run r JOIN operation o ON o.id = r.operation_id LEFT JOIN rollout p ON p.operation_id = o.id
		WHERE r.tenant = $1 AND r.address = $10 AND ($2 = '' OR o.cluster = $2) AND ($3 = '' OR o.kind = $3) AND ($4 = '' OR o.state = $4) AND ($5::uuid IS NULL OR r.operation_id < $5)
			AND ($7 = '' OR o.requested_by = $7) AND ($8::timestamptz IS NULL OR o.created >= $8) AND ($9::timestamptz IS NULL OR o.created < $9)
		ORDER BY r.operation_id DESC LIMIT $6`

	latestOfClusterSQL = selectOperations + `WHERE o.tenant = $1 AND o.kind = $2 AND o.cluster = $3 ORDER BY o.id DESC LIMIT 1`

	latestOfHostSQL = selectOperations + `WHERE o.tenant = $1 AND o.kind = $2 AND o.host = $3 ORDER BY o.id DESC LIMIT 1`

	pendingOperationsSQL = selectOperations + `WHERE o.state = 'pending' AND o.created <= now() - make_interval(secs => $1) ORDER BY o.id LIMIT $2`

	runningOperationsSQL = selectOperations + `WHERE o.state = 'running' AND o.started < now() - make_interval(secs => $1) ORDER BY o.id LIMIT $2`

	// The end of an operation counts as seen, so only unfinished ones are found.
	unseenOperationsSQL = `SELECT ` + operationColumns + ` FROM rollout p JOIN operation o ON o.id = p.operation_id
		WHERE p.generation > p.seen_generation AND p.steered <= now() - make_interval(secs => $1) ORDER BY p.steered LIMIT $2`
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
	op, err := one(ctx, q, scanOperation, sql, kept, s.tenant, id)
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
	f.Limit = pageSize(f.Limit)
	var before *string
	if f.Cursor != "" {
		if uuid.Validate(f.Cursor) != nil {
			return nil, "", fleet.InvalidField("cursor", "is not one that a list of operations gave")
		}
		before = &f.Cursor
	}
	// One more than asked for says whether there is a next page.
	sql, args := operationsSQL, []any{
		s.tenant, f.Cluster, string(f.Kind), string(f.State), before, f.Limit + 1, f.RequestedBy, orNull(f.Since), orNull(f.Until)}
	switch {
	case f.Host != "":
		sql, args = operationsOfHostSQL, append(args, f.Host)
	case f == OperationFilter{Cursor: f.Cursor, Limit: f.Limit}:
		sql, args = newestOperationsSQL, []any{kept, s.tenant, cmp.Or(f.Cursor, uuid.Max.String()), f.Limit + 1}
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		ops, err = collectOperations(ctx, q, min(f.Limit, DefaultPage)+1, sql, args...)
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
		ops, err = collect(ctx, q, scanOperation, pendingOperationsSQL, kept, olderThan.Seconds(), limit)
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

// UnseenOperations lists unfinished rollouts of all tenants that were steered
// longer than olderThan ago and have not claimed hosts since, oldest first. The
// dispatcher wakes their workflows.
func (db *DB) UnseenOperations(ctx context.Context, olderThan time.Duration, limit int) (ops []fleet.Operation, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		ops, err = collect(ctx, q, scanOperation, unseenOperationsSQL, kept, olderThan.Seconds(), limit)
		return err
	})
	return ops, err
}

// orNull gives NULL for the zero time.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// pageSize bounds how many rows a page has.
func pageSize(limit int) int {
	if limit <= 0 {
		return DefaultPage
	}
	return min(limit, MaxPage)
}

// number reads the cursor of a list whose rows have numbers; first is for "". It may be
// above all that the list has, up to the largest bigint, so statements compare it as one.
func number(cursor string, first int64) (int64, error) {
	if cursor == "" {
		return first, nil
	}
	n, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || n < 0 {
		return 0, fleet.InvalidField("cursor", "is not one that this list gave")
	}
	return n, nil
}
