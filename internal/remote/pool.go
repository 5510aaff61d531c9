package remote

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// Pool shares one connection per target between all who ask for it at once or
// shortly after each other.
type Pool struct {
	dialer *Dialer
	idle   time.Duration

	mu      sync.Mutex
	entries map[poolKey]*entry
	closed  bool
}

// login is all that decides which host is logged in to, and as whom. With another
// pinned host key it is another one, so no connection outlives what was decided
// about its host's key.
type login struct {
	address string
	port    int
	user    string
	hostKey string
	key     [sha256.Size]byte
}

func (t Target) login() login {
	return login{t.Address, t.port(), t.user(), t.HostKey, sha256.Sum256(t.Key.Reveal())}
}

// poolKey is all that a connection depends on.
type poolKey struct {
	host login
	via  login // zero: none
}

// entry is guarded by its pool's mu, but for dialing.
type entry struct {
	dialing chan struct{} // holds one token: who has it may dial
	conn    *Conn
	users   int // who hold the entry, dialing or working
	expiry  *time.Timer
}

// NewPool makes a pool whose connections are closed once unused for so long.
func NewPool(d *Dialer, idle time.Duration) *Pool {
	return &Pool{dialer: d, idle: idle, entries: map[poolKey]*entry{}}
}

// Get gives a connection, dialing if there is none or the one there is broken.
// The caller calls release once when done and must not close the connection.
func (p *Pool) Get(ctx context.Context, t Target) (c *Conn, release func(), err error) {
	key := poolKey{host: t.login()}
	if t.Via != nil {
		key.via = t.Via.login()
	}
	e, err := p.enter(key)
	if err != nil {
		return nil, nil, err
	}
	release = sync.OnceFunc(func() { p.leave(key, e) })
	select {
	case <-e.dialing:
		defer func() { e.dialing <- struct{}{} }()
	case <-ctx.Done():
		release()
		return nil, nil, context.Cause(ctx)
	}
	if c := p.current(e); c != nil {
		return c, release, nil
	}
	c, err = p.dialer.Dial(ctx, t)
	if err == nil {
		err = p.set(e, c)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return c, release, nil
}

// Close closes all connections and refuses new ones.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	var conns []*Conn
	for key, e := range p.entries {
		if e.expiry != nil {
			e.expiry.Stop()
		}
		if e.conn != nil {
			conns = append(conns, e.conn)
		}
		delete(p.entries, key)
	}
	p.mu.Unlock()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

var errPoolClosed = errors.New("the connection pool is closed")

func (p *Pool) enter(key poolKey) (*entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	e := p.entries[key]
	if e == nil {
		e = &entry{dialing: make(chan struct{}, 1)}
		e.dialing <- struct{}{}
		p.entries[key] = e
	}
	e.users++
	if e.expiry != nil {
		e.expiry.Stop()
		e.expiry = nil
	}
	return e, nil
}

func (p *Pool) leave(key poolKey, e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.users--
	if e.users > 0 || p.closed {
		return
	}
	e.expiry = time.AfterFunc(p.idle, func() { p.expire(key, e) })
}

func (p *Pool) expire(key poolKey, e *entry) {
	p.mu.Lock()
	gone := e.users == 0 && p.entries[key] == e
	if gone {
		delete(p.entries, key)
	}
	p.mu.Unlock()
	if gone && e.conn != nil {
		_ = e.conn.Close()
	}
}

// current is the entry's connection if it still lives.
func (p *Pool) current(e *entry) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.conn == nil {
		return nil
	}
	select {
	case <-e.conn.closed:
		return nil
	default:
		return e.conn
	}
}

func (p *Pool) set(e *entry, c *Conn) error {
	p.mu.Lock()
	old, closed := e.conn, p.closed
	if !closed {
		e.conn = c
	}
	p.mu.Unlock()
	if closed {
		return errors.Join(errPoolClosed, c.Close())
	}
	if old != nil {
		_ = old.Close() // broken already; this waits for what it still owned
	}
	return nil
}
