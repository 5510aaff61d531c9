package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrNoTurn says that the context ended while a login waited for others to end
// theirs: it says nothing about the host.
var ErrNoTurn = errors.New("no turn to log in came in time")

// How many handshakes may be under way at once.
const (
	// subnetHandshakes is for hosts of one subnet: their sshds count each for
	// itself, but firewalls, port forwards and hypervisors between do not.
	subnetHandshakes = 64
	// bastionHandshakes is for one bastion: sshd begins to drop connections at
	// random from the tenth on (MaxStartups 10:30:100), and other processes of
	// ours log in to it as well.
	bastionHandshakes = 3
)

// governor bounds how many handshakes are under way, and learns from those that
// are dropped. It has no goroutines: who ends a handshake lets the next one in.
type governor struct {
	mu     sync.Mutex
	gates  map[gateKey]*gate
	forgot time.Time // when gates that only remember were last looked through
}

// gateKey is what handshakes have in common that share a bound. The zero value is
// all of them.
type gateKey struct {
	via string // address and port of the bastion through which the others go, if any
	to  string // prefix of the subnet, address and port of a bastion, or a host name
}

// gate is one bound. A dropped connection halves it, and as many good ones as it lets
// in at once raise it by one, or by an eighth where that is more.
type gate struct {
	most    float64 // what it begins with
	limit   float64 // 1 to most
	inside  int
	cuts    int              // how often it was halved
	taken   int              // how many handshakes were
	waiting []chan struct{}  // in the order in which they came; closed to let in
	drops   map[string]drops // by target, of those whose last handshake was dropped
}

// drops are those of one target in a row.
type drops struct {
	count int
	taken int // of the gate, at the first of them
	last  time.Time
}

// After ownDrops in a row, while others were taken, a target that is dropped again
// speaks for itself only, until it is taken or was not heard of for ownDropsTime.
const (
	ownDrops     = 3
	ownDropsTime = 10 * time.Minute
)

// turn is the right to one handshake.
type turn struct {
	governor *governor
	key      gateKey
	gate     *gate
	cuts     int    // of the gate, when this turn began
	target   string // address and port; turns of one target have the same
}

func newGovernor() *governor { return &governor{gates: map[gateKey]*gate{}} }

// narrowed says whether handshakes with this key were dropped lately.
func (g *governor) narrowed(key gateKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.gates[key]
	return e != nil && e.limit < e.most
}

// enter waits for a turn, first come, first served. most is the bound while
// nothing else was learned.
func (g *governor) enter(ctx context.Context, key gateKey, most int) (*turn, error) {
	g.mu.Lock()
	g.forget()
	e := g.gates[key]
	if e == nil {
		e = &gate{most: float64(most), limit: float64(most)}
		g.gates[key] = e
	}
	if len(e.waiting) == 0 && e.room() {
		e.inside++
		t := &turn{governor: g, key: key, gate: e, cuts: e.cuts}
		g.mu.Unlock()
		return t, nil
	}
	let := make(chan struct{})
	e.waiting = append(e.waiting, let)
	g.mu.Unlock()
	var cause error
	select {
	case <-let:
	case <-ctx.Done():
		cause = context.Cause(ctx)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if cause == nil {
		return &turn{governor: g, key: key, gate: e, cuts: e.cuts}, nil
	}
	select {
	case <-let: // at the same moment
		e.inside--
	default:
		e.forget(let)
	}
	g.letIn(key, e)
	return nil, fmt.Errorf("%w: %w", ErrNoTurn, cause)
}

// verdict is what the end of a handshake says about how many there may be.
type verdict int

const (
	learnedNothing verdict = iota
	wasTaken               // sshd spoke with us
	wasDropped             // the connection was closed before sshd's banner
)

// leave ends the turn.
func (t *turn) leave(v verdict) {
	g, e := t.governor, t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch v {
	case wasTaken:
		e.taken++
		delete(e.drops, t.target)
		e.limit = min(e.most, e.limit+max(1/e.limit, 1./8))
	case wasDropped:
		// Those that began before the last cut speak of the bound before it, and one
		// that was alone was not dropped for being one of many.
		if !e.dropped(t.target) && e.inside > 1 && t.cuts == e.cuts {
			e.limit = max(1, e.limit/2)
			e.cuts++
		}
	}
	e.inside--
	g.letIn(t.key, e)
}

// dropped notes that a target was, and says whether that is its own fault.
func (e *gate) dropped(target string) (own bool) {
	d, known := e.drops[target]
	if !known || time.Since(d.last) > ownDropsTime {
		d = drops{taken: e.taken}
	}
	own = d.count >= ownDrops && e.taken > d.taken
	d.count++
	d.last = time.Now()
	if e.drops == nil {
		e.drops = map[string]drops{}
	}
	e.drops[target] = d
	return own
}

func (e *gate) room() bool { return e.inside < int(e.limit) }

func (e *gate) forget(let chan struct{}) {
	for i, w := range e.waiting {
		if w == let {
			e.waiting = append(e.waiting[:i], e.waiting[i+1:]...)
			return
		}
	}
}

// letIn gives free turns to those who wait, and drops a gate that nobody uses and
// that has nothing to remember.
func (g *governor) letIn(key gateKey, e *gate) {
	for len(e.waiting) > 0 && e.room() {
		e.inside++
		close(e.waiting[0])
		e.waiting = e.waiting[1:]
	}
	if e.unused() {
		delete(g.gates, key)
	}
}

func (e *gate) unused() bool {
	return e.inside == 0 && len(e.waiting) == 0 && e.limit == e.most && len(e.drops) == 0
}

// forget drops what gates remember of targets that nobody asks for any more. It looks
// once in ownDropsTime.
func (g *governor) forget() {
	if time.Since(g.forgot) < ownDropsTime {
		return
	}
	g.forgot = time.Now()
	for key, e := range g.gates {
		for target, d := range e.drops {
			if time.Since(d.last) > ownDropsTime {
				delete(e.drops, target)
			}
		}
		if e.unused() {
			delete(g.gates, key)
		}
	}
}

// subnetOf is the /24 or /64 of an address; ok is false for a host name.
func subnetOf(address string) (prefix string, ok bool) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return "", false
	}
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 24
	}
	return netip.PrefixFrom(ip, bits).Masked().String(), true
}

// subnetOfConn is that of the other side of a connection, "" when it has none.
func subnetOfConn(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	prefix, _ := subnetOf(host)
	return prefix
}
