package authn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// guarded is a limiter with a clock that stands.
type guarded struct {
	*limiter
	time time.Time
}

func newGuarded() *guarded {
	g := &guarded{limiter: newLimiter(), time: time.Now()}
	g.now = func() time.Time { return g.time }
	return g
}

// try makes one try and gives how long its caller has to wait instead.
func (g *guarded) try(t require.TestingT, address, user string, o outcome) time.Duration {
	a, err := g.begin(context.Background(), address, claimed("user", user))
	if throttled := (*Throttled)(nil); errors.As(err, &throttled) {
		require.Positive(t, throttled.RetryAfter)
		return throttled.RetryAfter
	}
	require.NoError(t, err)
	a.end(o)
	return 0
}

func TestLimiterOfAnAddress(t *testing.T) {
	t.Parallel()
	g := newGuarded()
	require.Zero(t, g.try(t, "here", "alice", succeeded))
	for n := range maxFailures {
		require.Zero(t, g.try(t, "here", fmt.Sprint("user", n), failed))
		g.time = g.time.Add(time.Second)
	}
	require.Equal(t, failureWindow-maxFailures*time.Second, g.try(t, "here", "new", failed), "until the first failure is a window ago")
	require.Zero(t, g.try(t, "here", "alice", succeeded), "who was known here is let through")
	require.Zero(t, g.try(t, "there", "new", failed), "another address has done nothing")
	g.time = g.time.Add(failureWindow - maxFailures*time.Second)
	require.Zero(t, g.try(t, "here", "new", failed), "the first failure is forgotten")
	require.Equal(t, time.Second, g.try(t, "here", "new", failed), "the second is not")

	g.time = g.time.Add(knownFor)
	for n := range maxFailures {
		require.Zero(t, g.try(t, "here", fmt.Sprint("user", n), failed))
	}
	require.NotZero(t, g.try(t, "here", "alice", succeeded), "nobody is known for ever")
}

func TestLimiterOfAClaim(t *testing.T) {
	t.Parallel()
	g := newGuarded()
	for n := range maxFailures {
		require.Zero(t, g.try(t, fmt.Sprint("bot", n), "alice", failed))
	}
	require.Equal(t, failureWindow, g.try(t, "bot0", "alice", failed), "who failed has to wait")
	require.Zero(t, g.try(t, "bot0", "bob", failed), "but only with the claim")
	require.Zero(t, g.try(t, "home", "alice", succeeded), "nobody is locked out elsewhere")
	require.Zero(t, g.try(t, "home", "alice", failed), "a fresh address has one try")
	require.NotZero(t, g.try(t, "home", "alice", succeeded), "and then has to wait like the others")
	g.time = g.time.Add(failureWindow)
	require.Zero(t, g.try(t, "home", "alice", succeeded))
}

func TestLimiterBlamesAnAddressOnlyForWhatItDid(t *testing.T) {
	t.Parallel()
	g := newGuarded()
	for n := range 5 * maxFailures {
		require.Zero(t, g.try(t, "here", fmt.Sprint("user", n), undecided))
		require.Zero(t, g.try(t, "here", fmt.Sprint("user", n), claimFailed))
	}
	for range maxFailures - 1 {
		require.Zero(t, g.try(t, "here", "user1", claimFailed))
	}
	require.NotZero(t, g.try(t, "here", "user1", claimFailed), "guessing goes no faster")
	require.Zero(t, g.try(t, "here", "alice", failed), "others do not suffer")
}

// Tries in parallel get no more guesses than tries in a row, and a burst of good ones
// gets no refusal.
func TestLimiterInParallel(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		user   func(n int) string
		known  bool // at the address before
		out    outcome
		passes int64
	}{
		"one user, wrong":        {func(int) string { return "alice" }, false, failed, maxFailures},
		"one known user, wrong":  {func(int) string { return "alice" }, true, failed, maxFailures},
		"many users, wrong":      {func(n int) string { return fmt.Sprint(n) }, false, failed, maxFailures},
		"one user, right":        {func(int) string { return "alice" }, false, succeeded, 300},
		"many users, right":      {func(n int) string { return fmt.Sprint(n) }, false, succeeded, 300},
		"many users, undecided":  {func(n int) string { return fmt.Sprint(n) }, false, undecided, 300},
		"one known user, right":  {func(int) string { return "alice" }, true, succeeded, 300},
		"broken, many and wrong": {func(int) string { return "alice" }, false, claimFailed, maxFailures},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded()
			if test.known {
				g.try(t, "here", "alice", succeeded)
			}
			var passed, most, now atomic.Int64
			var all sync.WaitGroup
			for n := range 300 {
				all.Go(func() {
					a, err := g.begin(t.Context(), "here", claimed("user", test.user(n)))
					if err != nil {
						return
					}
					passed.Add(1)
					at := now.Add(1)
					for seen := most.Load(); at > seen && !most.CompareAndSwap(seen, at); seen = most.Load() {
					}
					runtime.Gosched()
					now.Add(-1)
					a.end(test.out)
				})
			}
			all.Wait()
			require.Equal(t, test.passes, passed.Load())
			require.LessOrEqual(t, most.Load(), int64(maxFailures))
		})
	}
}

func TestLimiterWaitsNoLongerThanTheRequest(t *testing.T) {
	t.Parallel()
	g := newGuarded()
	for range maxFailures {
		_, err := g.begin(t.Context(), "here", claimed("user", "alice"))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.begin(ctx, "here", claimed("user", "alice"))
	require.ErrorIs(t, err, context.Canceled)
}

func TestLimiterForgetsTheLeastRecent(t *testing.T) {
	t.Parallel()
	g := newGuarded()
	for n := range 2 * maxTallies {
		g.try(t, fmt.Sprint(n), fmt.Sprint(n), failed)
	}
	require.Equal(t, []int{maxTallies, maxTallies, maxTallies}, []int{g.addresses.Len(), g.claims.Len(), g.pairs.Len()})
}

// Nobody who is refused, or shows what nobody reads, makes it forget anybody.
func TestLimiterForgetsNobodyForStrangers(t *testing.T) {
	t.Parallel()
	for name, strange := range map[string]outcome{"throttled": failed, "undecided": undecided} {
		g := newGuarded()
		require.Zero(t, g.try(t, "here", "alice", succeeded), name)
		require.Zero(t, g.try(t, "there", "bob", failed), name)
		for n := range maxTallies + maxFailures {
			g.try(t, "here", fmt.Sprint("user", n), strange)
		}
		for n := range maxFailures {
			g.try(t, "here", fmt.Sprint("other", n), failed)
		}
		require.NotZero(t, g.try(t, "here", "new", failed), name)
		require.Zero(t, g.try(t, "here", "alice", succeeded), "%s: who was known here is let through", name)
		require.LessOrEqual(t, g.claims.Len(), 2+maxFailures, name)
	}
}

// Whatever strangers do, somebody at an address where nobody fails gets in, and no
// address gets more than its failures in a window.
func TestLimiterProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := newGuarded()
		type failure struct {
			address, user string
			at            time.Time
		}
		var failures []failure
		for range rapid.IntRange(1, 200).Draw(t, "tries") {
			g.time = g.time.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "pause")) * time.Millisecond)
			address := rapid.SampledFrom([]string{"bot1", "bot2", "bot3"}).Draw(t, "address")
			user := rapid.SampledFrom([]string{"alice", "bob", "carol", "dave"}).Draw(t, "user")
			if g.try(t, address, user, failed) == 0 {
				failures = append(failures, failure{address, user, g.time})
			}
			byAddress, byPair := map[string]int{}, map[failure]int{}
			for _, f := range failures {
				if g.time.Sub(f.at) < failureWindow {
					byAddress[f.address]++
					byPair[failure{address: f.address, user: f.user}]++
				}
			}
			for _, n := range byAddress {
				require.LessOrEqual(t, n, maxFailures)
			}
			for _, n := range byPair {
				require.LessOrEqual(t, n, maxFailures)
			}
			require.Zero(t, g.try(t, "home", user, succeeded), "a stranger locked out %s", user)
		}
	})
}

// The chain on top of the limiter.
func TestChainSlowsDownGuessing(t *testing.T) {
	t.Parallel()
	b := setup(t, BasicOptions{Users: map[string]User{"alice": {Hash: hashOf(t, "pw", "$2b$")}, "bob": {Hash: hashOf(t, "pw", "$2b$")}}})
	now := time.Now()
	b.basic.now = func() time.Time { return now }
	c := NewChain(slog.New(slog.DiscardHandler), b.basic)
	c.limiter.now = b.basic.now
	from := func(address, credentials string) error {
		t.Helper()
		_, err := c.Authenticate(WithAddress(t.Context(), address), withBasic(credentials)(t))
		return err
	}
	throttled := func(err error) {
		t.Helper()
		require.ErrorAs(t, err, new(*Throttled))
		require.ErrorIs(t, err, ErrDenied)
	}
	require.NoError(t, from("192.0.2.1", "alice:pw"))
	for range maxFailures {
		require.Equal(t, ErrDenied, from("192.0.2.1", "bob:x"))
	}
	runs := b.runs.Load()
	throttled(from("192.0.2.1", "bob:x"))
	throttled(from("192.0.2.1", "bob:pw"))
	throttled(from("192.0.2.1", "carol:x"))
	require.Equal(t, runs, b.runs.Load(), "what is not tried costs nothing")
	for range 100 {
		_, err := c.Authenticate(WithAddress(t.Context(), "192.0.2.1"), get(t))
		require.Equal(t, ErrDenied, err, "who shows nothing guesses nothing")
		require.NoError(t, from("192.0.2.1", "alice:pw"), "who was verified a moment ago goes on")
	}
	require.NoError(t, from("192.0.2.2", "bob:pw"), "bob is not locked out elsewhere")
	now = now.Add(failureWindow)
	require.NoError(t, from("192.0.2.1", "bob:pw"))
	require.Equal(t, runs+2, b.runs.Load())

	for n := range maxFailures { // a network of 64 bits is one address
		require.Equal(t, ErrDenied, from(fmt.Sprintf("2001:db8::%x", n), fmt.Sprintf("user%d:x", n)))
	}
	throttled(from("2001:db8::ffff", "new:x"))
	require.Equal(t, ErrDenied, from("2001:db8:0:1::1", "new:x"))
}

// A request may show two things. Being let in for the one is no cover for guessing at
// the other.
func TestChainCountsGuessesOfThoseItLetsIn(t *testing.T) {
	t.Parallel()
	b := setup(t, BasicOptions{Users: map[string]User{"alice": {Hash: hashOf(t, "pw", "$2b$")}}})
	ca := newAuthority(t)
	mallory := ca.shake(t, ca.issue(t, "mallory"))
	cert := build(t, "httpauthclientcert", nil, nil)
	tokens := newOutside("tokens", certain{}, grants{role: "viewer"}, time.Minute)
	for name, show := range map[string]func(*http.Request){
		"a certificate":  func(r *http.Request) { r.TLS = mallory.TLS },
		"another header": func(r *http.Request) { r.Header.Set("X-Auth-Token", "good") },
	} {
		t.Run(name, func(t *testing.T) {
			c := NewChain(slog.New(slog.DiscardHandler), b.basic, cert, tokens)
			guess := func(credentials string) Principal {
				r := withBasic(credentials)(t)
				show(r)
				who, err := c.Authenticate(t.Context(), r)
				require.NoError(t, err, "what it shows beside the guess is good")
				return who
			}
			runs := b.runs.Load()
			for range 3 * maxFailures {
				require.Equal(t, "mallory", guess("alice:x").Name)
			}
			require.Equal(t, int64(maxFailures), b.runs.Load()-runs, "the rest of the guesses was not tried")
			require.Equal(t, "mallory", guess("alice:pw").Name, "the right guess comes too late")
			r := withBasic("bob:x")(t)
			_, err := c.Authenticate(t.Context(), r)
			require.Equal(t, ErrDenied, err, "others at the address do not suffer")
		})
	}
}

// What nobody reads in one header is no cover for guessing in the other.
func TestChainCountsGuessesInEitherHeader(t *testing.T) {
	t.Parallel()
	b := setup(t, BasicOptions{Users: map[string]User{"alice": {Hash: hashOf(t, "pw", "$2b$")}}})
	tries := 0
	c := NewChain(slog.New(slog.DiscardHandler), b.basic, newOutside("tokens", counted{&tries}, grants{role: "viewer"}, time.Minute))
	guess := func(authorization, token string) error {
		r := get(t)
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Auth-Token", token)
		_, err := c.Authenticate(t.Context(), r)
		return err
	}
	for n := range 5 * maxFailures {
		require.ErrorIs(t, guess("nothing", fmt.Sprint(n)), ErrDenied)
		require.ErrorIs(t, guess(fmt.Sprint("nothing", n), fmt.Sprint(n)), ErrDenied)
	}
	require.Equal(t, maxFailures, tries)
	require.ErrorAs(t, guess("nothing", "good"), new(*Throttled))
}

// counted is certain that counts what it is asked.
type counted struct{ tries *int }

func (counted) reads() source                       { return authToken }
func (counted) credential(r *http.Request) []string { return certain{}.credential(r) }
func (c counted) verify(ctx context.Context, credential []string) (identity, error) {
	*c.tries++
	return certain{}.verify(ctx, credential)
}

// certain is a provider that knows one X-Auth-Token.
type certain struct{}

func (certain) reads() source { return authToken }

func (certain) credential(r *http.Request) []string {
	return r.Header.Values("X-Auth-Token")
}

func (certain) verify(_ context.Context, credential []string) (identity, error) {
	if credential[0] != "good" {
		return identity{}, ErrDenied
	}
	return identity{name: "mallory"}, nil
}

func BenchmarkChainOfVerifiedPassword(b *testing.B) {
	basic := NewBasic(BasicOptions{Users: map[string]User{"alice": {Hash: hashOf(b, "pw", "$2b$")}}}, slog.New(slog.DiscardHandler))
	c := NewChain(slog.New(slog.DiscardHandler), basic)
	r, err := http.NewRequest(http.MethodGet, "/", nil)
	require.NoError(b, err)
	r.SetBasicAuth("alice", "pw")
	for b.Loop() {
		if _, err := c.Authenticate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
