package app

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSharedCheck(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	check := shared(func(ctx context.Context) error {
		asked.Add(1)
		return errors.Join(ctx.Err(), errors.New("down"))
	})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	answers := make([]error, 50)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = check(gone) })
	}
	all.Wait()
	for _, err := range answers {
		require.EqualError(t, err, "down", "who asked first and left spoils nothing")
	}
	require.Equal(t, int64(1), asked.Load())
	require.Eventually(t, func() bool { return check(t.Context()) != nil && asked.Load() == 2 }, 10*sharedFor, sharedFor/20)
	require.GreaterOrEqual(t, time.Since(began), sharedFor)
}
