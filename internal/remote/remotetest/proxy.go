package remotetest

import (
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// Fault is what a Proxy does to the connections made from now on. Bytes are
// counted from the server to the client.
type Fault struct {
	Delay      time.Duration // one way, both ways
	CutAfter   int64         // close in order after so many bytes; 0: never
	ResetAfter int64         // as CutAfter, but with a TCP reset
	StallAfter int64         // after so many bytes nothing moves any more, either way
}

// Proxy is a TCP proxy in front of a host that breaks connections on demand.
type Proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	fault Fault
	conns map[net.Conn]struct{}
	stop  chan struct{}
	wg    sync.WaitGroup
}

// NewProxy listens on a loopback address of its own. The caller closes it.
func NewProxy(h *Host) (*Proxy, error) {
	ip, port, err := freeAddress()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		listener: l, target: net.JoinHostPort(h.Address(), strconv.Itoa(h.Port())),
		conns: map[net.Conn]struct{}{}, stop: make(chan struct{}),
	}
	p.wg.Go(p.accept)
	return p, nil
}

// Address is where the proxy listens.
func (p *Proxy) Address() string { return p.listener.Addr().(*net.TCPAddr).IP.String() }

// Port is where the proxy listens.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Set changes what happens to connections made from now on.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Cut resets all connections that are open now.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	close(p.stop)
	p.mu.Unlock()
	p.Cut()
	p.wg.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			reset(client)
			continue
		}
		p.mu.Lock()
		fault := p.fault
		select {
		case <-p.stop: // Close has passed by and would not see these
			reset(client)
			reset(server)
		default:
		}
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() { p.join(client, server, fault) })
	}
}

// join moves bytes both ways until either side ends or the fault strikes.
func (p *Proxy) join(client, server net.Conn, f Fault) {
	stalled := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(server, client, Fault{Delay: f.Delay}, stalled, func() {}) })
	wg.Go(func() { p.copy(client, server, f, stalled, func() { close(stalled) }) })
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

func (p *Proxy) copy(dst, src net.Conn, f Fault, stalled chan struct{}, stall func()) {
	defer dst.Close()
	defer src.Close()
	limit := max(f.CutAfter, f.ResetAfter, f.StallAfter)
	buf := make([]byte, 32<<10)
	var total int64
	for {
		n, err := src.Read(buf)
		if f.Delay > 0 && n > 0 {
			time.Sleep(f.Delay)
		}
		if limit > 0 && total+int64(n) >= limit {
			n = int(limit - total)
		}
		total += int64(n)
		select {
		case <-stalled:
			_, _ = io.Copy(io.Discard, src) // takes what comes, passes nothing on
			return
		default:
		}
		if _, werr := dst.Write(buf[:n]); werr != nil || err != nil {
			return
		}
		if limit > 0 && total >= limit {
			switch {
			case f.StallAfter > 0:
				stall()
				_, _ = io.Copy(io.Discard, src)
			case f.ResetAfter > 0:
				reset(dst)
				reset(src)
			}
			return
		}
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
