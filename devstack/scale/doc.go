// Package scale measures a restart of thousands of hosts: the real API server
// and one real worker as processes of their own, a real Postgres and a real
// Temporal, and hosts simulated in this process (package simhost), which keep
// count of their own reboots.
//
// The hosts are put straight into the inventory, as a bootstrap would have left
// them: to bootstrap ten thousand takes longer than what is measured.
package scale
