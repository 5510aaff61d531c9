package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

const (
	// The container manager of the host's cluster, its type, and who holds the host. "" for none.
	nodeSQL = `SELECT coalesce(c.container_manager, ''), coalesce(m.type, ''), coalesce(n.manager, '')
		FROM host h LEFT JOIN cluster c ON c.tenant = h.tenant AND c.name = h.cluster
			LEFT JOIN container_manager m ON m.tenant = c.tenant AND m.name = c.container_manager
			LEFT JOIN node n ON n.tenant = h.tenant AND n.address = h.address
		WHERE h.tenant = $1 AND h.address = $2`

	keepContainerManagerSQL = `SELECT type FROM container_manager WHERE tenant = $1 AND name = $2 FOR KEY SHARE`

	// In the order of addresses, as all who lock several nodes.
	registerSQL = `INSERT INTO node (tenant, address, manager) SELECT $1, address, $3 FROM unnest($2::text[]) address ORDER BY address COLLATE "C"
		ON CONFLICT ON CONSTRAINT node_pk DO UPDATE SET manager = excluded.manager, registered = now() WHERE node.manager <> excluded.manager`

	claimNodesSQL = `SELECT FROM node WHERE tenant = $1 AND address = ANY ($2) ORDER BY address FOR UPDATE`

	unregisterSQL = `DELETE FROM node WHERE tenant = $1 AND address = ANY ($2)`
)

// HostNode gives the container manager of a host's cluster, "" when there is none,
// its type, "" when it does not exist, and whether it holds the host.
func (s *Store) HostNode(ctx context.Context, address string) (manager string, t fleet.ContainerManagerType, registered bool, err error) {
	var holder string
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, nodeSQL, s.tenant, address).Scan(&manager, &t, &holder)
		return orNotFound(err, "host", address)
	})
	return manager, t, manager != "" && holder == manager, err
}

// mayRegister keeps a container manager until the transaction ends. refused is the
// Conflict when it does not exist, or is of a type that hosts cannot be registered with.
func (s *Store) mayRegister(ctx context.Context, q querier, manager string) (refused *fleet.Error, err error) {
	t, err := one(ctx, q, pgx.RowTo[fleet.ContainerManagerType], keepContainerManagerSQL, s.tenant, manager)
	switch {
	case isNoRows(err):
		refused = fleet.Errorf(fleet.Conflict, "container manager %q of the cluster does not exist; create it, or change the cluster", manager)
		refused.Fields = []fleet.FieldError{{Field: "container_manager", Detail: "does not exist"}}
		return refused, nil
	case err == nil && t != fleet.ContainerManagerTrivial:
		refused = fleet.Errorf(fleet.Conflict, "container manager %q is of type %s, with which this version cannot register hosts yet", manager, t)
		refused.Fields = []fleet.FieldError{{Field: "container_manager", Detail: "cannot register hosts yet"}}
		return refused, nil
	}
	return nil, err
}

func (s *Store) register(ctx context.Context, q querier, manager string, addresses []string) error {
	_, err := q.Exec(ctx, registerSQL, s.tenant, addresses, manager)
	return err
}

func (s *Store) unregister(ctx context.Context, q querier, addresses []string) error {
	if _, err := q.Exec(ctx, claimNodesSQL, s.tenant, addresses); err != nil {
		return err
	}
	_, err := q.Exec(ctx, unregisterSQL, s.tenant, addresses)
	return err
}

// joined tells hosts that just joined a cluster who holds them now: its container
// manager, or nobody.
func (s *Store) joined(ctx context.Context, q querier, manager string, addresses []string) error {
	switch {
	case len(addresses) == 0:
		return nil
	case manager == "":
		return s.settle(ctx, q, stateChange{addresses: addresses, event: fleet.HostPrepared}, "")
	}
	refused, err := s.mayRegister(ctx, q, manager)
	if err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	return s.settle(ctx, q, stateChange{addresses: addresses, event: fleet.HostRegistered}, manager)
}

// worked tells a host that works again, after a bootstrap (HostPrepared) or a rollout
// (HostRecovered), together with who holds it. A container manager that cannot hold it
// is no failure of the bootstrap, and the reason of the host says so.
func (s *Store) worked(ctx context.Context, q querier, c stateChange) error {
	var manager, holder string
	var t fleet.ContainerManagerType
	b := &pgx.Batch{}
	b.Queue(lockHostRowsSQL, s.tenant, c.addresses) // so what is read behind it stays as it is
	b.Queue(nodeSQL, s.tenant, c.addresses[0]).QueryRow(func(row pgx.Row) error { return row.Scan(&manager, &t, &holder) })
	err := q.SendBatch(ctx, b).Close()
	if isNoRows(err) {
		return nil // the host is gone
	}
	if err != nil {
		return err
	}
	switch {
	case c.event == fleet.HostRecovered && holder != "":
		c.event = fleet.HostReturned
	case c.event == fleet.HostPrepared && manager != "":
		refused, err := s.mayRegister(ctx, q, manager)
		if err != nil {
			return err
		}
		if refused == nil {
			c.event = fleet.HostRegistered
		} else {
			c.reason = refused.Detail
		}
	}
	return s.settle(ctx, q, c, manager)
}

// settle applies an event, and notes who holds the hosts that it fitted.
func (s *Store) settle(ctx context.Context, q querier, c stateChange, manager string) error {
	changed, err := s.applyEvent(ctx, q, c)
	if err != nil || len(changed) == 0 {
		return err
	}
	switch c.event {
	case fleet.HostRegistered:
		return s.register(ctx, q, manager, changed)
	case fleet.HostPrepared:
		return s.unregister(ctx, q, changed)
	}
	return nil
}
