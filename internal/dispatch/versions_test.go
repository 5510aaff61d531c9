package dispatch

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
)

func TestKnowsVersions(t *testing.T) {
	t.Parallel()
	f, c := newFrontend(t)
	for name, x := range map[string]struct {
		answer error
		knows  bool
		fails  bool
	}{
		"nobody has polled yet": {knows: true},
		"an old server":         {answer: serviceerror.NewUnimplemented("unknown method")},
		"switched off":          {answer: serviceerror.NewPermissionDenied("Worker Deployment Versions are disabled on this namespace.", "")},
		"no answer":             {answer: serviceerror.NewInvalidArgument("what?"), fails: true},
	} {
		f.answer = x.answer
		knows, why, err := KnowsVersions(t.Context(), c)
		require.Equal(t, x.knows, knows, name)
		require.Equal(t, !x.knows && !x.fails, why != nil, name)
		require.Equal(t, x.fails, err != nil, name)
	}
}

func TestMakeCurrent(t *testing.T) {
	t.Parallel()
	f, c := newFrontend(t)
	f.versions.known = true
	for _, x := range []struct {
		have string
		ours int
		now  int
		sets []string
	}{
		{"", 1, 1, []string{"1"}},
		{"1", 1, 1, nil},
		{"9", 10, 10, []string{"10"}},
		{"10", 9, 10, nil},
	} {
		f.versions.current, f.versions.sets = x.have, nil
		now, err := makeCurrent(t.Context(), c, x.ours)
		require.NoError(t, err)
		require.Equal(t, x.now, now)
		require.Equal(t, x.sets, f.versions.sets)
	}
	f.versions.current = "by hand"
	_, err := makeCurrent(t.Context(), c, 1)
	require.ErrorContains(t, err, `"by hand", which is none of ours`)
}

// An older worker that was about to become current when a newer one did sees
// that, and says so once.
func TestAnOlderRevisionDoesNotWinARace(t *testing.T) {
	t.Parallel()
	f, c := newFrontend(t)
	f.versions.known, f.versions.race = true, "2"
	var text safeBuffer
	ctx, cancel := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { KeepCurrent(ctx, c, 1, slog.New(slog.NewTextHandler(&text, nil))) })
	require.Eventually(t, func() bool { return strings.Contains(text.String(), "gives operations to newer workers") }, limit, tick)
	cancel()
	keeping.Wait()
	require.Equal(t, "2", f.versions.current)
	require.Empty(t, f.versions.sets)
	require.Equal(t, 1, strings.Count(text.String(), "\n"), text.String())
}

// safeBuffer is for a log that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
