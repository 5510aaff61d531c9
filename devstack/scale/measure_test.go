package scale

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/scale/simhost"
)

func TestOverBudget(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	down := func(start, up int) simhost.Down {
		d := simhost.Down{Start: begin.Add(time.Duration(start) * time.Second)}
		if up > 0 {
			d.Up = begin.Add(time.Duration(up) * time.Second)
		}
		return d
	}
	for name, c := range map[string]struct {
		downs              []simhost.Down
		budget, over, most int
	}{
		"none":                         {nil, 1, 0, 0},
		"one after another":            {[]simhost.Down{down(0, 2), down(3, 5)}, 1, 0, 1},
		"up in the moment of the next": {[]simhost.Down{down(0, 2), down(2, 5)}, 1, 0, 1},
		"two at once":                  {[]simhost.Down{down(0, 3), down(2, 5)}, 1, 1, 2},
		"two at once are allowed":      {[]simhost.Down{down(0, 3), down(2, 5)}, 2, 0, 2},
		"in any order":                 {[]simhost.Down{down(6, 9), down(2, 8), down(0, 3), down(7, 9)}, 2, 1, 3},
		"never up again":               {[]simhost.Down{down(0, 0), down(9, 10), down(11, 12)}, 1, 2, 2},
	} {
		over, most := overBudget(c.downs, c.budget)
		require.Equal(t, [2]int{c.over, c.most}, [2]int{over, most}, name)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 1, "7": 7, "10%": 25, "0%": 1} {
		got, err := budget(text, 255)
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
	_, err := budget("many", 255)
	require.ErrorContains(t, err, "max-unavailable")
}

func TestPeakMemory(t *testing.T) {
	t.Parallel()
	mib, err := peakMemory(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, mib)
	_, err = peakMemory(1 << 30)
	require.Error(t, err)
}
