// Package deploycheck checks what is shipped to run Commissaire elsewhere with the
// parsers of those who will read it: Prometheus and docker compose. It is a module of
// its own, since nothing else needs either.
package deploycheck
