package kubetest

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"
)

// TestTimeout bounds what one test waits for: far more than it takes, since the
// machine may be busy.
const TestTimeout = 5 * time.Minute

// New starts a control plane for one test, which may stop parts of it. It ends
// with the test.
func New(t testing.TB) *Cluster {
	t.Helper()
	need(t)
	c, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("test control plane: %v", err)
		}
	})
	return c
}

// Shared gives the control plane that all tests of this process use, started by
// the first; it ends with the process. Tests keep apart by namespaces and by the
// names of their nodes.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	need(t)
	c, err := startShared()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var startShared = sync.OnceValues(func() (*Cluster, error) { return Start(context.Background()) })

// need skips a test that cannot run here.
func need(t testing.TB) {
	t.Helper()
	err := Available()
	switch {
	case err == nil:
	case os.Getenv(RequireVariable) == "require":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}
