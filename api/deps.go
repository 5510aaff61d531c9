package api

import (
	"context"
	"crypto/sha256"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// Store is the inventory of one tenant, as *store.Store gives it.
type Store interface {
	ClusterStore
	MemberStore
	HostStore
	NetworkStore
	OperationStore
	ContainerManagerStore
	AccessStore
	AuditStore
	SourceStore
}

// ClusterStore keeps clusters.
type ClusterStore interface {
	Clusters(ctx context.Context) ([]string, error)
	Cluster(ctx context.Context, name string) (store.ClusterView, error)
	PutCluster(ctx context.Context, put store.ClusterPut) (fleet.Cluster, error)
	DeleteCluster(ctx context.Context, name string, by store.Requester) ([]fleet.Operation, error)
	ClusterPolicy(ctx context.Context, name string) (fleet.Policy, error)
	PutClusterPolicy(ctx context.Context, name string, p fleet.Policy) error
}

// MemberStore keeps who is in which cluster.
type MemberStore interface {
	Members(ctx context.Context, cluster string) ([]string, error)
	HasMember(ctx context.Context, cluster, address string) (bool, error)
	AddMember(ctx context.Context, cluster, address string, by store.Requester) ([]fleet.Operation, error)
	RemoveMember(ctx context.Context, cluster, address string, by store.Requester) ([]fleet.Operation, error)
	ReplaceMembers(ctx context.Context, cluster string, old, members []string, by store.Requester) (store.ClusterView, []fleet.Operation, error)
}

// HostStore keeps hosts, their credentials and host keys.
type HostStore interface {
	Hosts(ctx context.Context) ([]fleet.Host, error)
	Host(ctx context.Context, address string) (fleet.Host, error)
	PutHost(ctx context.Context, put store.HostPut) (fleet.Host, *fleet.Operation, error)
	DeleteHost(ctx context.Context, address string, by store.Requester) (cancelled, ordered []fleet.Operation, err error)
	HostCreds(ctx context.Context, address string) (secret.HostCreds, error)
	PutHostCreds(ctx context.Context, address string, creds secret.HostCreds) error
	HostLabels(ctx context.Context, address string) (map[string]string, error)
	PutHostLabels(ctx context.Context, address string, labels map[string]string) error
	AcceptHostKey(ctx context.Context, address, authorizedKey string) (fleet.HostKey, error)
}

// NetworkStore keeps networks.
type NetworkStore interface {
	Networks(ctx context.Context) ([]string, error)
	Network(ctx context.Context, name string) (fleet.Network, error)
	PutNetwork(ctx context.Context, n fleet.Network) (fleet.Network, error)
	DeleteNetwork(ctx context.Context, name string) error
}

// ContainerManagerStore keeps container managers and which hosts they hold.
type ContainerManagerStore interface {
	ContainerManagers(ctx context.Context) ([]string, error)
	ContainerManager(ctx context.Context, name string) (fleet.ContainerManager, error)
	PutContainerManager(ctx context.Context, m fleet.ContainerManager) (put fleet.ContainerManager, check string, err error)
	ReplaceContainerManager(ctx context.Context, m fleet.ContainerManager, fits func(fleet.ContainerManager) error) (put fleet.ContainerManager, check string, err error)
	ContainerManagerChecked(ctx context.Context, name, check string) error
	ContainerManagerRefused(ctx context.Context, name, check string) error
	DeleteContainerManager(ctx context.Context, name string, force bool) (ended []fleet.Operation, err error)
	HostNode(ctx context.Context, address string) (store.Node, error)
}

// AccessStore keeps API tokens and join tokens.
type AccessStore interface {
	CreateToken(ctx context.Context, t fleet.Token, digest [sha256.Size]byte) (fleet.Token, error)
	Tokens(ctx context.Context, owner string) ([]fleet.Token, error)
	Token(ctx context.Context, id string) (fleet.Token, error)
	RevokeToken(ctx context.Context, id string) error
	CreateJoinToken(ctx context.Context, t fleet.JoinToken, digest [sha256.Size]byte, private secret.Text) (fleet.JoinToken, error)
	JoinTokens(ctx context.Context) ([]fleet.JoinToken, error)
	RevokeJoinToken(ctx context.Context, id string) error
	JoinHost(ctx context.Context, join store.HostJoin) (fleet.Host, *fleet.Operation, error)
}

// AuditStore keeps who changed what.
type AuditStore interface {
	BeginAudit(ctx context.Context, e fleet.AuditEntry) (id int64, err error)
	EndAudit(ctx context.Context, id int64, status int, subject string) error
	Audit(ctx context.Context, f store.AuditFilter) (page []fleet.AuditEntry, next string, err error)
}

// SourceStore keeps which host has which source, and gives the hosts for other programs.
type SourceStore interface {
	PutHostSource(ctx context.Context, address, source string) error
	PutHostBastion(ctx context.Context, address, bastion string) error
	SourceUse(ctx context.Context, sources []string) (hosts map[string]int, last map[string]fleet.Operation, err error)
	Inventory(ctx context.Context) ([]store.InventoryHost, error)
}

// OperationStore keeps what was done, and takes orders for more.
type OperationStore interface {
	StartOperation(ctx context.Context, o store.NewOperation) (op fleet.Operation, created bool, err error)
	PreviewOperation(ctx context.Context, o store.NewOperation) (store.Preview, error)
	Steer(ctx context.Context, id string, a store.SteerAction) (fleet.Operation, error)
	SetOperationPolicy(ctx context.Context, id string, p fleet.Policy, by, idempotencyKey string) (fleet.Operation, error)
	Operation(ctx context.Context, id string) (fleet.Operation, error)
	LatestOperation(ctx context.Context, kind fleet.OperationKind, cluster, host string) (fleet.Operation, error)
	Operations(ctx context.Context, f store.OperationFilter) (page []fleet.Operation, next string, err error)
	Progress(ctx context.Context, operationID string) (fleet.Progress, error)
	HostRuns(ctx context.Context, operationID string) ([]fleet.HostRun, error)
	HostRunsPage(ctx context.Context, operationID string, f store.HostRunFilter) (page []fleet.HostRun, next string, err error)
	StepsPage(ctx context.Context, operationID string, f store.StepFilter) (page []fleet.Step, next string, err error)
	Steps(ctx context.Context, operationID, address string) ([]fleet.Step, error)
	Output(ctx context.Context, stepID, offset int64, limit int) ([]fleet.OutputChunk, error)
	Events(ctx context.Context, operationID string, f store.EventFilter) ([]store.Event, error)
	EventsAfter(ctx context.Context, operationID string, f store.EventFilter) (more bool, err error)
}

// Changes gives a channel that has something in it when an operation may have
// changed, until the function is called or ctx ends, as (*store.DB).Changes does.
type Changes func(ctx context.Context, operationID string) (changed <-chan struct{}, unsubscribe func())

// Dispatcher hands stored operations to the workflow service.
type Dispatcher interface {
	// Ready says whether the workflow service answers; asked before anything is
	// stored, so that an order is refused as a whole.
	Ready(ctx context.Context) error
	// Start starts the workflow of a stored operation. It never fails the
	// request: the operation is on disk, and the dispatcher tries again.
	Start(ctx context.Context, op fleet.Operation)
	// Cancel stops the workflow of an operation that is cancelled in the store. With an
	// error nobody has told it, and what runs on hosts goes on.
	Cancel(ctx context.Context, op fleet.Operation) error
	// Wake tells the workflow of an operation that somebody has steered it. It never
	// fails the request: the dispatcher tells it again.
	Wake(ctx context.Context, op fleet.Operation)
	// CheckManager has a worker ask a container manager that was put whether it will
	// do. The error says why not, or, when it is Unavailable, that nobody knows.
	CheckManager(ctx context.Context, tenant, name, check string) error
	// ReadNode has a worker ask the container manager of a host's cluster how its node
	// is, and returns when the answer is in the store.
	ReadNode(ctx context.Context, tenant, address string) error
	// Diagnose has a worker ask the container manager of a cluster what would be in the
	// way of draining these hosts. unknown says why nobody knows, "" when it is known; that
	// is no error.
	Diagnose(ctx context.Context, tenant, cluster string, addresses []string, d fleet.Drain) (found map[string]fleet.HostDiagnosis, unknown string, err error)
}

// requester is who makes the request, for operations that it may need.
func requester(ctx context.Context) store.Requester {
	c := callOf(ctx)
	return store.Requester{Name: c.principal.Name, RequestID: c.id}
}

// startsAtOnce is how many operations a request starts itself. One workflow takes a few
// milliseconds, and a cluster may have thousands of nodes.
const startsAtOnce = 20

// ordered hands over operations that a change has put on record beside it. More than some
// are left to the dispatcher, which finds them on record within seconds.
func (h *handlers) ordered(ctx context.Context, ops []fleet.Operation) {
	for _, op := range ops[:min(len(ops), startsAtOnce)] {
		h.Dispatcher.Start(context.WithoutCancel(ctx), op)
	}
}

// cancelled stops the workflows of operations that a change has ended. One that is not
// reached finds that out by its next step.
func (h *handlers) cancelled(ctx context.Context, ops []fleet.Operation) {
	for _, op := range ops {
		_ = h.Dispatcher.Cancel(context.WithoutCancel(ctx), op)
	}
}

// dispatch hands over an operation that is stored. The client may be gone by
// now, but its order stands.
func (h *handlers) dispatch(ctx context.Context, op fleet.Operation) {
	if c := callOf(ctx); c.subject == "" {
		c.subject = op.ID
	}
	h.Dispatcher.Start(context.WithoutCancel(ctx), op)
}

// dispatcherReady refuses new work while nothing could do it.
func (h *handlers) dispatcherReady(ctx context.Context) error {
	err := h.Dispatcher.Ready(ctx)
	if err == nil {
		return nil
	}
	return &fleet.Error{
		Kind:   fleet.Unavailable,
		Detail: "the workflow service (Temporal) does not answer, so nothing was stored or started; try again later",
		Err:    err,
	}
}
