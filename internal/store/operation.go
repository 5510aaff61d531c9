package store

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// NewOperation asks for an act on a cluster or on a host; one of the two is "".
type NewOperation struct {
	Kind        fleet.OperationKind
	Cluster     string
	Host        string
	RequestedBy string
	RequestID   string
}

const (
	// ON CONFLICT covers the two indexes that allow one unfinished operation per
	// cluster and per host.
	insertOperationSQL = `INSERT INTO operation (id, tenant, kind, cluster, host, requested_by, request_id)
		VALUES ($1, $2, $3, nullif($4, ''), nullif($5, ''), $6, $7)
		ON CONFLICT DO NOTHING
		RETURNING id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished`

	unfinishedSQL = `SELECT id, tenant, kind, coalesce(cluster, ''), coalesce(host, ''), state, reason, requested_by, request_id, created, started, finished
		FROM operation WHERE tenant = $1 AND finished IS NULL AND (cluster = nullif($2, '') OR host = nullif($3, ''))`

	keepClusterSQL = `SELECT FROM cluster WHERE tenant = $1 AND name = $2 FOR KEY SHARE`
	keepHostSQL    = `SELECT FROM host WHERE tenant = $1 AND address = $2 FOR NO KEY UPDATE`

	insertHostRunsSQL = `INSERT INTO host_run (operation_id, tenant, address, position)
		SELECT $1, tenant, address, row_number() OVER (ORDER BY join_order, address) - 1
		FROM host WHERE tenant = $2 AND (cluster = nullif($3, '') OR address = nullif($4, ''))`
)

// StartOperation puts a pending operation on record, with a pending host run
// for every member of the cluster in join order, or for the one host. While one
// is unfinished on the same cluster (or host), the same kind gives that one and
// created is false; another kind is a Conflict with its Holder. A bootstrap
// sets its host back to investigating.
func (s *Store) StartOperation(ctx context.Context, n NewOperation) (op fleet.Operation, created bool, err error) {
	if (n.Cluster == "") == (n.Host == "") {
		return op, false, fleet.Errorf(fleet.Invalid, "an operation is on a cluster or on a host")
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		// First the operation, whose unique index is the lock, then a look at what
		// it is on; the transaction takes it back when that is missing.
		op, created, err = s.insertOperation(ctx, q, n)
		if err != nil {
			return err
		}
		if err := s.keepTarget(ctx, q, n); err != nil {
			return err
		}
		if !created {
			if op.Kind != n.Kind {
				return held(op)
			}
			return nil
		}
		if n.Kind == fleet.KindBootstrap && n.Host != "" {
			if _, err := s.applyEvent(ctx, q, stateChange{addresses: []string{n.Host}, event: fleet.HostInvestigate, operation: op.ID}); err != nil {
				return err
			}
		}
		return s.insertHostRuns(ctx, q, op)
	})
	if err != nil {
		return fleet.Operation{}, false, err
	}
	return op, created, nil
}

// insertOperation gives the operation that is on record now: the new one, or
// the unfinished one that stands in its way.
func (s *Store) insertOperation(ctx context.Context, q querier, n NewOperation) (op fleet.Operation, created bool, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return op, false, err
	}
	op, err = one(ctx, q, scanOperation, insertOperationSQL, id.String(), s.tenant, string(n.Kind), n.Cluster, n.Host, n.RequestedBy, n.RequestID)
	if !isNoRows(err) {
		return op, err == nil, err
	}
	op, err = one(ctx, q, scanOperation, unfinishedSQL, s.tenant, n.Cluster, n.Host)
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
	_, err := one(ctx, q, scanNothing, keepHostSQL, s.tenant, n.Host)
	return orNotFound(err, "host", n.Host)
}

func (s *Store) insertHostRuns(ctx context.Context, q querier, op fleet.Operation) error {
	_, err := q.Exec(ctx, insertHostRunsSQL, op.ID, s.tenant, op.Cluster, op.Host)
	return err
}

// held is the refusal that names who stands in the way.
func held(holder fleet.Operation) *fleet.Error {
	on := "cluster " + holder.Cluster
	if holder.Host != "" {
		on = "host " + holder.Host
	}
	e := fleet.Errorf(fleet.Conflict, "operation %s (%s of %s) is %s; wait for its end or cancel it", holder.ID, holder.Kind, on, holder.State)
	e.Holder = &holder
	return e
}

func scanOperation(row pgx.CollectableRow) (fleet.Operation, error) {
	var o fleet.Operation
	var created, started, finished pgtype.Timestamptz
	err := row.Scan(&o.ID, &o.Tenant, &o.Kind, &o.Cluster, &o.Host, &o.State, &o.Reason, &o.RequestedBy, &o.RequestID, &created, &started, &finished)
	o.Created, o.Started, o.Finished = utc(created), utc(started), utc(finished)
	return o, err
}

func scanNothing(pgx.CollectableRow) (struct{}, error) { return struct{}{}, nil }
