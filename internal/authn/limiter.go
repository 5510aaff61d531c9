package authn

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// What the limiter allows.
const (
	maxFailures   = 10          // refused credentials in failureWindow, of one address and of one claim
	failureWindow = time.Minute // also the longest a caller has to wait
	knownFor      = time.Hour   // a claim that was proven from an address is known there for so long
	maxTallies    = 8192        // addresses, claims and pairs of them that are kept; the least recent go first
)

// Throttled says that a caller was refused too often and has to wait. It is an
// ErrDenied too.
type Throttled struct {
	RetryAfter time.Duration // more than zero
}

func (t *Throttled) Error() string {
	return fmt.Sprintf("too many refused requests, try again in %s", t.RetryAfter.Round(time.Second))
}

// Unwrap gives ErrDenied.
func (t *Throttled) Unwrap() error { return ErrDenied }

// limiter slows down guessing without locking others out. It counts refused
// credentials of an address, and of a claim: whom they claim to be. After
// maxFailures in failureWindow
//
//   - an address has to wait, but not with a claim that was proven from there
//     lately: others behind the same address go on working;
//   - a claim has to wait, but only at addresses that failed with it: nobody can
//     lock out somebody who is elsewhere, and each further address costs its owner
//     one try.
//
// Tries at work count as if they had failed, since they may; those that would be
// too many wait for them to end. So neither does a burst of good requests meet a
// refusal, nor do guesses in parallel get more than guesses in a row.
type limiter struct {
	now func() time.Time

	mu        sync.Mutex
	addresses *simplelru.LRU[string, *tally]
	claims    *simplelru.LRU[claim, *tally]
	pairs     *simplelru.LRU[pairKey, *pair]
}

// claim stands for whom a request claims to come from.
type claim [sha256.Size]byte

type pairKey struct {
	address string
	claim   claim
}

// tally counts for one address or one claim.
type tally struct {
	failures [maxFailures]time.Time // a ring
	next     int                    // the oldest of them
	trying   int                    // tries at work
	wake     chan struct{}          // holds one value when a waiting try should look again
}

// pair is what is known of one claim at one address.
type pair struct {
	failed    time.Time // the last time
	succeeded time.Time // the last time
	trying    int
}

// attempt is a try at work.
type attempt struct {
	limiter        *limiter
	key            pairKey
	address, claim *tally
	pair           *pair
}

// outcome is what became of an attempt.
type outcome int

const (
	undecided   outcome = iota // nothing was found out about the caller
	succeeded                  // the claim is proven
	failed                     // the credentials were refused
	claimFailed                // they were refused, but the address is not to blame
)

func newLimiter() *limiter {
	return &limiter{
		now:       time.Now,
		addresses: newLRU[string, *tally](maxTallies),
		claims:    newLRU[claim, *tally](maxTallies),
		pairs:     newLRU[pairKey, *pair](maxTallies),
	}
}

func newLRU[K comparable, V any](size int) *simplelru.LRU[K, V] {
	cache, err := simplelru.NewLRU[K, V](size, nil)
	if err != nil {
		panic(err) // only a size that is not positive
	}
	return cache
}

// begin lets a try begin, perhaps after others have ended. The error is
// *Throttled or that of ctx. Who gets an attempt must end it.
func (l *limiter) begin(ctx context.Context, address string, c claim) (*attempt, error) {
	var woken *tally
	for {
		a, wait, full := l.admit(address, c)
		if woken != nil && woken != full {
			woken.signal() // there may be room for one more
		}
		switch {
		case wait > 0:
			return nil, &Throttled{RetryAfter: wait}
		case full == nil:
			return a, nil
		}
		select {
		case <-full.wake:
			woken = full
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// admit gives an attempt that has begun, or how long its caller has to wait, or
// whose attempts must end first.
func (l *limiter) admit(address string, c claim) (a *attempt, wait time.Duration, full *tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	key := pairKey{address, c}
	a = &attempt{
		limiter: l,
		key:     key,
		address: of(l.addresses, address, newTally),
		claim:   of(l.claims, c, newTally),
		pair:    of(l.pairs, key, func() *pair { return &pair{} }),
	}
	if now.Sub(a.pair.succeeded) >= knownFor {
		if wait := a.address.throttled(now); wait > 0 {
			return nil, wait, nil
		}
		if a.address.full(now) {
			return nil, 0, a.address
		}
	}
	failedHere := now.Sub(a.pair.failed) < failureWindow
	if wait := a.claim.throttled(now); wait > 0 && failedHere {
		return nil, min(wait, a.pair.failed.Add(failureWindow).Sub(now)), nil
	}
	if (failedHere || a.pair.trying > 0) && a.claim.full(now) {
		return nil, 0, a.claim
	}
	// Kept from here on only, so that nobody who is refused or waits can push out what
	// is known of others.
	l.addresses.Add(address, a.address)
	l.claims.Add(c, a.claim)
	l.pairs.Add(key, a.pair)
	a.address.trying++
	a.claim.trying++
	a.pair.trying++
	return a, 0, nil
}

// end notes what became of the attempt.
func (a *attempt) end(o outcome) {
	l := a.limiter
	l.mu.Lock()
	now := l.now()
	a.address.trying--
	a.claim.trying--
	a.pair.trying--
	switch o {
	case succeeded:
		a.pair.succeeded = now
	case failed:
		a.address.fail(now)
		fallthrough
	case claimFailed:
		a.claim.fail(now)
		a.pair.failed = now
	case undecided: // nor can who shows what nobody reads
		forget(l.addresses, a.key.address, a.address)
		forget(l.claims, a.key.claim, a.claim)
		forget(l.pairs, a.key, a.pair)
	}
	l.mu.Unlock()
	a.address.signal()
	a.claim.signal()
}

// of gives the value of a key, a new one when none is kept.
func of[K comparable, V any](cache *simplelru.LRU[K, V], key K, make func() V) V {
	if v, ok := cache.Get(key); ok {
		return v
	}
	return make()
}

// forget drops the value of a key when it says nothing.
func forget[K comparable, V interface {
	comparable
	empty() bool
}](cache *simplelru.LRU[K, V], key K, value V) {
	if kept, ok := cache.Peek(key); ok && kept == value && value.empty() {
		cache.Remove(key)
	}
}

func (p *pair) empty() bool { return p.trying == 0 && p.failed.IsZero() && p.succeeded.IsZero() }

func (t *tally) empty() bool { return t.trying == 0 && t.failures == [maxFailures]time.Time{} }

func newTally() *tally { return &tally{wake: make(chan struct{}, 1)} }

func (t *tally) fail(now time.Time) {
	t.failures[t.next] = now
	t.next = (t.next + 1) % maxFailures
}

// throttled gives how long it takes until another failure is allowed, 0 when it
// is now.
func (t *tally) throttled(now time.Time) time.Duration {
	return max(0, t.failures[t.next].Add(failureWindow).Sub(now))
}

// full says whether there would be too many failures if all attempts failed.
func (t *tally) full(now time.Time) bool {
	n := t.trying
	for _, at := range t.failures {
		if now.Sub(at) < failureWindow {
			n++
		}
	}
	return n >= maxFailures
}

// signal wakes one waiting try. It looks again, and wakes the next one when it
// does not wait for the same tally any more.
func (t *tally) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}
