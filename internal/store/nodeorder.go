package store

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// Hosts that come into a cluster with a container manager of a type that has nodes, and
// those that leave one, get an operation each in the transaction that moves them. It is
// written before anything is locked, by what was read then, and what is read behind the
// locks must say the same.

// Requester is who asks for a change that may need operations.
type Requester struct{ Name, RequestID string }

// heldNode is a node that workers are to be asked about.
type heldNode struct{ Address, Manager string }

// whichHosts are those of a cluster, or these, or these of a cluster.
type whichHosts struct {
	cluster   string   // "" for any
	addresses []string // nil for all
}

const (
	clusterManagerSQL = `SELECT c.container_manager, coalesce(m.type, '') FROM cluster c
			LEFT JOIN container_manager m ON m.tenant = c.tenant AND m.name = c.container_manager AND m.checking IS NULL
		WHERE c.tenant = $1 AND c.name = $2`

	heldSQL = `SELECT n.address, n.manager FROM node n JOIN host h ON h.tenant = n.tenant AND h.address = n.address
			JOIN container_manager m ON m.tenant = n.tenant AND m.name = n.manager
		WHERE n.tenant = $1 AND m.type <> 'trivial' AND ($2 = '' OR h.cluster = $2) AND ($3::text[] IS NULL OR n.address = ANY ($3)) ORDER BY n.address`

	mayJoinSQL = `SELECT address, coalesce(cluster, ''), state FROM host WHERE tenant = $1 AND address = ANY ($2)`

	// In the order of addresses, so that two that order for the same hosts wait for each
	// other in turn.
	insertOrdersSQL = `INSERT INTO operation (id, tenant, kind, host, manager, requested_by, request_id)
			SELECT o.id, $1, $2, o.host, o.manager, $6, $7 FROM unnest($3::uuid[], $4::text[], $5::text[]) AS o (id, host, manager) ORDER BY o.host COLLATE "C"
		ON CONFLICT DO NOTHING RETURNING id::text`

	keepUnfinishedSQL = `SELECT host FROM operation WHERE tenant = $1 AND host = ANY ($2) AND finished IS NULL ORDER BY host FOR SHARE`

	insertHostRunsOfOrdersSQL = `INSERT INTO host_run (operation_id, tenant, address, position)
		SELECT o.id, h.tenant, h.address, 0 FROM unnest($2::uuid[], $3::text[]) AS o (id, host) JOIN host h ON h.tenant = $1 AND h.address = o.host`

	orderedSQL = selectOperations + `WHERE o.tenant = $1 AND o.id = ANY ($2) ORDER BY o.host`

	leavingSQL = `UPDATE node n SET leaving = true FROM unnest($2::text[], $3::text[]) AS l (address, manager)
		WHERE n.tenant = $1 AND n.address = l.address AND n.manager = l.manager`

	staysSQL = `UPDATE node SET leaving = false WHERE tenant = $1 AND address = ANY ($2) AND leaving`

	leftBehindSQL = `SELECT address, manager FROM node WHERE tenant = $1 AND address = $2 AND leaving`

	atNodeSQL = selectOperations + `WHERE o.tenant = $1 AND o.host = ANY ($2) AND o.finished IS NULL AND o.kind IN ('register', 'unregister') AND o.id <> ALL ($3) ORDER BY o.id LIMIT 1`
)

// orders are the operations of one transaction, and by what they were written.
type orders struct {
	which   whichHosts
	nodes   []heldNode
	manager string // of the cluster that hosts join
	joining []string
	ops     []fleet.Operation
}

func (o orders) ids() []string {
	out := []string{}
	for _, op := range o.ops {
		out = append(out, op.ID)
	}
	return out
}

func (s *Store) heldNodes(ctx context.Context, q querier, which whichHosts) ([]heldNode, error) {
	return collect(ctx, q, pgx.RowToStructByPos[heldNode], heldSQL, s.tenant, which.cluster, which.addresses)
}

// orderRemoval puts an unregister on record for each host whose node somebody else
// keeps. One that has an unfinished operation gets it at the end of that.
func (s *Store) orderRemoval(ctx context.Context, q querier, which whichHosts, by Requester) (o orders, err error) {
	o.which = which
	if o.nodes, err = s.heldNodes(ctx, q, which); err != nil {
		return o, err
	}
	addresses, managers := columns(o.nodes)
	if o.ops, err = s.insertOrders(ctx, q, fleet.KindUnregister, addresses, managers, by); err != nil || len(o.ops) == len(o.nodes) {
		return o, err
	}
	// Keeps those that are there from ending before their nodes are marked as leaving.
	kept, err := collect(ctx, q, pgx.RowTo[string], keepUnfinishedSQL, s.tenant, without(addresses, o.ops))
	if err == nil && len(kept)+len(o.ops) < len(o.nodes) {
		err = errAgain
	}
	return o, err
}

// insertOrders puts an operation on record for each of these hosts that has no unfinished
// one, with the container manager at the same place. It gives those that are new, without
// what the record adds.
func (s *Store) insertOrders(ctx context.Context, q querier, kind fleet.OperationKind, addresses, managers []string, by Requester) ([]fleet.Operation, error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	var ids []string
	for range addresses {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		ids = append(ids, id.String())
	}
	created, err := collect(ctx, q, pgx.RowTo[string], insertOrdersSQL, s.tenant, string(kind), ids, addresses, managers, by.Name, by.RequestID)
	if err != nil {
		return nil, err
	}
	is := map[string]bool{}
	for _, id := range created {
		is[id] = true
	}
	ops := []fleet.Operation{}
	for i, id := range ids {
		if is[id] {
			ops = append(ops, fleet.Operation{ID: id, Kind: kind, Host: addresses[i], Manager: managers[i]})
		}
	}
	return ops, nil
}

// without gives the addresses that have none of these operations.
func without(addresses []string, ops []fleet.Operation) []string {
	have := map[string]bool{}
	for _, op := range ops {
		have[op.Host] = true
	}
	return slices.DeleteFunc(slices.Clone(addresses), func(address string) bool { return have[address] })
}

func columns(nodes []heldNode) (addresses, managers []string) {
	for _, n := range nodes {
		addresses, managers = append(addresses, n.Address), append(managers, n.Manager)
	}
	return addresses, managers
}

func unregister(n heldNode, by Requester) NewOperation {
	return NewOperation{Kind: fleet.KindUnregister, Host: n.Address, Manager: n.Manager, RequestedBy: by.Name, RequestID: by.RequestID}
}

// removal wants that nothing has changed since orderRemoval, now that the hosts are
// locked and still where they were. It takes them out of our own lists.
func (s *Store) removal(ctx context.Context, q querier, o orders, addresses []string) ([]fleet.Operation, error) {
	if err := s.forget(ctx, q, addresses); err != nil {
		return nil, err
	}
	now, err := s.heldNodes(ctx, q, o.which)
	switch {
	case err != nil:
		return nil, err
	case !slices.Equal(now, o.nodes):
		return nil, errAgain
	}
	leaving, managers := columns(o.nodes)
	if _, err := q.Exec(ctx, leavingSQL, s.tenant, leaving, managers); err != nil {
		return nil, err
	}
	return s.withHosts(ctx, q, o.ops)
}

// withHosts gives each operation its host run, and then the operations as they are.
func (s *Store) withHosts(ctx context.Context, q querier, ops []fleet.Operation) ([]fleet.Operation, error) {
	if len(ops) == 0 {
		return []fleet.Operation{}, nil
	}
	var ids, hosts []string
	for _, op := range ops {
		ids, hosts = append(ids, op.ID), append(hosts, op.Host)
	}
	if _, err := q.Exec(ctx, insertHostRunsOfOrdersSQL, s.tenant, ids, hosts); err != nil {
		return nil, err
	}
	return collect(ctx, q, scanOperation, orderedSQL, s.tenant, ids)
}

// orderJoin puts a register on record for each host that is to join a cluster whose
// container manager has nodes; for other clusters, an unregister for each that such a
// one still has. A host with another operation like that is a Conflict. Hosts that may
// not join get nothing; the caller refuses them by what it has locked. One whose address
// cannot be the name of a node is Invalid.
func (s *Store) orderJoin(ctx context.Context, q querier, cluster string, addresses []string, by Requester) (o orders, err error) {
	var t fleet.ContainerManagerType
	err = q.QueryRow(ctx, clusterManagerSQL, s.tenant, cluster).Scan(&o.manager, &t)
	if err != nil {
		return o, orNotFound(err, "cluster", cluster)
	}
	hosts, err := s.memberships(ctx, q, mayJoinSQL, addresses)
	if err != nil {
		return o, err
	}
	for _, address := range addresses {
		if h, known := hosts[address]; known && h.cluster == "" && h.state.ReadyToJoin() {
			o.joining = append(o.joining, address)
		}
	}
	slices.Sort(o.joining)
	o.which = whichHosts{addresses: append([]string{}, o.joining...)}
	if o.nodes, err = s.heldNodes(ctx, q, o.which); err != nil {
		return o, err
	}
	kind, wanted, managers := fleet.KindRegister, o.joining, slices.Repeat([]string{o.manager}, len(o.joining))
	if !t.HasNodes() {
		kind = fleet.KindUnregister
		wanted, managers = columns(o.nodes)
	} else {
		for _, address := range o.joining {
			if err := fleet.CheckNodeName(address); err != nil {
				return o, err
			}
		}
	}
	if o.ops, err = s.insertOrders(ctx, q, kind, wanted, managers, by); err != nil || len(o.ops) == len(wanted) {
		return o, err
	}
	holder, err := one(ctx, q, scanOperation, unfinishedSQL, s.tenant, "", without(wanted, o.ops)[0], "")
	if isNoRows(err) {
		return o, errAgain // it ended in between
	}
	if err == nil {
		err = held(holder, "")
	}
	return o, err
}

// joined tells hosts that just joined a cluster who holds them now: its container
// manager, or nobody. One that workers ask holds them when their register has ended.
func (s *Store) joined(ctx context.Context, q querier, manager string, addresses []string, o orders) ([]fleet.Operation, error) {
	joining := slices.Sorted(slices.Values(addresses))
	if manager != o.manager || !slices.Equal(joining, o.joining) {
		return nil, errAgain
	}
	if len(joining) == 0 {
		return nil, nil
	}
	now, err := s.heldNodes(ctx, q, o.which)
	switch {
	case err != nil:
		return nil, err
	case !slices.Equal(now, o.nodes):
		return nil, errAgain
	}
	holder, err := one(ctx, q, scanOperation, atNodeSQL, s.tenant, joining, o.ids())
	if err == nil {
		return nil, held(holder, "")
	}
	if !isNoRows(err) {
		return nil, err
	}
	change := stateChange{addresses: joining, event: fleet.HostPrepared}
	if manager != "" {
		t, refused, err := s.mayRegister(ctx, q, manager)
		switch {
		case err != nil:
			return nil, err
		case refused != nil:
			return nil, refused
		case t.HasNodes() != (len(o.ops) > 0 && o.ops[0].Kind == fleet.KindRegister):
			return nil, errAgain // another one of that name
		case t.HasNodes():
			change.reason = "is being registered with container manager " + manager
			if _, err := q.Exec(ctx, staysSQL, s.tenant, joining); err != nil {
				return nil, err
			}
		default:
			change.event = fleet.HostRegistered
		}
	}
	if err := s.settle(ctx, q, change, manager); err != nil {
		return nil, err
	}
	return s.withHosts(ctx, q, o.ops)
}

// removeLeft puts an unregister on record for the host of an operation that has just
// ended, when it left meanwhile.
func (s *Store) removeLeft(ctx context.Context, q querier, op fleet.Operation) error {
	left, err := collect(ctx, q, pgx.RowToStructByPos[heldNode], leftBehindSQL, s.tenant, op.Host)
	if err != nil || len(left) == 0 {
		return err
	}
	next, created, err := s.insertOperation(ctx, q, unregister(left[0], Requester{Name: op.RequestedBy, RequestID: op.RequestID}))
	if err != nil || !created {
		return err
	}
	_, err = s.withHosts(ctx, q, []fleet.Operation{next})
	return err
}
