package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// The cordon that a rollout puts on the node of a host is on record from before the node
// is touched until it is known to be gone, so that it is taken back whatever happens to
// the host run, its operation, its host or its cluster.

// HostCordon names the cordon of a host run.
type HostCordon struct {
	Tenant      string
	OperationID string
	Address     string
}

const (
	cordonSQL = `SELECT cordon, cordon_manager, state FROM host_run WHERE tenant = $1 AND operation_id = $2 AND address = $3`

	// The manager is kept; the node may be another's by now, but was its then.
	keepNodeManagerSQL = `SELECT m.name FROM node n JOIN container_manager m ON m.tenant = n.tenant AND m.name = n.manager
		WHERE n.tenant = $1 AND n.address = $2 AND m.type <> 'trivial' AND m.checking IS NULL FOR KEY SHARE OF m`

	beginCordonSQL = `UPDATE host_run SET cordon = 'out', cordon_manager = $4
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND cordon = 'none' AND state = 'running'`

	beginRestoreSQL = `UPDATE host_run SET cordon = CASE cordon WHEN 'none' THEN 'restored' ELSE 'restoring' END
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND cordon IN ('none', 'out', 'restoring')
		RETURNING cordon = 'restoring', cordon_manager`

	// A cluster that is deleted lets its hosts go, so it is looked at first.
	nodeStandsSQL = `SELECT CASE
			WHEN $4 AND r.cordon <> 'out' OR r.state <> 'running' OR o.finished IS NOT NULL THEN format('operation %s is not to cordon the node of host "%s" (any more)', o.id, r.address)
			WHEN o.cluster IS NOT NULL AND (c.name IS NULL OR c.created > o.created) THEN format('cluster "%s" was deleted, so its nodes are left alone', o.cluster)
			WHEN h.address IS NULL THEN 'the host was removed from the inventory, so its node is left alone'
			WHEN h.created > o.created THEN 'the host was removed and added again, so its node is left alone'
			WHEN o.cluster IS NOT NULL AND h.cluster IS DISTINCT FROM o.cluster THEN format('the host left cluster "%s", so its node is left alone', o.cluster)
			ELSE '' END
		FROM host_run r JOIN operation o ON o.id = r.operation_id
			LEFT JOIN host h ON h.tenant = r.tenant AND h.address = r.address
			LEFT JOIN cluster c ON c.tenant = o.tenant AND c.name = o.cluster
		WHERE r.tenant = $1 AND r.operation_id = $2 AND r.address = $3`

	leaveCordonSQL = `UPDATE host_run SET cordon = 'left' WHERE tenant = $1 AND operation_id = $2 AND address = $3`

	cordonRestoredSQL = `UPDATE host_run SET cordon = 'restored' WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND cordon = 'restoring'`

	// The end of an operation is the end of all its host runs. Container managers take
	// turns, so that one that does not answer keeps nobody from the others.
	leftCordonsSQL = `SELECT tenant, operation_id, address FROM (
			SELECT tenant, operation_id, address, finished, row_number() OVER (PARTITION BY tenant, cordon_manager ORDER BY finished) AS place
			FROM host_run WHERE cordon IN ('out', 'restoring') AND finished <= now() - make_interval(secs => $1)) c
		ORDER BY place, finished LIMIT $2`
)

// cordon is what the record has of the cordon of a host run.
type cordon struct {
	State   fleet.Cordon
	Manager string
	Run     fleet.HostRunState
}

func (s *Store) cordon(ctx context.Context, q querier, id, address string) (cordon, error) {
	if uuid.Validate(id) != nil {
		return cordon{}, notFound("operation", id)
	}
	c, err := one(ctx, q, pgx.RowToStructByPos[cordon], cordonSQL, s.tenant, id, address)
	return c, orNotFound(err, fmt.Sprintf("host run of operation %s on host", id), address)
}

// BeginCordon notes that the node of a host is about to be cordoned, and gives the
// container manager that holds it, with all options. NotFound: the host was removed.
// Conflict: the operation or the host run is not running, the cordon was taken back
// already, or no container manager that has nodes holds the host. Repeating it gives
// the same, until the cordon is taken back.
func (s *Store) BeginCordon(ctx context.Context, id, address string) (m fleet.ContainerManager, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		m = fleet.ContainerManager{}
		op, _, err := s.lockRollout(ctx, q, id) // nothing of it ends beside us
		switch {
		case err != nil:
			return err
		case op.State.Ended():
			return fleet.Errorf(fleet.Conflict, "%s; nothing more is done for it", ended(op))
		}
		c, err := s.cordon(ctx, q, id, address)
		if err != nil {
			return err
		}
		if err := s.sameHost(ctx, q, id, address); err != nil {
			return err
		}
		switch {
		case c.Run != fleet.HostRunRunning:
			return fleet.Errorf(fleet.Conflict, "host %q is %s in operation %s; its node is not cordoned", address, c.Run, id)
		case c.State == fleet.CordonNone:
			c.Manager, err = one(ctx, q, pgx.RowTo[string], keepNodeManagerSQL, s.tenant, address)
			if isNoRows(err) {
				return fleet.Errorf(fleet.Conflict, "no container manager has host %q as a node (any more)", address)
			}
			if err != nil {
				return err
			}
			tag, err := q.Exec(ctx, beginCordonSQL, s.tenant, id, address, c.Manager)
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				return errAgain // a restore was faster
			}
		case c.State != fleet.CordonOut:
			return noCordon(id, address)
		}
		m, err = s.openContainerManager(ctx, q, c.Manager, "")
		return err
	})
	return m, err
}

// CordonStands is nil while the node of a host is to be cordoned, and a Conflict that says
// why when it is not (any more): it is let go, the host run or the operation has ended, or
// the host is not in the operation's cluster any more. It is the fence before each write
// to the node.
func (s *Store) CordonStands(ctx context.Context, id, address string) error {
	return s.nodeStands(ctx, id, address, true)
}

// NodeStands is CordonStands for a node that is not to be cordoned yet: it is nil while
// the host run goes on and the host is in the operation's cluster.
func (s *Store) NodeStands(ctx context.Context, id, address string) error {
	return s.nodeStands(ctx, id, address, false)
}

func (s *Store) nodeStands(ctx context.Context, id, address string, cordoned bool) error {
	if uuid.Validate(id) != nil {
		return notFound("operation", id)
	}
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		why, err := one(ctx, q, pgx.RowTo[string], nodeStandsSQL, s.tenant, id, address, cordoned)
		if err == nil && why != "" {
			return fleet.Errorf(fleet.Conflict, "%s", why)
		}
		return orNotFound(err, fmt.Sprintf("host run of operation %s on host", id), address)
	})
}

func noCordon(id, address string) *fleet.Error {
	return fleet.Errorf(fleet.Conflict, "operation %s is not to cordon the node of host %q (any more)", id, address)
}

// BeginRestore notes that the cordon of a host is being taken back, after which nobody
// can put it there, and gives the container manager that has the node, with all options.
// out is false when there is nothing to do: the node was never touched, is as it was, or
// its container manager was deleted. It does not matter what became of the operation, the
// host and its cluster. Repeating it gives the same until CordonRestored.
func (s *Store) BeginRestore(ctx context.Context, id, address string) (m fleet.ContainerManager, out bool, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		m, out = fleet.ContainerManager{}, false
		if _, err := s.cordon(ctx, q, id, address); err != nil {
			return err
		}
		var manager string
		err := q.QueryRow(ctx, beginRestoreSQL, s.tenant, id, address).Scan(&out, &manager)
		switch {
		case isNoRows(err):
			return nil
		case err != nil || !out:
			return err
		}
		m, err = s.openContainerManager(ctx, q, manager, "")
		if fleet.KindOf(err) == fleet.NotFound { // a server of the version before deleted it
			out = false
			_, err = q.Exec(ctx, leaveCordonSQL, s.tenant, id, address)
		}
		return err
	})
	return m, out, err
}

// CordonRestored notes that the node of a host is as it was before its cordon. It is a
// Conflict when nobody began to restore it. Repeating it changes nothing.
func (s *Store) CordonRestored(ctx context.Context, id, address string) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		c, err := s.cordon(ctx, q, id, address)
		switch {
		case err != nil:
			return err
		case c.State == fleet.CordonNone || c.State == fleet.CordonOut:
			return fleet.Errorf(fleet.Conflict, "nobody has begun to take back the cordon of host %q in operation %s", address, id)
		}
		_, err = q.Exec(ctx, cordonRestoredSQL, s.tenant, id, address)
		return err
	})
}

// LeftCordons lists cordons of all tenants that are out though their host runs ended
// longer than olderThan ago, of each container manager the oldest first. The dispatcher
// has them taken back.
func (db *DB) LeftCordons(ctx context.Context, olderThan time.Duration, limit int) (left []HostCordon, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		left, err = collect(ctx, q, pgx.RowToStructByPos[HostCordon], leftCordonsSQL, kept, olderThan.Seconds(), limit)
		return err
	})
	return left, err
}
