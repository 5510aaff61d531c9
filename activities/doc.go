// Package activities turns each step into its effect, through injected
// interfaces: Postgres for the record, SSH for the host, client-go for Kubernetes.
//
// Temporal runs an activity at least once, so every one of them is written to
// be repeated, by the same worker or by another, also while an earlier attempt
// that was given up for lost is still running somewhere. Three things make
// that safe: the record only moves forward by compare-and-set, a step that has
// ended answers with how it ended, and a command on a host is claimed there
// under the key operation/host/step before it starts.
package activities
