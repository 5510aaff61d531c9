package store

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// What the steps need that ask a container manager about a host. Like those in
// operation_run.go they may run again, and each says why that is safe.

const (
	// A node of another container manager is left to that.
	claimNodeSQL = `INSERT INTO node (tenant, address, manager, ready) VALUES ($1, $2, $3, false)
		ON CONFLICT ON CONSTRAINT node_pk DO UPDATE SET manager = excluded.manager, ready = false, leaving = false, status = NULL, status_at = NULL, registered = now()
		WHERE node.manager <> excluded.manager`

	nodeRemovedSQL = `DELETE FROM node n USING operation o WHERE o.tenant = $1 AND o.id = $2 AND n.tenant = $1 AND n.address = o.host AND n.manager = o.manager`

	nodeReadySQL = `UPDATE node n SET ready = true FROM host_run r
		WHERE r.tenant = $1 AND r.operation_id = $2 AND r.address = $3 AND n.tenant = $1 AND n.address = $3 AND n.manager = r.cordon_manager AND NOT n.ready`

	setWaitingSQL = `UPDATE operation SET waiting = $3 WHERE tenant = $1 AND id = $2 AND finished IS NULL AND waiting <> $3`

	nodesAmongSQL = `SELECT address FROM node WHERE tenant = $1 AND address = ANY ($2) AND manager = $3`

	setNodeStatusSQL = `UPDATE node SET status = $4::jsonb, status_at = now() WHERE tenant = $1 AND address = $2 AND manager = $3`
)

// ClaimNode notes that the container manager of the host's cluster is about to hold the
// host, and gives it, with all options. It is there before that one is asked, so that
// whoever takes the host away knows whom to tell. A host whose cluster has none of a
// type that has nodes (any more) gives none. NotFound: the host was removed. Conflict:
// the operation has ended, or the container manager does not exist. Repeating it changes
// nothing.
func (s *Store) ClaimNode(ctx context.Context, id, address string) (m fleet.ContainerManager, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		m = fleet.ContainerManager{}
		if _, err := s.lockUnfinished(ctx, q, id); err != nil {
			return err
		}
		if err := s.sameHost(ctx, q, id, address); err != nil {
			return err
		}
		if _, err := s.lockHosts(ctx, q, []string{address}); err != nil { // who leaves waits
			return err
		}
		n, err := s.node(ctx, q, address)
		switch {
		case isNoRows(err):
			return notFound("host", address)
		case err != nil || n.Manager == "":
			return err
		}
		t, refused, err := s.mayRegister(ctx, q, n.Manager)
		switch {
		case err != nil:
			return err
		case refused != nil:
			return refused
		case !t.HasNodes():
			return nil
		}
		if _, err := q.Exec(ctx, claimNodeSQL, s.tenant, address, n.Manager); err != nil {
			return err
		}
		m, err = s.openContainerManager(ctx, q, n.Manager, "")
		return err
	})
	return m, err
}

// NodesAmong gives those of the addresses that a container manager has as nodes.
func (s *Store) NodesAmong(ctx context.Context, manager string, addresses []string) (nodes []string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		nodes, err = collect(ctx, q, pgx.RowTo[string], nodesAmongSQL, s.tenant, addresses, manager)
		return err
	})
	return nodes, err
}

// CordonOf says how far the cordon of a host run is, and whether the host run has ended:
// whoever finds its mark on a node learns by that whether it goes. NotFound: the record
// has no such host run.
func (s *Store) CordonOf(ctx context.Context, id, address string) (state fleet.Cordon, ended bool, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		c, err := s.cordon(ctx, q, id, address)
		state, ended = c.State, c.Run.Ended()
		return err
	})
	return state, ended, err
}

// NodeRemoved notes that the container manager of an unregister does not have the host
// any more. Repeating it changes nothing; a node of another one stays.
func (s *Store) NodeRemoved(ctx context.Context, id string) error {
	return s.change(ctx, nodeRemovedSQL, id)
}

// NodeReady notes that the container manager that a host run asks has said that the node
// is ready. Repeating it changes nothing.
func (s *Store) NodeReady(ctx context.Context, id, address string) error {
	return s.change(ctx, nodeReadySQL, id, address)
}

// SetWaiting notes what an operation that does not roll waits for.
func (s *Store) SetWaiting(ctx context.Context, id, waiting string) error {
	return s.change(ctx, setWaitingSQL, id, storable(waiting))
}

func (s *Store) change(ctx context.Context, sql, id string, more ...any) error {
	if uuid.Validate(id) != nil {
		return notFound("operation", id)
	}
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		_, err := q.Exec(ctx, sql, append([]any{s.tenant, id}, more...)...)
		return err
	})
}

// SetNodeStatus keeps what a container manager said of a host that it holds, a JSON
// object; nil for nothing. One that cannot be stored counts as nothing.
func (s *Store) SetNodeStatus(ctx context.Context, address, manager string, status []byte) error {
	err := s.setNodeStatus(ctx, address, manager, status)
	if fleet.KindOf(err) == fleet.Invalid { // a zero byte in a text, which JSON allows
		err = s.setNodeStatus(ctx, address, manager, nil)
	}
	return err
}

func (s *Store) setNodeStatus(ctx context.Context, address, manager string, status []byte) error {
	var text *string
	if status != nil {
		said := string(status)
		text = &said
	}
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		_, err := q.Exec(ctx, setNodeStatusSQL, s.tenant, address, manager, text)
		return err
	})
}
