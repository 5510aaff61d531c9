// Package fleet holds the nouns of Commissaire: what they are, how outside
// text becomes one of them, and which state may follow which.
//
//	Tenant ── Cluster ── Host ── HostCreds, HostKey
//	   │
//	   └── Operation ── HostRun ── Step ── Output
//
// An Operation is one act on a cluster or a host; a HostRun is one host's part
// in it; a Step is a named act within a host run; Output is the bytes a step
// printed. Together they are the one record of everything that ever happened
// to a host.
//
// The package imports the standard library only and does no I/O.
package fleet
