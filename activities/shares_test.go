package activities

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// takes gives how much a page gets without waiting.
func takes(p *share) (n int) {
	for {
		if _, ok := p.try(); !ok {
			return n
		}
		n++
	}
}

func TestPagesShareTheChecks(t *testing.T) {
	t.Parallel()
	all := newShares(8)
	silent := all.join()
	require.Equal(t, 8, takes(silent), "who is alone has all")

	other := all.join()
	require.Zero(t, takes(other))
	for range 4 {
		silent.give()
	}
	require.Zero(t, takes(silent), "what it has more than its share it does not get again")
	require.Equal(t, 4, takes(other))

	waited := make(chan error, 1)
	go func() { waited <- other.take(t.Context()) }()
	silent.leave() // its checks end later
	silent.give()
	select {
	case err := <-waited:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("nobody told that there is room")
	}

	for silent.taken > 0 {
		silent.give()
	}
	require.Equal(t, 3, takes(other))
	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, other.take(ended), context.Canceled)
}

func TestMorePagesThanChecks(t *testing.T) {
	t.Parallel()
	all := newShares(2)
	var mu sync.Mutex
	var now, most int
	var pages sync.WaitGroup
	for range 5 {
		page := all.join()
		pages.Go(func() {
			defer page.leave()
			for range 20 {
				if err := page.take(t.Context()); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				mu.Lock()
				now--
				mu.Unlock()
				page.give()
			}
		})
	}
	pages.Wait()
	require.LessOrEqual(t, most, 2)
	require.Zero(t, all.taken)
	require.Zero(t, all.pages)
}
