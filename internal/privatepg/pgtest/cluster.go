package pgtest

import (
	"path/filepath"
	"testing"

	"commissaire/internal/privatepg"
	"commissaire/migrations"
)

// Cluster is a whole Postgres of one test, with one migrated database, to be
// stopped and started.
type Cluster struct {
	DSN     string
	options privatepg.Options
	server  *privatepg.Server
}

// NewCluster starts one; it ends with the test.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{options: privatepg.Options{Dir: filepath.Join(TempDir(t), "pg"), NoSync: true}}
	t.Cleanup(func() {
		if c.server != nil {
			c.Down(t, privatepg.Immediate)
		}
	})
	c.Up(t)
	const database = "commissaire"
	c.DSN = c.server.DSN(database)
	if err := c.server.CreateDatabase(t.Context(), database); err != nil {
		t.Fatalf("test Postgres: %v", err)
	}
	if err := migrations.Up(t.Context(), c.DSN); err != nil {
		t.Fatalf("test Postgres: %v", err)
	}
	return c
}

// Up starts the server again; the DSN stays as it was.
func (c *Cluster) Up(t testing.TB) {
	t.Helper()
	var err error
	if c.server, err = privatepg.Start(t.Context(), c.options); err != nil {
		t.Fatalf("test Postgres: %v", err)
	}
}

// Down stops the server. privatepg.Immediate breaks what runs.
func (c *Cluster) Down(t testing.TB, mode privatepg.StopMode) {
	t.Helper()
	if err := c.server.Stop(mode); err != nil {
		t.Fatalf("test Postgres: %v", err)
	}
}
