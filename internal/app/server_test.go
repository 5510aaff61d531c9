package app

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSharedCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testSharedCheck) // its second passes only where the test says so
}

func testSharedCheck(t *testing.T) {
	var asked atomic.Int64
	check := shared(func(ctx context.Context) error {
		asked.Add(1)
		return errors.Join(ctx.Err(), errors.New("down"))
	})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	answers := make([]error, 50)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = check(gone) })
	}
	all.Wait()
	for _, err := range answers {
		require.EqualError(t, err, "down", "who asked first and left spoils nothing")
	}
	time.Sleep(sharedFor - 1) // by the clock of synctest, which is what is tested
	require.EqualError(t, check(t.Context()), "down")
	require.Equal(t, int64(1), asked.Load())
	time.Sleep(1) // the same
	require.EqualError(t, check(t.Context()), "down")
	require.Equal(t, int64(2), asked.Load())
}
