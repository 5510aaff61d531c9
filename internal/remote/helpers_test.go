package remote

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"commissaire/internal/leaktest"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patient are the options of those whose waits are not what is tested: on a busy machine
// everything stands still for seconds.
var patient = Options{
	DialTimeout: time.Minute, HandshakeTimeout: time.Minute, RequestTimeout: time.Minute, KeepAliveInterval: 20 * time.Second,
}

// bundle is one real host and a way to it.
type bundle struct {
	fleet  *remotetest.Fleet
	host   *remotetest.Host
	dialer *Dialer
	target Target
}

func setup(t testing.TB) *bundle {
	t.Helper()
	f := remotetest.New(t, 1)
	b := &bundle{fleet: f, host: f.Hosts()[0], dialer: NewDialer(patient)}
	b.target = targetOf(f, b.host)
	return b
}

func targetOf(f *remotetest.Fleet, h *remotetest.Host) Target {
	return Target{
		Address: h.Address(), Port: h.Port(), User: h.User(), HostKey: h.HostKey(),
		Key: secret.NewText([]byte(f.ClientKey())),
	}
}

// via is the same host behind a proxy.
func (b *bundle) via(p *remotetest.Proxy) Target {
	t := b.target
	t.Address, t.Port = p.Address(), p.Port()
	return t
}

func (b *bundle) proxy(t testing.TB) *remotetest.Proxy {
	t.Helper()
	p, err := remotetest.NewProxy(b.host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func (b *bundle) conn(t testing.TB) *Conn { t.Helper(); return dial(t, b.dialer, b.target) }

func dial(t testing.TB, d *Dialer, target Target) *Conn {
	t.Helper()
	c, err := d.Dial(testContext(t), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func key(step string) Key { return Key{Operation: "0198-op", Host: "h1", Step: step, Attempt: 1} }

func sh(step, script string) Command {
	return Command{Key: key(step), Argv: []string{"sh", "-c", script}}
}

// memory is a Sink that keeps what it is given and checks the offsets.
type memory struct {
	mu      sync.Mutex
	bytes   []byte
	onOut   func()
	onAlive func()
}

func (m *memory) Output(offset int64, data []byte) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if offset > int64(len(m.bytes)) {
		return 0, fmt.Errorf("offset %d leaves a hole behind %d", offset, len(m.bytes))
	}
	if end := offset + int64(len(data)); end > int64(len(m.bytes)) {
		if !bytes.Equal(m.bytes[offset:], data[:int64(len(m.bytes))-offset]) {
			return 0, fmt.Errorf("other bytes at offset %d than before", offset)
		}
		m.bytes = append(m.bytes[:offset], data...)
	}
	if m.onOut != nil {
		m.onOut()
	}
	return int64(len(m.bytes)), nil
}

func (m *memory) Alive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onAlive != nil {
		m.onAlive()
	}
}

func (m *memory) len() int64 { m.mu.Lock(); defer m.mu.Unlock(); return int64(len(m.bytes)) }

func (m *memory) String() string { m.mu.Lock(); defer m.mu.Unlock(); return string(m.bytes) }

func once(t testing.TB, c *Conn, cmd Command) (Outcome, string) {
	t.Helper()
	var m memory
	o, err := c.Once(testContext(t), cmd, 0, &m)
	if err != nil {
		t.Fatalf("%v: %v", cmd.Key, err)
	}
	return o, m.String()
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// written is for files whose makers write to them a moment after they have made them.
func written(path string) bool { info, err := os.Stat(path); return err == nil && info.Size() > 0 }

// count is how many lines a file has.
func count(t testing.TB, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}
