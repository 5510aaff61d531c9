package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"

	"commissaire/internal/containermgr"
	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// NodeStore is what steps on nodes need of the store, for one tenant.
type NodeStore interface {
	Operation(ctx context.Context, id string) (fleet.Operation, error)
	HostNode(ctx context.Context, address string) (store.Node, error)
	OpenContainerManager(ctx context.Context, name, check string) (fleet.ContainerManager, error)
	ClaimNode(ctx context.Context, id, address string) (fleet.ContainerManager, error)
	NodeRemoved(ctx context.Context, id string) error
	SetWaiting(ctx context.Context, id, waiting string) error
	SetNodeStatus(ctx context.Context, address, manager string, status []byte) error
	NodeReady(ctx context.Context, id, address string) error
	NodesAmong(ctx context.Context, manager string, addresses []string) ([]string, error)
	Cluster(ctx context.Context, name string) (store.ClusterView, error)
	CordonStore
	StepStore
}

// Nodes are the steps that ask container managers about hosts.
type Nodes struct {
	Store   func(tenant string) NodeStore
	clients clients
}

// Close drops the connections to container managers, when no step needs them any more.
func (a *Nodes) Close() { a.clients.close() }

const (
	// askAgain is the shortest time between two questions to a container manager that
	// does not answer.
	askAgain = time.Second
	// lastLook is what a step has for Ready at least, also when its time went by while
	// nobody was at it.
	lastLook = 5 * time.Second
	// statusLimit bounds the question how a node is, below the time of whoever waits.
	statusLimit = 5 * time.Second
	// maxStatus is the most that is kept of a node, in bytes.
	maxStatus = 256 << 10
)

// What the record says of a register that succeeded. Anything else is why the host is
// not active.
const (
	noteReady      = "the node is ready"
	noteRegistered = "the node is registered"
	noteLeft       = "the host left its cluster"
)

// noteNewer is what it says of an unregister that met a node that it was not to remove.
const noteNewer = "a node of that name was made since the host was removed; it stays, and whose it is only its cluster knows"

// Register makes the host a node of its cluster's container manager, and waits for the
// node to be ready. Repeating it finds the node there. A container manager that does
// not answer has as long as the node has to become ready.
func (a *Nodes) Register(ctx context.Context, in workflows.HostStep) (workflows.NodeRegistered, error) {
	to := a.Store(in.Tenant)
	s := &stepRecord{steps: to, in: in}
	done, err := s.begin(ctx)
	if !done && err == nil {
		work, stop := s.alive(ctx)
		err = s.register(work, a, to)
		stop()
		err = s.end(ctx, work, err)
	}
	if err != nil {
		return workflows.NodeRegistered{}, err
	}
	switch s.row.Reason {
	case noteReady, noteRegistered:
		return workflows.NodeRegistered{Ready: true}, nil
	case noteLeft:
		return workflows.NodeRegistered{}, nil
	}
	return workflows.NodeRegistered{Reason: s.row.Reason}, nil
}

func (s *stepRecord) register(ctx context.Context, a *Nodes, to NodeStore) error {
	m, err := to.ClaimNode(ctx, s.in.OperationID, s.in.Address)
	if err != nil {
		return err
	}
	if m.Name == "" {
		s.note = noteLeft
		return nil
	}
	k, release, err := a.clients.get(ctx, s.in.Tenant, m)
	if err != nil {
		return blamed(m, err)
	}
	defer release()
	_, spent := patience(ctx)
	ready, cancel := context.WithTimeout(ctx, max(k.wants.ReadyTimeout-spent, lastLook))
	defer cancel()
	lacks := s.lacks(ctx)
	err = insist(ready, lacks, func(ctx context.Context) error { return k.Register(ctx, s.in.Address) })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return blamed(m, err)
	case k.wants.ActiveWhen == options.Registered:
		s.note = noteRegistered
		return nil
	}
	err = k.Ready(ready, s.in.Address, containermgr.Wait{Lacks: lacks})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		s.note = noteReady
	case fleet.KindOf(err) == fleet.NotReady:
		s.note = printable(words(err) + "; a bootstrap tries again")
	default:
		return blamed(m, err)
	}
	return nil
}

// insist repeats f while trying again may help and ctx lasts, and tells why. Its last
// answer stands.
func insist(ctx context.Context, tell func(why error), f func(context.Context) error) error {
	for {
		err := f(ctx)
		if fleet.KindOf(err) != fleet.Unavailable && fleet.KindOf(err) != fleet.Conflict {
			return err
		}
		if ctx.Err() == nil {
			tell(err)
		}
		wait := askAgain
		if after, said := containermgr.RetryAfter(err); said {
			wait = max(wait, after)
		}
		if rest(ctx, wait); ctx.Err() != nil {
			return err
		}
	}
}

// blamed ends a step by what the container manager says.
func blamed(m fleet.ContainerManager, err error) error {
	return failed("container manager %s: %s", m.Name, words(err))
}

// words are those of a container manager for people.
func words(err error) string {
	var e *fleet.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return err.Error()
}

// Unregister removes the node of the host from the container manager that the operation
// names, be the host there or not. Repeating it finds the node gone. While it cannot be
// done, whatever the reason, the operation says that it waits: somebody may mend it.
func (a *Nodes) Unregister(ctx context.Context, in workflows.HostStep) (workflows.Nothing, error) {
	to := a.Store(in.Tenant)
	s := &stepRecord{steps: to, in: in}
	if done, err := s.begin(ctx); done || err != nil {
		return workflows.Nothing{}, err
	}
	op, err := to.Operation(ctx, in.OperationID)
	if err != nil {
		return workflows.Nothing{}, verdict(ctx, err)
	}
	m, err := to.OpenContainerManager(ctx, op.Manager, "")
	if err != nil {
		return workflows.Nothing{}, verdict(ctx, err)
	}
	left, err := a.remove(ctx, m, in.HostRef, op.Created)
	if err != nil {
		waiting := printable("container manager " + m.Name + ": " + words(err))
		if err := to.SetWaiting(ctx, in.OperationID, waiting); err != nil {
			return workflows.Nothing{}, verdict(ctx, err)
		}
		return workflows.Nothing{}, errors.New(waiting)
	}
	if err := to.NodeRemoved(ctx, in.OperationID); err != nil {
		return workflows.Nothing{}, verdict(ctx, err)
	}
	if err := to.SetWaiting(ctx, in.OperationID, ""); err != nil {
		return workflows.Nothing{}, verdict(ctx, err)
	}
	if left {
		s.note = noteNewer
	}
	return workflows.Nothing{}, s.end(ctx, ctx, nil)
}

func (a *Nodes) remove(ctx context.Context, m fleet.ContainerManager, in workflows.HostRef, since time.Time) (left bool, err error) {
	k, release, err := a.clients.get(ctx, in.Tenant, m)
	if err != nil {
		return false, err
	}
	defer release()
	return k.Remove(ctx, in.Address, since)
}

// Check asks a container manager that was put whether it will do. It changes nothing. It
// has a client of its own, since files that the options name may just have been mended.
func (a *Nodes) Check(ctx context.Context, in workflows.ManagerRef) (workflows.ManagerVerdict, error) {
	m, err := a.Store(in.Tenant).OpenContainerManager(ctx, in.Name, in.Check)
	if err != nil {
		return workflows.ManagerVerdict{}, verdict(ctx, err)
	}
	k, err := open(m)
	if err == nil {
		defer k.Close()
		k.warn(ctx, m)
		err = k.Check(ctx)
	}
	var e *fleet.Error
	switch {
	case err == nil:
		return workflows.ManagerVerdict{}, nil
	case errors.As(err, &e):
		return workflows.ManagerVerdict{Kind: e.Kind, Detail: e.Detail, Fields: e.Fields}, nil
	}
	return workflows.ManagerVerdict{}, err
}

// Status puts on record how the node of a host is, by its container manager; nothing
// when that does not answer, or has no such node. Repeating it asks again.
func (a *Nodes) Status(ctx context.Context, in workflows.NodeRef) (workflows.Nothing, error) {
	to := a.Store(in.Tenant)
	n, err := to.HostNode(ctx, in.Address)
	if err != nil || !n.Held() || !n.Type.HasNodes() {
		return workflows.Nothing{}, verdict(ctx, err)
	}
	m, err := to.OpenContainerManager(ctx, n.Manager, "")
	if err != nil {
		return workflows.Nothing{}, verdict(ctx, err)
	}
	status, err := a.status(ctx, m, in)
	switch {
	case err != nil && fleet.KindOf(err) != fleet.NotFound:
		activity.GetLogger(ctx).Warn("the container manager does not say how a node is", "container_manager", m.Name, "node", in.Address, "error", err)
	case len(status) > maxStatus:
		activity.GetLogger(ctx).Warn("a node is too large to be kept", "container_manager", m.Name, "node", in.Address, "bytes", len(status), "most", maxStatus)
		status = nil
	}
	return workflows.Nothing{}, verdict(ctx, to.SetNodeStatus(ctx, in.Address, n.Manager, status))
}

func (a *Nodes) status(ctx context.Context, m fleet.ContainerManager, in workflows.NodeRef) ([]byte, error) {
	k, release, err := a.clients.get(ctx, in.Tenant, m)
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	return k.Status(ctx, in.Address)
}
