package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// bastionChannels is how many hosts share one connection to a bastion. For each,
// the sshd process that serves it holds a file descriptor, of the 1024 that it
// may have as it comes.
const bastionChannels = 200

// relayBuffer is what is on its way from or to one host through a bastion, in
// bytes. There are two for each host.
const relayBuffer = 4 << 10

var (
	errDialerClosed = errors.New("the dialer is closed")
	errBroke        = errors.New("the connection to it broke")
)

// bastions are the connections to bastions that a Dialer shares between hosts:
// one for as many hosts as it may serve, another one when it is full.
type bastions struct {
	dial  func(context.Context, Target) (*Conn, error)
	idle  time.Duration // a connection without hosts is closed after so long
	most  int           // hosts on one connection
	limit time.Duration // for a bastion to connect to a host

	ctx  context.Context // of everything that dials
	stop context.CancelFunc

	mu     sync.Mutex // guards all below, and in trunks
	trunks map[login][]*trunk
	closed bool
	wg     sync.WaitGroup
}

// trunk is one connection to a bastion, or one that is being made.
type trunk struct {
	bastion Target
	ready   chan struct{} // closed when conn or err is there to be read
	conn    *Conn
	err     error
	give    context.CancelFunc // gives up dialing
	hosts   int                // that use it or wait for it
	expiry  *time.Timer
}

func newBastions(dial func(context.Context, Target) (*Conn, error), o Options) *bastions {
	b := &bastions{dial: dial, idle: o.BastionIdle, most: bastionChannels, limit: o.DialTimeout, trunks: map[login][]*trunk{}}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// connect makes a connection to an address from a bastion. It calls wait, and what that
// gives, around its wait for the login to the bastion.
func (b *bastions) connect(ctx context.Context, bastion Target, address string, wait func() (goOn func())) (net.Conn, error) {
	c, err := b.try(ctx, bastion, address, wait)
	if errors.Is(err, errBroke) {
		// That says nothing of the host, and it may have broken before: channels end a
		// moment before it is known that their connection has.
		c, err = b.try(ctx, bastion, address, wait)
	}
	return c, err
}

// try is connect by one connection to the bastion. When that breaks, nobody else comes to it.
func (b *bastions) try(ctx context.Context, bastion Target, address string, wait func() (goOn func())) (net.Conn, error) {
	t, err := b.enter(bastion)
	if err != nil {
		return nil, err
	}
	goOn := wait()
	select {
	case <-t.ready:
		goOn()
	case <-ctx.Done():
		b.leave(t)
		return nil, context.Cause(ctx)
	}
	if t.err != nil {
		b.leave(t)
		return nil, t.explain(t.err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.limit, fmt.Errorf("it could not connect to the host within %s", b.limit))
	defer cancel()
	c, err := b.open(ctx, t, address)
	if errors.Is(err, errBroke) {
		b.mu.Lock()
		b.drop(t)
		b.mu.Unlock()
	}
	if err != nil {
		return nil, t.explain(err)
	}
	return b.relay(t, c)
}

// enter finds room on a connection, or begins to make one.
func (b *bastions) enter(bastion Target) (*trunk, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errDialerClosed
	}
	// The first with room, so that the others empty when there is less to do.
	for _, t := range b.trunks[bastion.login()] {
		if t.hosts < b.most && !t.broken() {
			t.hosts++
			if t.expiry != nil {
				t.expiry.Stop()
			}
			return t, nil
		}
	}
	t := &trunk{bastion: bastion, ready: make(chan struct{}), hosts: 1}
	ctx, cancel := context.WithCancel(b.ctx)
	t.give = cancel
	b.trunks[bastion.login()] = append(b.trunks[bastion.login()], t)
	b.wg.Go(func() { b.own(ctx, t) })
	return t, nil
}

// broken says that the connection has ended, but was not dropped yet.
func (t *trunk) broken() bool {
	if t.conn == nil {
		return false
	}
	select {
	case <-t.conn.closed:
		return true
	default:
		return false
	}
}

// own makes the connection and cleans up behind it when it ends.
func (b *bastions) own(ctx context.Context, t *trunk) {
	defer t.give()
	conn, err := b.dial(ctx, t.bastion)
	b.mu.Lock()
	t.conn, t.err = conn, err
	if err != nil {
		b.drop(t)
	}
	b.mu.Unlock()
	close(t.ready)
	if err != nil {
		return
	}
	select {
	case <-conn.closed:
	case <-ctx.Done():
	}
	b.mu.Lock()
	b.drop(t)
	b.mu.Unlock()
	_ = conn.Close()
}

// drop keeps newcomers off a connection.
func (b *bastions) drop(t *trunk) {
	key := t.bastion.login()
	for i, other := range b.trunks[key] {
		if other == t {
			b.trunks[key] = append(b.trunks[key][:i:i], b.trunks[key][i+1:]...)
			break
		}
	}
	if len(b.trunks[key]) == 0 {
		delete(b.trunks, key)
	}
}

// leave gives a host's room back. A connection that nobody waits for any more is
// not made, and one that nobody uses for a while is closed.
func (b *bastions) leave(t *trunk) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.hosts--
	if t.hosts > 0 {
		return
	}
	select {
	case <-t.ready:
		t.expiry = time.AfterFunc(b.idle, func() { b.expire(t) })
	default:
		b.drop(t)
		t.give()
	}
}

func (b *bastions) expire(t *trunk) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.hosts == 0 {
		b.drop(t)
		t.give()
	}
}

// close ends all connections, and with them those to the hosts behind.
func (b *bastions) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.wg.Wait()
}

// open asks the bastion for a connection. Where it takes longer than anybody
// waits, the room is taken until the bastion has answered, as on the bastion. The
// error is errBroke when the connection to the bastion is no good any more.
func (b *bastions) open(ctx context.Context, t *trunk, address string) (net.Conn, error) {
	type opened struct {
		conn net.Conn
		err  error
	}
	got := make(chan opened)
	over := make(chan struct{})
	defer close(over)
	// Not one of wg: the library's Dial waits for ever when the connection breaks
	// at one moment in it, see call.newSession.
	go func() {
		c, err := t.conn.client.Dial("tcp", address)
		select {
		case got <- opened{c, err}:
			if err == nil {
				return
			}
		case <-over:
			if err == nil {
				_ = c.Close()
			}
		}
		b.leave(t)
	}()
	select {
	case o := <-got:
		if o.err != nil && !errors.As(o.err, new(*ssh.OpenChannelError)) {
			return nil, fmt.Errorf("%w: %w", errBroke, o.err) // it has given no answer
		}
		return o.conn, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.conn.closed:
		return nil, errBroke
	}
}

// bastionError is what came between us and a host. It is not unwrapped, since what
// the bastion's login failed with, its kind and its host key say nothing of the host.
type bastionError struct {
	bastion string // address and port
	err     error
	refused bool // the bastion is there, and nobody listens at the host's port
}

func (e *bastionError) Error() string { return fmt.Sprintf("through bastion %s: %v", e.bastion, e.err) }

// Is tells a host that refuses from a bastion that does: the one is known to run
// nothing of ours, the other is soon back. All else is as on the way to the bastion,
// such as what this machine is short of.
func (e *bastionError) Is(target error) bool {
	if target == error(syscall.ECONNREFUSED) {
		return e.refused
	}
	return errors.Is(e.err, target)
}

// explain names the bastion.
func (t *trunk) explain(err error) error {
	e := &bastionError{bastion: t.bastion.hostPort(), err: err}
	var of *Error
	var channel *ssh.OpenChannelError
	switch {
	case errors.As(err, &of):
		e.err = fmt.Errorf("%s: %w", of.Kind, of.Err)
	case errors.As(err, &channel) && channel.Reason == ssh.Prohibited:
		e.err = fmt.Errorf("it does not allow connections to the host (AllowTcpForwarding, PermitOpen): %w", err)
	case errors.As(err, &channel):
		e.err = fmt.Errorf("it cannot connect to the host: %w", err)
		// sshd says why by strerror(3).
		e.refused = channel.Reason == ssh.ConnectionFailed && strings.Contains(channel.Message, "Connection refused")
	}
	return e
}

// relay gives a connection that ends when it is closed. That of the library goes
// on until the bastion confirms, which may be never when the host is dead and has
// bytes to take, and it knows no deadlines.
func (b *bastions) relay(t *trunk, channel net.Conn) (net.Conn, error) {
	ours, theirs := net.Pipe()
	var ended atomic.Int32
	move := func(to, from net.Conn) {
		_, _ = io.CopyBuffer(to, from, make([]byte, relayBuffer))
		_ = channel.Close()
		_ = theirs.Close()
		if ended.Add(1) == 2 {
			b.leave(t)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errDialerClosed // which ended the connection that the channel is of
	}
	b.wg.Go(func() { move(theirs, channel) })
	b.wg.Go(func() { move(channel, theirs) })
	return &relayed{Conn: ours, channel: channel}, nil
}

// relayed is our end of a connection through a bastion.
type relayed struct {
	net.Conn
	channel net.Conn
}

// Close ends both ends, also where one of them takes no more bytes.
func (r *relayed) Close() error {
	_ = r.channel.Close() // it may have ended by itself
	return r.Conn.Close()
}
