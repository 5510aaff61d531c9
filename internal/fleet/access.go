package fleet

import (
	"slices"
	"time"
)

// Role says how much a caller may do. What each role may do stands in package
// authz.
type Role string

// The roles, from least to most. RoleJoin is that of a join token: it adds one
// host and does nothing else.
const (
	RoleJoin     Role = "join"
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// Roles are those that a person or a token can be given, from least to most.
var Roles = []Role{RoleViewer, RoleOperator, RoleAdmin}

// ParseRole accepts the name of a role that can be given. field is the member to
// blame.
func ParseRole(field, s string) (Role, error) {
	if r := Role(s); slices.Contains(Roles, r) {
		return r, nil
	}
	return "", InvalidField(field, "must be viewer, operator or admin")
}

// Covers says whether r may do all that other may. No role covers an unknown one.
func (r Role) Covers(other Role) bool {
	return slices.Contains(Roles, other) && slices.Index(Roles, r) >= slices.Index(Roles, other)
}

// The shortest and longest lives of tokens, and those they get when nobody says.
const (
	MinTokenLife         = time.Second
	MaxTokenLife         = 365 * 24 * time.Hour
	DefaultTokenLife     = 30 * 24 * time.Hour
	MaxJoinTokenLife     = 30 * 24 * time.Hour
	DefaultJoinTokenLife = time.Hour
)

// Token is an API token without its secret.
type Token struct {
	ID         string // 16 small letters and digits
	Name       string // what it is for
	Owner      string // for whom it speaks
	Role       Role
	Operations []string // operationIds it may use, none: all that the role may
	Created    time.Time
	Expires    time.Time
	Revoked    time.Time // zero while it is good
	LastUsed   time.Time // to the minute, zero when never
}

// JoinToken lets one host add itself, without its secret.
type JoinToken struct {
	ID         string
	Cluster    string // "" for none
	RemoteUser string
	PublicKey  string // authorized_keys form; the private half is sealed in the store
	CreatedBy  string
	Created    time.Time
	Expires    time.Time
	Revoked    time.Time
	Used       time.Time // zero while no host has used it
	UsedBy     string    // address of the host that did
}

// AuditEntry is one act that changed something, or read a secret.
type AuditEntry struct {
	At        time.Time
	Principal string
	Method    string // authentication plug-in
	Role      Role
	Address   string // where the request came from
	Operation string // operationId
	Path      string
	Status    int // HTTP status, 0 while the request is at work or when the server died over it
	RequestID string
	Token     string // id of the API token or join token that was shown, "" without one
	// Subject is what it acted on or made where the path does not say: the address of
	// a host, the id of a token or of an operation.
	Subject string
}

// ContainerManager is named configuration of who runs containers on hosts.
type ContainerManager struct {
	Name    string
	Type    ContainerManagerType
	Options map[string]any
}

// ContainerManagerType says what a container manager is.
type ContainerManagerType string

// The container manager types. Trivial keeps a list of nodes in the record and
// nothing else.
const (
	ContainerManagerOpenShift  ContainerManagerType = "openshift"
	ContainerManagerKubernetes ContainerManagerType = "kubernetes"
	ContainerManagerTrivial    ContainerManagerType = "trivial"
)

// HasNodes says whether hosts are nodes of a Kubernetes cluster in a container manager
// of this type, which workers ask. The others are kept by the server itself.
func (t ContainerManagerType) HasNodes() bool {
	return t == ContainerManagerOpenShift || t == ContainerManagerKubernetes
}

// ParseContainerManagerType accepts a container manager type; "" means openshift.
func ParseContainerManagerType(s string) (ContainerManagerType, error) {
	switch t := ContainerManagerType(s); t {
	case "":
		return ContainerManagerOpenShift, nil
	case ContainerManagerOpenShift, ContainerManagerKubernetes, ContainerManagerTrivial:
		return t, nil
	}
	return "", InvalidField("type", "must be openshift, kubernetes or trivial")
}
