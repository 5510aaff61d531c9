// Package store keeps the inventory and the record of operations in Postgres.
//
// A Store is opened for one tenant, so no query can forget it. Every change is
// one conditional statement or one transaction; two that race end in the
// same documented answer as one after the other. Locks are rows and partial
// unique indexes (see migrations), never memory, so any number of processes
// may use one database.
//
// To keep deadlocks away, transactions lock in this order:
//
//	join token -> rollout -> operation -> host run -> step -> cluster -> host -> container manager -> node
//
// and several rows of one table in the order of their keys. An operation on a host that
// the end of another one orders comes last: nobody else can hold it by then.
//
// Errors that a user may meet are *fleet.Error. A Postgres that does not answer
// is always fleet.Unavailable (see errors.go). Types of pgx never leave.
package store
