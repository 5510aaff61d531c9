package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGovernorIsFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor()
		key := gateKey{to: "10.0.0.0/24"}
		first, err := g.enter(t.Context(), key, 1)
		require.NoError(t, err)
		// Another key has its own bound.
		other, err := g.enter(t.Context(), gateKey{via: "b:22", to: "10.0.0.0/24"}, 1)
		require.NoError(t, err)
		other.leave(wasTaken)
		var order []int
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				turn, err := g.enter(t.Context(), key, 1)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i) // one at a time, by what is tested
				turn.leave(wasTaken)
			})
			synctest.Wait()
		}
		first.leave(wasTaken)
		all.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
		require.Empty(t, g.gates, "what nobody uses is forgotten")
	})
}

func TestGovernorEndsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor()
		holder, err := g.enter(t.Context(), gateKey{}, 1)
		require.NoError(t, err)
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		late := make(chan *turn)
		go func() {
			time.Sleep(500 * time.Millisecond) // behind the one that gives up
			turn, err := g.enter(t.Context(), gateKey{}, 1)
			if err != nil {
				t.Error(err)
			}
			late <- turn
		}()
		_, err = g.enter(ctx, gateKey{}, 1)
		require.ErrorIs(t, err, ErrNoTurn)
		require.ErrorIs(t, err, cause)
		holder.leave(learnedNothing)
		(<-late).leave(learnedNothing)
		require.Empty(t, g.gates)
	})
}

func TestGovernorLearns(t *testing.T) {
	t.Parallel()
	g := newGovernor()
	key := gateKey{to: "b:22"}
	enter := func(n int) (turns []*turn) {
		for range n {
			turn, err := g.enter(t.Context(), key, 8)
			require.NoError(t, err)
			turns = append(turns, turn)
		}
		return turns
	}
	limit := func() float64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.gates[key].limit
	}
	// A crowd that is dropped together is one reason to be half as many.
	crowd := enter(8)
	require.False(t, g.narrowed(key))
	for _, turn := range crowd[1:] {
		turn.leave(wasDropped)
	}
	require.InDelta(t, 4, limit(), 0)
	require.True(t, g.narrowed(key))
	crowd[0].leave(wasDropped)
	require.InDelta(t, 4, limit(), 0)
	// So it goes on, down to one, but not for one that is alone.
	for _, want := range []float64{2, 1} {
		two := enter(2)
		two[0].leave(wasDropped)
		require.InDelta(t, want, limit(), 0)
		two[1].leave(learnedNothing)
	}
	alone := enter(1)
	alone[0].leave(wasDropped)
	require.InDelta(t, 1, limit(), 0)
	// Those that are taken raise it, by one for as many as it lets in.
	before := limit()
	enter(1)[0].leave(wasTaken)
	require.InDelta(t, before+1, limit(), 0)
	for range 100 {
		enter(1)[0].leave(wasTaken)
	}
	require.False(t, g.narrowed(key))
	require.Empty(t, g.gates)
}

// Hosts that always close before their banner do not narrow their subnet for good: in ten
// seconds the others log in as often as without them, nearly. Forty are switched off.
func TestGovernorLearnsOfSomeHostsAlone(t *testing.T) {
	t.Parallel()
	run := func(bad int) (good int, limit float64) {
		synctest.Test(t, func(t *testing.T) {
			g := newGovernor()
			key := gateKey{to: "192.0.2.0/24"}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var all sync.WaitGroup
			var mu sync.Mutex
			begun := time.Now()
			loop := func(target string, hold, pause time.Duration, v verdict) {
				all.Go(func() {
					for ctx.Err() == nil {
						turn, err := g.enter(ctx, key, subnetHandshakes)
						if err != nil {
							return
						}
						turn.target = target
						time.Sleep(hold)
						turn.leave(v)
						if v == wasTaken && time.Since(begun) > 10*time.Second {
							mu.Lock()
							good++
							mu.Unlock()
						}
						time.Sleep(pause)
					}
				})
			}
			for i := range 60 {
				loop(fmt.Sprint("good", i), 20*time.Millisecond, 200*time.Millisecond, wasTaken)
			}
			for i := range bad {
				loop(fmt.Sprint("bad", i), 2*time.Millisecond, 400*time.Millisecond, wasDropped)
			}
			for i := range 40 {
				loop(fmt.Sprint("off", i), turnUnconnected, 10*time.Second-turnUnconnected, learnedNothing)
			}
			time.Sleep(20*time.Second - time.Millisecond)
			g.mu.Lock()
			limit = subnetHandshakes
			if e := g.gates[key]; e != nil {
				limit = e.limit
			}
			g.mu.Unlock()
			all.Wait()
		})
		return good, limit
	}
	want, _ := run(0)
	for _, bad := range []int{1, 3} {
		good, limit := run(bad)
		t.Logf("%d bad: bound %.1f, %d logins of %d", bad, limit, good, want)
		require.InDelta(t, subnetHandshakes, limit, 0, "%d bad", bad)
		require.Greater(t, good, want*9/10, "%d bad", bad)
	}
}

// A target that is dropped again and again counts again once it was taken, or was not
// heard of for long.
func TestGovernorForgivesTargets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor()
		key := gateKey{to: "192.0.2.0/24"}
		other, err := g.enter(t.Context(), key, 1<<20) // so that nobody is alone
		require.NoError(t, err)
		end := func(target string, v verdict) {
			turn, err := g.enter(t.Context(), key, 1<<20)
			require.NoError(t, err)
			turn.target = target
			turn.leave(v)
		}
		cuts := func() int { return g.gates[key].cuts }
		end("a", wasDropped)
		end("b", wasTaken)
		for range 5 {
			end("a", wasDropped)
		}
		require.Equal(t, ownDrops, cuts())
		end("a", wasTaken)
		end("a", wasDropped)
		require.Equal(t, ownDrops+1, cuts())
		for range 5 {
			end("b", wasTaken)
			end("a", wasDropped)
		}
		require.Equal(t, ownDrops+3, cuts())
		time.Sleep(ownDropsTime + time.Second)
		end("a", wasDropped)
		require.Equal(t, ownDrops+4, cuts())
		// While nobody is taken it is no single target's fault.
		for range 5 {
			end("c", wasDropped)
		}
		require.Equal(t, ownDrops+9, cuts())
		g.gates[key].limit = g.gates[key].most
		other.leave(learnedNothing)
		require.Contains(t, g.gates, key, "it remembers a and c")
		time.Sleep(ownDropsTime + time.Second)
		end("b", wasTaken) // who comes next, to whatever gate
		require.Empty(t, g.gates)
	})
}

func TestGovernorHoldsItsBound(t *testing.T) {
	t.Parallel()
	g := newGovernor()
	var mu sync.Mutex
	var inside, most int
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
			defer cancel()
			turn, err := g.enter(ctx, gateKey{}, 3)
			if err != nil {
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			inside--
			mu.Unlock()
			turn.leave(wasTaken)
		})
	}
	all.Wait()
	require.LessOrEqual(t, most, 3)
	require.Empty(t, g.gates)
}

func TestSubnet(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"10.1.2.3": "10.1.2.0/24", "::ffff:10.1.2.3": "10.1.2.0/24", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "web1.example.com": "",
	} {
		got, ok := subnetOf(address)
		require.Equal(t, want, got)
		require.Equal(t, want != "", ok)
	}
}
