package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// The budget of a container manager is shared by all rollouts of its clusters. Whoever
// hands out hosts under it does so one after the other, and counts what all others have.

const (
	// Comes after the lock of the rollout, and nobody has two of them.
	queueManagerSQL = `SELECT pg_advisory_xact_lock(hashtextextended('container manager ' || $1 || ' ' || $2, 0))`

	nodesOfManagerSQL = `SELECT count(*) FROM node WHERE tenant = $1 AND manager = $2`

	// Hosts that other rollouts are at work on, those that bear a cordon, also when host
	// and node are gone or the host run has ended, and those that do no work. Left out is
	// what the tally of this operation has. A cordon that is out is soon taken back.
	sharedSQL = `SELECT count(*) FILTER (WHERE at_work), count(*) FILTER (WHERE NOT at_work), count(*) FILTER (WHERE NOT at_work AND mending)
		FROM (SELECT address, bool_or(at_work) AS at_work, bool_or(mending) AS mending FROM (
				SELECT r.address, true AS at_work, false AS mending FROM host_run r JOIN node n ON n.tenant = r.tenant AND n.address = r.address
					WHERE r.tenant = $2 AND r.state = 'running' AND r.turn > 0 AND r.operation_id <> $1 AND n.manager = $4
				UNION ALL SELECT address, true, false FROM host_run
					WHERE tenant = $2 AND cordon_manager = $4 AND cordon IN ('out', 'restoring')
				UNION ALL SELECT f.address, false, f.state <> 'failed' FROM host f JOIN node n ON n.tenant = f.tenant AND n.address = f.address
					WHERE f.tenant = $2 AND f.state NOT IN ('active', 'disassociated') AND n.manager = $4
			) every GROUP BY address) a
		LEFT JOIN host f ON f.tenant = $2 AND f.address = a.address AND f.cluster = $3 AND f.state NOT IN ('active', 'disassociated')
		WHERE NOT EXISTS (SELECT FROM host_run r WHERE r.operation_id = $1 AND r.address = a.address
			AND (r.state = 'running' OR r.down OR r.state IN ('pending', 'staged') AND f.address IS NOT NULL OR ` + lostSince + `))`
)

// shared counts the nodes of a container manager with a budget that are away and that
// the tally of the operation does not have, and keeps others from handing out any more
// until the transaction ends. The operation's rollout is locked.
func (s *Store) shared(ctx context.Context, q querier, op fleet.Operation, manager string, budget fleet.Amount) (*fleet.Shared, error) {
	out := &fleet.Shared{Manager: manager}
	var err error
	if out.Limit, err = s.limit(ctx, q, manager, budget); err != nil { // before others have to wait for us
		return nil, err
	}
	var atWork, away, mending int
	b := &pgx.Batch{}
	b.Queue(queueManagerSQL, s.tenant, manager)
	b.Queue(sharedSQL, op.ID, s.tenant, op.Cluster, manager).QueryRow(func(row pgx.Row) error {
		return row.Scan(&atWork, &away, &mending)
	})
	if err := q.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	out.Others, out.AtWork = atWork+away, atWork+mending
	return out, nil
}

// limit is how many nodes a container manager with a budget lets be away at once.
func (s *Store) limit(ctx context.Context, q querier, manager string, budget fleet.Amount) (int, error) {
	nodes := 0
	if budget.Percent {
		if err := q.QueryRow(ctx, nodesOfManagerSQL, s.tenant, manager).Scan(&nodes); err != nil {
			return 0, err
		}
	}
	return max(budget.Floor(nodes), 1), nil
}
