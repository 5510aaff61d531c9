// Package e2e tests whole installations: the binary as processes of its own, a
// real Postgres, a real Temporal and hosts with a real sshd. What the record
// says is compared with what the hosts' own ledgers say happened to them.
//
// All tests share one Postgres and one Temporal, each with a database and a
// namespace of its own; those that stop them start their own.
package e2e
