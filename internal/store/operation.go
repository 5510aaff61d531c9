package store

import (
	"context"
	"reflect"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// NewOperation asks for an act on a cluster, on a host or on a source; two of them are "".
// A retry takes both, kind and version from the operation that it repeats.
type NewOperation struct {
	Kind    fleet.OperationKind
	Cluster string
	Host    string
	Manager string      // of a register or unregister
	Source  string      // of a sync
	DryRun  bool        // of a sync: change no host
	Version string      // of a deploy
	Command *NewCommand // of a command, else nil
	// Policy is the request's. What it leaves out comes from the cluster's, or from
	// the operation that is retried. It must have passed Check.
	Policy fleet.Policy
	// RetryOf is the operation whose hosts that have not succeeded are taken, ""
	// for none.
	RetryOf        string
	IdempotencyKey string // "" for none
	RequestedBy    string
	RequestID      string
}

const (
	// ON CONFLICT covers the indexes that allow one unfinished operation per cluster,
	// per host and per source. One that holds nothing is not in them.
	insertOperationSQL = `INSERT INTO operation (id, tenant, kind, cluster, host, version, retry_of, requested_by, request_id, manager, source, dry_run, command, holds)
		VALUES ($1, $2, $3, nullif($4, ''), nullif($5, ''), $6, nullif($7, '')::uuid, $8, $9, $10, nullif($11, ''), $12, $13, $14)
		ON CONFLICT DO NOTHING`

	unfinishedSQL = selectOperations + `WHERE o.tenant = $1 AND o.finished IS NULL AND o.holds AND (o.cluster = nullif($2, '') OR o.host = nullif($3, '') OR o.source = nullif($4, ''))`

	keepClusterSQL = `SELECT FROM cluster WHERE tenant = $1 AND name = $2 FOR KEY SHARE`
	keepHostSQL    = `SELECT FROM host WHERE tenant = $1 AND address = $2 FOR NO KEY UPDATE`

	insertHostRunSQL = `INSERT INTO host_run (operation_id, tenant, address, position) SELECT $1, tenant, address, 0 FROM host WHERE tenant = $2 AND address = $3`
)

// StartOperation puts a pending operation on record, with a pending host run for
// every host that its policy chooses, in the policy's order, or for the one host.
//
// While one is unfinished on the same cluster (or host), a request that it answers
// gives that one and created is false; any other is a Conflict with its Holder. It
// answers the same kind, for a deploy of the same version, for a retry of the same
// operation, when the policy asks for nothing that it does not do. A retry of what
// was retried before is a Conflict. A deploy is one when it chooses hosts that take
// none. A bootstrap sets its host back to investigating. A request that comes again
// with the same IdempotencyKey gets what the first one got, for ever, and a
// Conflict when it asks for something else.
func (s *Store) StartOperation(ctx context.Context, n NewOperation) (op fleet.Operation, created bool, err error) {
	if n.RetryOf == "" && !n.oneTarget() {
		return op, false, fleet.Errorf(fleet.Invalid, "an operation is on a cluster, on a host or on a source")
	}
	r := request{key: n.IdempotencyKey, digest: n.digest()}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		var known bool
		if op, created, known, err = s.answered(ctx, q, r); err != nil || known {
			return err
		}
		if op, created, err = s.start(ctx, q, n); err != nil {
			return err
		}
		return s.answer(ctx, q, r, op.ID)
	})
	if err != nil {
		return fleet.Operation{}, false, err
	}
	return op, created, nil
}

func (n NewOperation) oneTarget() bool {
	targets := 0
	for _, name := range []string{n.Cluster, n.Host, n.Source} {
		if name != "" {
			targets++
		}
	}
	return targets == 1
}

func (s *Store) start(ctx context.Context, q querier, n NewOperation) (op fleet.Operation, created bool, err error) {
	n, old, err := s.retried(ctx, q, n)
	if err != nil {
		return op, false, err
	}
	// First the operation, whose unique index is the lock, then a look at what
	// it is on; the transaction takes it back when that is missing.
	op, created, err = s.insertOperation(ctx, q, n)
	if err != nil {
		return op, false, err
	}
	if err := s.keepTarget(ctx, q, n); err != nil {
		return op, false, err
	}
	if !created {
		return op, false, answers(op, n)
	}
	if err := s.notRetried(ctx, q, n, op.ID); err != nil {
		return op, false, err
	}
	if n.Kind == fleet.KindBootstrap {
		if _, err := s.applyEvent(ctx, q, stateChange{addresses: []string{n.Host}, event: fleet.HostInvestigate, operation: op.ID}); err != nil {
			return op, false, err
		}
	}
	if err := s.insertHostRuns(ctx, q, op.ID, n, old); err != nil {
		return op, false, err
	}
	op, err = s.operation(ctx, q, operationSQL, op.ID)
	return op, true, err
}

// insertOperation gives the operation that is on record now: the new one, or
// the unfinished one that stands in its way.
func (s *Store) insertOperation(ctx context.Context, q querier, n NewOperation) (op fleet.Operation, created bool, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return op, false, err
	}
	tag, err := q.Exec(ctx, insertOperationSQL, id.String(), s.tenant, string(n.Kind), n.Cluster, n.Host, n.Version, n.RetryOf, n.RequestedBy, n.RequestID, n.Manager, n.Source, n.DryRun, n.Command.command(), n.Kind.Holds())
	if err != nil {
		return op, false, err
	}
	if tag.RowsAffected() > 0 {
		op, err = s.operation(ctx, q, operationSQL, id.String())
		return op, true, err
	}
	op, err = one(ctx, q, scanOperation, unfinishedSQL, s.tenant, n.Cluster, n.Host, n.Source)
	if isNoRows(err) {
		return op, false, errAgain // it ended in between
	}
	return op, false, err
}

// keepTarget makes sure that what the operation is on exists, and stays until
// the transaction ends.
func (s *Store) keepTarget(ctx context.Context, q querier, n NewOperation) error {
	if n.Cluster != "" {
		_, err := one(ctx, q, scanNothing, keepClusterSQL, s.tenant, n.Cluster)
		return orNotFound(err, "cluster", n.Cluster)
	}
	if n.Source != "" {
		return nil // it stands in the settings
	}
	_, err := one(ctx, q, scanNothing, keepHostSQL, s.tenant, n.Host)
	return orNotFound(err, "host", n.Host)
}

func (s *Store) insertHostRuns(ctx context.Context, q querier, id string, n NewOperation, old fleet.Operation) error {
	if n.Host != "" {
		_, err := q.Exec(ctx, insertHostRunSQL, id, s.tenant, n.Host)
		return err
	}
	if n.Source != "" && n.RequestedBy == fleet.BySchedule {
		return nil // SyncHosts takes up those that change
	}
	if n.Source != "" {
		_, err := q.Exec(ctx, insertHostRunsOfSourceSQL, id, s.tenant, n.Source)
		return err
	}
	p, err := s.plan(ctx, q, n, old)
	if err != nil {
		return err
	}
	return s.writePlan(ctx, q, id, p)
}

// answers says whether an unfinished operation is what is asked for; if not, it is
// the Conflict.
func answers(running fleet.Operation, n NewOperation) error {
	switch {
	case running.Kind != n.Kind || running.Version != n.Version || running.DryRun != n.DryRun || n.RetryOf != "" && running.RetryOf != n.RetryOf:
		return held(running, "")
	case !reflect.DeepEqual(n.Policy.Over(running.Policy), running.Policy):
		return held(running, " by another policy")
	}
	return nil
}

// held is the refusal that names who stands in the way.
func held(holder fleet.Operation, how string) *fleet.Error {
	on, rather := "cluster "+holder.Cluster, "or cancel it"
	switch {
	case holder.Host != "":
		on = "host " + holder.Host
	case holder.Source != "":
		on = "source " + holder.Source
	}
	switch {
	case holder.Kind == fleet.KindSync:
		rather = "and repeat the request then"
	case holder.Kind == fleet.KindUnregister:
		rather = "or delete container manager " + holder.Manager + ", which ends it and leaves the node there"
	case !holder.Kind.Rollout():
		rather = "or delete the host, which cancels it"
	}
	e := fleet.Errorf(fleet.Conflict, "operation %s (%s of %s) is %s%s; wait for its end %s", holder.ID, holder.Kind, on, holder.State, how, rather)
	e.Holder = &holder
	return e
}

func scanOperation(row pgx.CollectableRow) (fleet.Operation, error) {
	var r operationRow
	err := row.Scan(r.columns()...)
	return r.take(), err
}

// collectOperations gives all rows of a query of which n or fewer are expected. Unlike
// collect with scanOperation it needs no memory of its own for each row.
func collectOperations(ctx context.Context, q querier, n int, sql string, args ...any) ([]fleet.Operation, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	ops := make([]fleet.Operation, 0, n)
	var r operationRow
	_, err = pgx.ForEachRow(rows, r.columns(), func() error {
		ops = append(ops, r.take())
		return nil
	})
	return ops, err
}

// operationRow is what operationColumns are read into.
type operationRow struct {
	op                                                      fleet.Operation
	created, started, finished, paused, approved, cancelled pgtype.Timestamptz
}

func (r *operationRow) columns() []any {
	o := &r.op
	return []any{&o.ID, &o.Tenant, &o.Kind, &o.Cluster, &o.Host, &o.Manager, &o.State, &o.Reason,
		&o.Version, &o.RetryOf, &o.Hosts, &o.RequestedBy, &o.RequestID, &r.created, &r.started, &r.finished,
		&o.Policy, &r.paused, &o.PausedBy, &r.approved, &o.ApprovedBy, &r.cancelled, &o.CancelledBy, &o.Waiting, &o.Source, &o.DryRun, &o.Sync, &o.Command}
}

// take gives the operation that was read. The next one shares nothing with it.
func (r *operationRow) take() fleet.Operation {
	o := r.op
	o.Created, o.Started, o.Finished = utc(r.created), utc(r.started), utc(r.finished)
	o.Paused, o.Approved, o.Cancelled = utc(r.paused), utc(r.approved), utc(r.cancelled)
	r.op = fleet.Operation{} // JSON is decoded into what is there
	return o
}

func scanNothing(pgx.CollectableRow) (struct{}, error) { return struct{}{}, nil }
