// Package workflows says what happens in which order, and what to do when a
// part of it fails. Workflow functions have no receiver, no dependencies and do
// no I/O: they start steps (steps.go), whose effects live in the activities
// package, under the time limits and retries of policies.go.
//
//	Bootstrap            one host:     investigate, prepare, register
//	Register             one host:     register with a container manager
//	Unregister           one host:     the opposite
//	Restart              one cluster:  hosts one after another, each a child
//	└── RestartHost      one host:     check, reboot, wait, verify
//
// History carries identifiers and verdicts only: no output, no secret, no list
// of hosts longer than a page. What happened stands in Postgres; these
// workflows move it on.
package workflows
