// Package histories records what Temporal writes down of every workflow in every
// way that it can end, on the real stack: workers, an API server, Postgres and
// sshd hosts. The tests of package workflows replay the histories, so that code
// which does not fit operations that are under way is noticed before it runs.
package histories
