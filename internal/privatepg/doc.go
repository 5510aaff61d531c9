// Package privatepg runs a private PostgreSQL from the binaries that the
// distribution installed: for development, for tests, for a first look. It
// downloads nothing.
//
//	Dir/data           the cluster, with data checksums
//	Dir/run            the unix socket, the only way in; its mode is the access control
//	Dir/postgres.log   what the server says
//	Dir/lock           held while a Start runs; marks the directory as ours
//
// The server dies with the process that started it, also after a kill -9 of
// that one, and then shuts down cleanly. A Start that finds a server running on
// Dir adopts it. As root, Postgres runs as the account postgres or nobody,
// since it refuses root. Linux only.
package privatepg
