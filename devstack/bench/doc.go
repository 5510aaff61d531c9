// Package bench measures the product beside what people would use without it.
//
// Reads compares the API of a large installation with a bare handler: net/http and pgx
// with the same query and the same JSON, and nothing else. Both are processes of their
// own on one Postgres and take turns, so that the ratio says what the API itself costs.
//
// CompareFanOut runs a trivial command on real sshd hosts: by the product, as a whole
// operation from the request to its end on record, by ssh, parallel-ssh, clush and Ansible,
// as they come and tuned, and by a bare Go program. They take turns, too. What each uses
// of processors is read from /proc for the tree of processes below it; a process
// that collects orphans ([Keep]) sees to it that nothing gets lost.
//
// Simulate runs the same operation on thousands of hosts that package simhost simulates.
package bench

// What the bench command does as a process that it starts of itself, by its first
// argument.
const (
	RoleKeeper   = "keeper"   // Keep
	RoleHosts    = "hosts"    // ServeHosts: folder, file, count
	RoleTemporal = "temporal" // scale.ServeTemporal: DSN
)
