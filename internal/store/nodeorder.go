package store

import (
	"context"
	"slices"

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

	keepUnfinishedSQL = `SELECT FROM operation WHERE id = $1 AND finished IS NULL FOR SHARE`

	leavingSQL = `UPDATE node SET leaving = true WHERE tenant = $1 AND address = $2 AND manager = $3`

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
	for _, n := range o.nodes {
		op, created, err := s.insertOperation(ctx, q, unregister(n, by))
		switch {
		case err != nil:
			return o, err
		case created:
			o.ops = append(o.ops, op)
			continue
		}
		// Keeps it from ending before the node is marked as leaving.
		if _, err := one(ctx, q, scanNothing, keepUnfinishedSQL, op.ID); isNoRows(err) {
			return o, errAgain
		} else if err != nil {
			return o, err
		}
	}
	return o, nil
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
	for _, n := range o.nodes {
		if _, err := q.Exec(ctx, leavingSQL, s.tenant, n.Address, n.Manager); err != nil {
			return nil, err
		}
	}
	return s.withHosts(ctx, q, o.ops)
}

// withHosts gives each operation its host run.
func (s *Store) withHosts(ctx context.Context, q querier, ops []fleet.Operation) ([]fleet.Operation, error) {
	out := []fleet.Operation{}
	for _, op := range ops {
		if _, err := q.Exec(ctx, insertHostRunSQL, op.ID, s.tenant, op.Host); err != nil {
			return nil, err
		}
		op, err := s.operation(ctx, q, operationSQL, op.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, op)
	}
	return out, nil
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
	var wanted []NewOperation
	if t.HasNodes() {
		for _, address := range o.joining {
			if err := fleet.CheckNodeName(address); err != nil {
				return o, err
			}
			wanted = append(wanted, NewOperation{Kind: fleet.KindRegister, Host: address, Manager: o.manager, RequestedBy: by.Name, RequestID: by.RequestID})
		}
	} else {
		for _, n := range o.nodes {
			wanted = append(wanted, unregister(n, by))
		}
	}
	for _, n := range wanted {
		op, created, err := s.insertOperation(ctx, q, n)
		if err != nil {
			return o, err
		}
		if !created {
			return o, held(op, "")
		}
		o.ops = append(o.ops, op)
	}
	return o, nil
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
