package containermgr

import (
	"context"
	"encoding/json"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"commissaire/internal/fleet"
)

// Manager keeps nodes. Every method may be repeated.
type Manager interface {
	// Check says whether the manager answers and grants all that is needed: rights
	// that lack are named.
	Check(ctx context.Context) error
	// Register adds a node; one that is there already is fine.
	Register(ctx context.Context, node string) error
	// Remove removes exactly this node; one that is not there is fine. A node that was
	// made after since is another, and left: that is said.
	Remove(ctx context.Context, node string, since time.Time) (left bool, err error)
	// Registered says whether the node is there.
	Registered(ctx context.Context, node string) (bool, error)
	// Status is the whole node as the manager has it, a JSON object.
	Status(ctx context.Context, node string) (json.RawMessage, error)
	// Ready waits until the node can run pods, for as long as ctx lasts.
	Ready(ctx context.Context, node string, w Wait) error
}

// Drainer takes nodes out of service and puts them back. The record of the caller is
// the fence between callers: stands gives an error once the owner's turn is over by
// that record, whatever a caller that slept meanwhile believes. Only then may anybody
// Restore, and Restore makes a cordon fail that is still on its way.
type Drainer interface {
	// Cordon closes the node to new pods, for an owner, and notes how it was before.
	Cordon(ctx context.Context, node, owner string, stands func(context.Context) error) (Cordon, error)
	// Restore makes the node as it was before the owner's Cordon.
	Restore(ctx context.Context, node, owner string) (Restored, error)
	// Diagnose names what would stand in the way of a drain. It changes nothing. again
	// leaves out the volumes, which take long to read and block nothing.
	Diagnose(ctx context.Context, node, owner string, p fleet.Drain, again bool) ([]fleet.Finding, error)
	// DiagnoseMany does so for many nodes at once, for an owner to come. Its answer has
	// each of them, also one that is not there.
	DiagnoseMany(ctx context.Context, nodes []string, p fleet.Drain) (map[string][]fleet.Finding, error)
	// Evict makes one pass of a drain of a node that the owner has cordoned, after the
	// pass before.
	Evict(ctx context.Context, node, owner string, p fleet.Drain, before Pass, stands func(context.Context) error) (Pass, error)
}

// Wait says what Ready waits for.
type Wait struct {
	// Left is the id of the boot (/proc/sys/kernel/random/boot_id) that the host has
	// left: the kubelet must have reported from another. "" when any report will do.
	// For most of a minute after a node has gone down, the manager still calls it
	// Ready.
	Left string
	// Lacks, unless nil, is told after each look why the node is not ready.
	Lacks func(why error)
}

// Rules are the rights that the account of a container manager needs, as in a
// ClusterRole.
func Rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "create", "patch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"pods/eviction"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{"policy"}, Resources: []string{"poddisruptionbudgets"}, Verbs: []string{"list"}},
	}
}
