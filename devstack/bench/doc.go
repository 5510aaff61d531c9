// Package bench measures reads of the API of a large installation beside a bare
// handler: net/http and pgx with the same query and the same JSON, and nothing
// else. Both are processes of their own on one Postgres and take turns, so that
// the ratio says what the API itself costs.
package bench
