package containermgr

import (
	"context"
	"encoding/json"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Manager keeps nodes. Every method may be repeated.
type Manager interface {
	// Check says whether the manager answers and grants all that is needed: rights
	// that lack are named.
	Check(ctx context.Context) error
	// Register adds a node; one that is there already is fine.
	Register(ctx context.Context, node string) error
	// Remove removes exactly this node; one that is not there is fine.
	Remove(ctx context.Context, node string) error
	// Registered says whether the node is there.
	Registered(ctx context.Context, node string) (bool, error)
	// Status is the whole node as the manager has it, a JSON object.
	Status(ctx context.Context, node string) (json.RawMessage, error)
	// Ready waits until the node can run pods, for as long as ctx lasts.
	Ready(ctx context.Context, node string, w Wait) error
}

// Drainer takes nodes out of service and puts them back.
type Drainer interface {
	// Cordon closes the node to new pods, for an owner, and notes how it was before.
	Cordon(ctx context.Context, node, owner string) (Cordon, error)
	// Restore makes the node as it was before the owner's Cordon.
	Restore(ctx context.Context, node, owner string) (Restored, error)
	// Diagnose names what would stand in the way of a drain. It changes nothing.
	Diagnose(ctx context.Context, node, owner string, p DrainPolicy) ([]Finding, error)
	// Evict makes one pass of a drain of a node that the owner has cordoned.
	Evict(ctx context.Context, node, owner string, p DrainPolicy) (Pass, error)
}

// Wait says what Ready waits for.
type Wait struct {
	// BootID is that of the host (/proc/sys/kernel/random/boot_id) when the kubelet
	// must have reported since that boot, "" when any report will do: for most of a
	// minute after a node has gone down, the manager still calls it Ready.
	BootID string
}

// Rules are the rights that the account of a container manager needs, as in a
// ClusterRole.
func Rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "create", "patch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"pods/eviction"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: []string{"get"}},
		{APIGroups: []string{"policy"}, Resources: []string{"poddisruptionbudgets"}, Verbs: []string{"list"}},
	}
}
