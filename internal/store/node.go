package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// Node says who is to hold a host and who does.
type Node struct {
	// Manager is the container manager of the host's cluster, "" when there is none.
	Manager string
	Type    fleet.ContainerManagerType // "" when it does not exist
	Holder  string                     // the container manager that holds the host, "" for none
	Ready   bool                       // the holder said that the host can work
	Status  []byte                     // what it said last, a JSON object; nil for nothing
	Fresh   bool                       // it said so within the last 5 s
}

// Held says whether the container manager of its cluster holds the host.
func (n Node) Held() bool { return n.Manager != "" && n.Manager == n.Holder }

const (
	nodeSQL = `SELECT coalesce(c.container_manager, ''), coalesce(m.type, ''), coalesce(n.manager, ''), coalesce(n.ready, false),
			n.status::text, coalesce(n.status_at > now() - interval '5 s', false)
		FROM host h LEFT JOIN cluster c ON c.tenant = h.tenant AND c.name = h.cluster
			LEFT JOIN container_manager m ON m.tenant = c.tenant AND m.name = c.container_manager AND m.checking IS NULL
			LEFT JOIN node n ON n.tenant = h.tenant AND n.address = h.address
		WHERE h.tenant = $1 AND h.address = $2`

	keepContainerManagerSQL = `SELECT type FROM container_manager WHERE tenant = $1 AND name = $2 AND checking IS NULL FOR KEY SHARE`

	// In the order of addresses, as all who lock several nodes.
	registerSQL = `INSERT INTO node (tenant, address, manager) SELECT $1, address, $3 FROM unnest($2::text[]) address ORDER BY address COLLATE "C"
		ON CONFLICT ON CONSTRAINT node_pk DO UPDATE SET manager = excluded.manager, ready = true, leaving = false, status = NULL, status_at = NULL,
			registered = CASE WHEN node.manager = excluded.manager THEN node.registered ELSE now() END`

	setReadySQL = `UPDATE node SET ready = $4 WHERE tenant = $1 AND address = ANY ($2) AND manager = $3 AND ready <> $4`

	claimNodesSQL = `SELECT FROM node WHERE tenant = $1 AND address = ANY ($2) ORDER BY address FOR UPDATE`

	// Those of a trivial container manager, which has nothing to be asked.
	forgetNodesSQL = `DELETE FROM node n USING container_manager m
		WHERE n.tenant = $1 AND n.address = ANY ($2) AND m.tenant = n.tenant AND m.name = n.manager AND m.type = 'trivial'`
)

// HostNode says who holds a host.
func (s *Store) HostNode(ctx context.Context, address string) (n Node, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		n, err = s.node(ctx, q, address)
		return orNotFound(err, "host", address)
	})
	return n, err
}

func (s *Store) node(ctx context.Context, q querier, address string) (Node, error) {
	return one(ctx, q, pgx.RowToStructByPos[Node], nodeSQL, s.tenant, address)
}

// mayRegister keeps a container manager until the transaction ends. refused is the
// Conflict when it does not exist.
func (s *Store) mayRegister(ctx context.Context, q querier, manager string) (t fleet.ContainerManagerType, refused *fleet.Error, err error) {
	t, err = one(ctx, q, pgx.RowTo[fleet.ContainerManagerType], keepContainerManagerSQL, s.tenant, manager)
	if isNoRows(err) {
		refused = fleet.Errorf(fleet.Conflict, "container manager %q of the cluster does not exist; create it, or change the cluster", manager)
		refused.Fields = []fleet.FieldError{{Field: "container_manager", Detail: "does not exist"}}
		return "", refused, nil
	}
	return t, nil, err
}

// forget takes hosts out of the lists that we keep ourselves.
func (s *Store) forget(ctx context.Context, q querier, addresses []string) error {
	if _, err := q.Exec(ctx, claimNodesSQL, s.tenant, addresses); err != nil {
		return err
	}
	_, err := q.Exec(ctx, forgetNodesSQL, s.tenant, addresses)
	return err
}

// worked tells a host that works again, after a bootstrap or a register (HostPrepared,
// HostRegistered) or a rollout (HostRecovered), together with who holds it. A container
// manager that cannot hold it is no failure of the bootstrap, and the reason of the host
// says so.
func (s *Store) worked(ctx context.Context, q querier, kind fleet.OperationKind, c stateChange) error {
	var n Node
	b := &pgx.Batch{}
	b.Queue(lockHostRowsSQL, s.tenant, c.addresses) // so what is read behind it stays as it is
	b.Queue(nodeSQL, s.tenant, c.addresses[0]).Query(func(rows pgx.Rows) (err error) {
		n, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Node])
		return err
	})
	err := q.SendBatch(ctx, b).Close()
	if isNoRows(err) {
		return nil // the host is gone
	}
	if err != nil {
		return err
	}
	switch {
	case kind == fleet.KindRegister && n.Manager == "":
		return nil // it left the cluster meanwhile, and its state stays
	case c.event == fleet.HostRecovered && n.Ready:
		c.event = fleet.HostReturned
	case c.event == fleet.HostRegistered && n.Manager == "":
		c.event = fleet.HostPrepared
	}
	if c.event != fleet.HostPrepared && c.event != fleet.HostRegistered || n.Manager == "" {
		return s.settle(ctx, q, c, n.Manager)
	}
	t, refused, err := s.mayRegister(ctx, q, n.Manager)
	if err != nil {
		return err
	}
	// Now that it is kept, who holds the host stays so, too.
	if n, err = s.node(ctx, q, c.addresses[0]); err != nil {
		return err
	}
	switch {
	case refused != nil:
		c.event, c.reason = fleet.HostPrepared, refused.Detail
	case !t.HasNodes():
		c.event = fleet.HostRegistered
	case c.event == fleet.HostRegistered && n.Held():
	case c.event == fleet.HostRegistered, c.reason == "":
		c.event, c.reason = fleet.HostPrepared, "container manager "+n.Manager+" does not have it yet; a bootstrap registers it"
	}
	return s.settle(ctx, q, c, n.Manager)
}

// settle applies an event, and notes who holds the hosts that it fitted.
func (s *Store) settle(ctx context.Context, q querier, c stateChange, manager string) error {
	changed, err := s.applyEvent(ctx, q, c)
	if err != nil || len(changed) == 0 {
		return err
	}
	switch c.event {
	case fleet.HostRegistered:
		_, err = q.Exec(ctx, registerSQL, s.tenant, changed, manager)
	case fleet.HostPrepared:
		if err := s.forget(ctx, q, changed); err != nil {
			return err
		}
		_, err = q.Exec(ctx, setReadySQL, s.tenant, changed, manager, false)
	}
	return err
}
