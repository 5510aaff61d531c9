package nspawntest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Expose makes a loopback address of this machine ("127.0.0.1:5432") answer at
// the same address inside the machines' network, for a program started with
// [Machines.Command] that needs the test's servers. It ends with ms.
func (ms *Machines) Expose(address string) error {
	var l net.Listener
	err := ms.net.inside(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		return fmt.Errorf("expose %s to the machines' network: %w", address, err)
	}
	var d net.Dialer
	ms.relays.serve(l, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) })
	return nil
}

// Forward gives a loopback address of this machine that leads to m's sshd, for
// code that cannot be given [Machines.Dial]. While m is unreachable, a connection
// is accepted and then reset, where a real one would not come about. It ends with
// ms.
func (ms *Machines) Forward(m *Machine) (*net.TCPAddr, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("forward to %s: %w", m.name, err)
	}
	ms.relays.serve(l, func(ctx context.Context) (net.Conn, error) {
		return ms.Dial(ctx, "tcp", net.JoinHostPort(m.address, "22"))
	})
	return l.Addr().(*net.TCPAddr), nil
}

// relays owns the listeners and connections of Expose and Forward, and the server
// of each Repository.
type relays struct {
	mu     sync.Mutex
	closed bool
	open   map[io.Closer]bool
	wg     sync.WaitGroup
}

func (r *relays) close() {
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// add closes c at once when the relays are closed already.
func (r *relays) add(c io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = c.Close()
		return
	}
	if r.open == nil {
		r.open = map[io.Closer]bool{}
	}
	r.open[c] = true
}

func (r *relays) end(c io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
	_ = c.Close()
}

func (r *relays) serve(l net.Listener, dial func(context.Context) (net.Conn, error)) {
	r.add(l)
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			r.wg.Go(func() { r.relay(c, dial) })
		}
	})
}

func (r *relays) relay(in net.Conn, dial func(context.Context) (net.Conn, error)) {
	r.add(in)
	defer r.end(in)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := dial(ctx)
	if err != nil {
		reset(in)
		return
	}
	r.add(out)
	defer r.end(out)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			if _, err := io.Copy(way[0], way[1]); err != nil && !errors.Is(err, net.ErrClosed) {
				reset(in)
				reset(out)
				return
			}
			if tcp, ok := way[0].(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		})
	}
	both.Wait()
}

// reset closes c as a broken connection is, not as one that has ended.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
