package fleet

import "time"

// Drain says how the node of a host is emptied before the host is taken away, in
// clusters whose container manager has nodes. A policy without it drains as the zero
// value says.
type Drain struct {
	// Disabled leaves the node alone: no diagnosis, no cordon, no eviction. Its pods go
	// down with the host.
	Disabled bool `json:"disabled,omitempty"`
	// Timeout is how long to wait for what stands in the way now but may pass, before
	// anything is touched, and then again for the pods to go; DefaultDrainTimeout when 0.
	Timeout Duration `json:"timeout,omitempty"`
	// GracePeriod replaces the pods' own; not set, each pod keeps its own.
	GracePeriod *Duration `json:"grace_period,omitempty"`
	// IgnoreDaemonSets leaves pods of daemon sets where they are; true when not set.
	IgnoreDaemonSets *bool `json:"ignore_daemon_sets,omitempty"`
	// DeleteEmptyDirData evicts pods with emptyDir volumes, whose content is lost.
	DeleteEmptyDirData bool `json:"delete_emptydir_data,omitempty"`
	// Force evicts pods that no controller would make anew.
	Force bool `json:"force,omitempty"`
	// Skip chooses pods, by their labels, that are left where they are.
	Skip string `json:"skip,omitempty"`
	// SkipWaitForDelete does not wait for pods that should have been gone for longer
	// than this, such as those of a dead node; 0 waits for all.
	SkipWaitForDelete Duration `json:"skip_wait_for_delete_timeout,omitempty"`
}

// DefaultDrainTimeout is for a drain whose policy does not say.
const DefaultDrainTimeout = 10 * time.Minute

// check refuses values that make no sense. The error names the member.
func (d Drain) check(field string) error {
	bad := func(name, format string, args ...any) error { return InvalidField(field+"."+name, format, args...) }
	if d.Timeout != 0 && (time.Duration(d.Timeout) < time.Second || time.Duration(d.Timeout) > MaxDuration) {
		return bad("timeout", "must be at least 1s and at most a year")
	}
	if g := d.GracePeriod; g != nil && (*g < 0 || time.Duration(*g) > MaxDuration || time.Duration(*g)%time.Second != 0) {
		return bad("grace_period", "must be whole seconds, 0s or more, and at most a year")
	}
	if d.SkipWaitForDelete < 0 || time.Duration(d.SkipWaitForDelete) > MaxDuration {
		return bad("skip_wait_for_delete_timeout", "must not be below 0s, and be at most a year")
	}
	if _, err := ParseSelector(d.Skip); err != nil {
		return bad("skip", "%s", err)
	}
	return nil
}

// Finding is one thing that stands in the way of a drain, or that is worth knowing
// before it.
type Finding struct {
	Cause string `json:"cause"` // one word, such as budget
	// Object is "node NAME", "pod NAMESPACE/NAME" or "budget NAMESPACE/NAME".
	Object string `json:"object"`
	// Pods that it holds up, "namespace/name".
	Pods []string `json:"pods,omitempty"`
	// Detail says what is wrong and what to do.
	Detail string `json:"detail"`
	// Blocks: the drain would not end while this is so. Else it is worth knowing.
	Blocks bool `json:"blocks,omitempty"`
	// Passes: it may end by itself, so there is use in waiting.
	Passes bool `json:"passes,omitempty"`
	// Owner is whom the mark on the node names that somebody of ours has left there, as
	// "OPERATION/ADDRESS"; "" when this is about no such mark.
	Owner string `json:"-"`
}

// String is one sentence for people.
func (f Finding) String() string { return f.Object + " " + f.Detail }

// HostDiagnosis is what is in the way of draining the node of one host. What blocks
// comes first, and More counts what was left out.
type HostDiagnosis struct {
	Findings []Finding `json:"findings,omitempty"`
	More     int       `json:"more,omitempty"`
}
