// Package containermgrtest says what every container manager does, whatever its
// type, as tests.
package containermgrtest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
)

// limit is how long anything may take: far more than it does, since the machine
// may be busy.
const limit = 5 * time.Minute

// Kit is a container manager under test.
type Kit struct {
	Manager containermgr.Manager
	// Node gives a name that no other test uses and that is not registered.
	Node func() string
	// Start has the host of a registered node come alive, so that the manager calls
	// it ready sooner or later. nil: a registered node is ready.
	Start func(ctx context.Context, node string) error
}

// Run runs the suite.
func Run(t *testing.T, kit Kit) {
	test := func(name string, f func(t *testing.T, ctx context.Context)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			f(t, ctx)
		})
	}
	m := kit.Manager

	test("check", func(t *testing.T, ctx context.Context) {
		require.NoError(t, m.Check(ctx))
	})
	test("register is idempotent", func(t *testing.T, ctx context.Context) {
		node := kit.Node()
		requireRegistered(t, ctx, m, node, false)
		for range 2 {
			require.NoError(t, m.Register(ctx, node))
			requireRegistered(t, ctx, m, node, true)
		}
	})
	test("register at once by many", func(t *testing.T, ctx context.Context) {
		node := kit.Node()
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = m.Register(ctx, node) })
		}
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
	})
	test("remove is idempotent and takes no other node", func(t *testing.T, ctx context.Context) {
		node, other := kit.Node(), kit.Node()
		requireRemoved(t, ctx, m, node)
		require.NoError(t, m.Register(ctx, node))
		require.NoError(t, m.Register(ctx, other))
		for range 2 {
			requireRemoved(t, ctx, m, node)
			requireRegistered(t, ctx, m, node, false)
			requireRegistered(t, ctx, m, other, true)
		}
		require.NoError(t, m.Register(ctx, node), "it may come back")
	})
	test("remove leaves a node that was made later", func(t *testing.T, ctx context.Context) {
		node, since := kit.Node(), time.Now().Add(-time.Hour)
		require.NoError(t, m.Register(ctx, node))
		left, err := m.Remove(ctx, node, since)
		require.NoError(t, err)
		require.True(t, left)
		requireRegistered(t, ctx, m, node, true)
		requireRemoved(t, ctx, m, node)
		requireRegistered(t, ctx, m, node, false)
	})
	test("status", func(t *testing.T, ctx context.Context) {
		node := kit.Node()
		_, err := m.Status(ctx, node)
		require.Equal(t, fleet.NotFound, fleet.KindOf(err), err)
		require.NoError(t, m.Register(ctx, node))
		raw, err := m.Status(ctx, node)
		require.NoError(t, err)
		var object map[string]any
		require.NoError(t, json.Unmarshal(raw, &object))
		require.Contains(t, string(raw), node)
	})
	test("ready", func(t *testing.T, ctx context.Context) {
		node := kit.Node()
		require.NoError(t, m.Register(ctx, node))
		if kit.Start != nil {
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			err := m.Ready(short, node, containermgr.Wait{})
			require.Equal(t, fleet.NotReady, fleet.KindOf(err), err)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			done := make(chan error, 1)
			go func() { done <- m.Ready(ctx, node, containermgr.Wait{}) }()
			require.NoError(t, kit.Start(ctx, node))
			require.NoError(t, <-done)
		}
		require.NoError(t, m.Ready(ctx, node, containermgr.Wait{}))
	})
	test("ready of a node that is not there ends in time", func(t *testing.T, ctx context.Context) {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		err := m.Ready(short, kit.Node(), containermgr.Wait{})
		require.Equal(t, fleet.NotReady, fleet.KindOf(err), err)
	})
	test("names that no node can have", func(t *testing.T, ctx context.Context) {
		other := kit.Node()
		require.NoError(t, m.Register(ctx, other))
		for _, name := range []string{"", ".", "..", "a/b", "../pods", "fd00::1", "Node", "a_b", "a b", "a?b"} {
			require.Equal(t, fleet.Invalid, fleet.KindOf(m.Register(ctx, name)), "register %q", name)
			require.Equal(t, fleet.Invalid, fleet.KindOf(m.Ready(ctx, name, containermgr.Wait{})), "ready %q", name)
			// To whoever does not make one, such a node is one that is not there.
			requireRegistered(t, ctx, m, name, false)
			_, err := m.Status(ctx, name)
			require.Equal(t, fleet.NotFound, fleet.KindOf(err), "status %q", name)
			requireRemoved(t, ctx, m, name)
		}
		requireRegistered(t, ctx, m, other, true)
	})
	test("a context that has ended", func(t *testing.T, _ context.Context) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, m.Register(ended, kit.Node()), context.Canceled)
	})
}

func requireRemoved(t *testing.T, ctx context.Context, m containermgr.Manager, node string) {
	t.Helper()
	left, err := m.Remove(ctx, node, time.Now())
	require.NoError(t, err, "remove %q", node)
	require.False(t, left, "remove %q", node)
}

func requireRegistered(t *testing.T, ctx context.Context, m containermgr.Manager, node string, want bool) {
	t.Helper()
	got, err := m.Registered(ctx, node)
	require.NoError(t, err)
	require.Equal(t, want, got, fmt.Sprintf("node %s", node))
}
