package remote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"commissaire/internal/remote/remotetest"

	"github.com/stretchr/testify/require"
)

// behind are hosts that are reached through another one.
type behind struct {
	fleet   *remotetest.Fleet
	bastion *remotetest.Host
	hosts   []*remotetest.Host
	dialer  *Dialer
}

// newBehind starts a bastion with the given lines of sshd_config, and n hosts.
func newBehind(t *testing.T, n int, lines string) *behind {
	t.Helper()
	f := remotetest.New(t, n+1)
	b := &behind{fleet: f, bastion: f.Hosts()[0], hosts: f.Hosts()[1:], dialer: NewDialer(patient)}
	t.Cleanup(b.dialer.Close)
	configure(t, b.bastion, lines+"\nLogLevel VERBOSE")
	return b
}

// configure puts lines in the place of those that a host's sshd_config has for the
// same options.
func configure(t *testing.T, h *remotetest.Host, lines string) {
	t.Helper()
	path := filepath.Join(h.Dir(), "sshd_config")
	old, err := os.ReadFile(path)
	require.NoError(t, err)
	given := map[string]bool{}
	for line := range strings.Lines(lines) {
		name, _, _ := strings.Cut(line, " ")
		given[name] = true
	}
	config := lines + "\n"
	for line := range strings.Lines(string(old)) {
		if name, _, _ := strings.Cut(line, " "); !given[name] {
			config += line
		}
	}
	require.NoError(t, os.WriteFile(path, []byte(config), 0o644))
	require.NoError(t, h.RestartSSHD(testContext(t)))
}

// to is the i-th host through the bastion.
func (b *behind) to(i int) Target {
	t, via := targetOf(b.fleet, b.hosts[i]), targetOf(b.fleet, b.bastion)
	t.Via = &via
	return t
}

// logged counts the lines of the bastion's log that have a text in them.
func (b *behind) logged(t *testing.T, text string) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(b.bastion.Dir(), "sshd.log"))
	require.NoError(t, err)
	return strings.Count(string(log), text)
}

func (b *behind) trunks() (n int) {
	b.dialer.bastions.mu.Lock()
	defer b.dialer.bastions.mu.Unlock()
	for _, of := range b.dialer.bastions.trunks {
		n += len(of)
	}
	return n
}

func TestBastionSharesOneConnection(t *testing.T) {
	t.Parallel()
	b := newBehind(t, 3, "")
	pool := NewPool(b.dialer, time.Minute)
	defer pool.Close()
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			c, release, err := pool.Get(testContext(t), b.to(i))
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			id, err := c.BootID(testContext(t))
			if err != nil || id != b.hosts[i].BootID() || c.HostKey() != b.hosts[i].HostKey() {
				t.Errorf("boot id %q, %v", id, err)
			}
		})
	}
	all.Wait()
	require.Equal(t, 1, b.logged(t, "Accepted publickey"))
	// What is done from here is another connection than the one through the bastion.
	straight := b.to(0)
	straight.Via = nil
	c, release, err := pool.Get(testContext(t), straight)
	require.NoError(t, err)
	defer release()
	through, release2, err := pool.Get(testContext(t), b.to(0))
	require.NoError(t, err)
	defer release2()
	require.NotSame(t, c, through)
	require.Equal(t, 1, b.logged(t, "Accepted publickey"))
}

func TestBastionErrors(t *testing.T) {
	t.Parallel()
	b := newBehind(t, 2, "")
	try := func(target Target, kind Kind, has ...string) error {
		t.Helper()
		c, err := b.dialer.Dial(testContext(t), target)
		if err == nil {
			_ = c.Close()
		}
		require.Equal(t, kind, KindOf(err), "%v", err)
		for _, h := range append(has, target.hostPort()) {
			require.ErrorContains(t, err, h)
		}
		return err
	}
	bastion := "through bastion " + b.to(0).Via.hostPort()

	// What is wrong with the host is said as without a bastion.
	stranger := b.to(0)
	stranger.Key, _ = newKey(t)
	try(stranger, AuthRefused)
	other := b.to(0)
	other.HostKey = b.hosts[1].HostKey()
	try(other, HostKeyChanged)
	require.NoError(t, b.hosts[1].Refuse())
	err := try(b.to(1), Unreachable, bastion, "cannot connect to the host")
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "nobody listens there, as when it is told straight")

	// What is wrong with the bastion says nothing of the host but that it is out of
	// reach.
	stranger = b.to(0)
	stranger.Via.Key, _ = newKey(t)
	try(stranger, Unreachable, bastion, "auth-refused")
	other = b.to(0)
	other.Via.HostKey = b.hosts[1].HostKey()
	err = try(other, Unreachable, bastion, "host-key-changed")
	require.False(t, errors.As(err, new(*HostKeyMismatch)), "that is not the host's key")
	two := b.to(0)
	two.Via.Via = &Target{Address: "127.0.0.1"}
	try(two, Unreachable, "one is all")
	require.NoError(t, b.bastion.Refuse())
	away := b.to(0)
	away.Via.User = "somebody" // another login, so no connection that is there already
	err = try(away, Unreachable, bastion, "unreachable", "connection refused")
	require.NotErrorIs(t, err, syscall.ECONNREFUSED, "it is not the host that refuses")
	require.NoError(t, b.bastion.Accept(testContext(t)))

	configure(t, b.bastion, "AllowTcpForwarding no")
	fresh := NewDialer(patient)
	t.Cleanup(fresh.Close)
	b.dialer = fresh
	try(b.to(0), Unreachable, bastion, "AllowTcpForwarding")
}

// When the connection to the bastion breaks, what runs on the hosts goes on, and
// is found again through a new one.
func TestBastionConnectionBreaks(t *testing.T) {
	t.Parallel()
	b := newBehind(t, 1, "")
	proxy, err := remotetest.NewProxy(b.bastion)
	require.NoError(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	target := b.to(0)
	target.Via.Address, target.Via.Port = proxy.Address(), proxy.Port()
	pool := NewPool(b.dialer, time.Minute)
	defer pool.Close()

	c, release, err := pool.Get(testContext(t), target)
	require.NoError(t, err)
	flag := filepath.Join(t.TempDir(), "go")
	cmd := sh("through", `echo begun; while [ ! -e `+Quote(flag)+` ]; do sleep 0.02; done; echo done`)
	got := &memory{onOut: sync.OnceFunc(proxy.Cut)}
	_, err = c.Once(testContext(t), cmd, 0, got)
	require.Equal(t, Lost, KindOf(err), "%v", err)
	require.ErrorContains(t, err, "through bastion "+target.Via.hostPort())
	release()
	require.NoError(t, os.WriteFile(flag, nil, 0o644))

	var o Outcome
	eventually(t, "the next connections are good", func() bool { // it may not be known yet that these have ended
		c, release, err := pool.Get(testContext(t), target)
		require.NoError(t, err)
		defer release()
		o, err = c.Once(testContext(t), cmd, got.len(), got)
		require.Contains(t, []Kind{"", Lost}, KindOf(err), "%v", err)
		return err == nil
	})
	require.Equal(t, Exited, o.State)
	require.Equal(t, "begun\ndone\n", got.String())
}

// A connection that has ended, of which is not known yet that it has, is nobody's failure.
func TestBastionConnectionHasEnded(t *testing.T) {
	t.Parallel()
	b := newBehind(t, 1, "")
	of := b.dialer.bastions
	via := *b.to(0).Via
	ended := dial(t, b.dialer, via)
	require.NoError(t, ended.Close())
	dead := &trunk{bastion: via, conn: &Conn{client: ended.client, closed: make(chan struct{})}, ready: make(chan struct{}), give: func() {}}
	close(dead.ready)
	of.mu.Lock()
	of.trunks[via.login()] = append(of.trunks[via.login()], dead)
	of.mu.Unlock()
	dial(t, b.dialer, b.to(0))
	eventually(t, "only the new one is left", func() bool {
		of.mu.Lock()
		defer of.mu.Unlock()
		left := of.trunks[via.login()]
		return dead.hosts == 0 && len(left) == 1 && left[0] != dead
	})
}

// A connection serves so many hosts, then there is another one, and none is kept
// that nobody uses.
func TestBastionConnectionsComeAndGo(t *testing.T) {
	t.Parallel()
	b := newBehind(t, 1, "")
	b.dialer.bastions.most, b.dialer.bastions.idle = 2, 50*time.Millisecond
	var conns []*Conn
	for range 7 {
		conns = append(conns, dial(t, b.dialer, b.to(0)))
	}
	require.Equal(t, 4, b.trunks())
	// Room that was given back is used again.
	require.NoError(t, conns[0].Close())
	eventually(t, "there is room", func() bool {
		b.dialer.bastions.mu.Lock()
		defer b.dialer.bastions.mu.Unlock()
		return b.dialer.bastions.trunks[b.to(0).Via.login()][0].hosts == 1
	})
	conns[0] = dial(t, b.dialer, b.to(0))
	require.Equal(t, 4, b.trunks())
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	eventually(t, "all are closed", func() bool { return b.trunks() == 0 })

	// Who gives up while a connection is made leaves nothing behind.
	require.NoError(t, b.bastion.Hang())
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	_, err := b.dialer.Dial(ctx, b.to(0))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Zero(t, b.trunks())
	require.NoError(t, b.bastion.Unhang())

	// A closed dialer ends what it has, and makes no more.
	c := dial(t, b.dialer, b.to(0))
	b.dialer.Close()
	_, err = c.Read(testContext(t), []string{"true"})
	require.Equal(t, Lost, KindOf(err))
	_, err = b.dialer.Dial(testContext(t), b.to(0))
	require.ErrorIs(t, err, errDialerClosed)
}

// A host that stops in the middle of a transfer does not keep anybody who closes
// the connection waiting.
func TestBastionHostTakesNoMoreBytes(t *testing.T) {
	t.Parallel()
	b := newBehind(t, 1, "")
	c := dial(t, b.dialer, b.to(0))
	said, err := c.Script(testContext(t), "echo $PPID")
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(said.Stdout)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP)) // sshd's process for this connection
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	_, err = c.Script(ctx, "# "+strings.Repeat("x", 32<<20))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-testContext(t).Done():
		require.FailNow(t, "Close waits for a host that takes no more bytes")
	}
	// The bastion serves others meanwhile.
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	other := dial(t, b.dialer, b.to(0))
	_, err = other.BootID(testContext(t))
	require.NoError(t, err)
}

// Sixty at once log in to one sshd that takes three and drops all others.
func TestDroppedAreTriedAgain(t *testing.T) {
	t.Parallel()
	for name, through := range map[string]bool{"hosts of one subnet": false, "bastion": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBehind(t, 1, "MaxStartups 3:100:3")
			b.dialer.bastions.most = 1                                     // one connection for each host
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // one after another, on a busy machine
			defer cancel()
			var all sync.WaitGroup
			for range 60 {
				all.Go(func() {
					target := b.to(0)
					if !through {
						target = *target.Via
					}
					c, err := b.dialer.Dial(ctx, target)
					if err != nil {
						t.Error(err)
						return
					}
					t.Cleanup(func() { _ = c.Close() })
				})
			}
			all.Wait()
			if !through {
				require.Positive(t, b.logged(t, "drop connection"), "sixty are too many for this sshd")
			}
			// sshd may write so a moment after it has told the client.
			eventually(t, "sshd has logged all logins", func() bool { return b.logged(t, "Accepted publickey") >= 60 })
			require.Equal(t, 60, b.logged(t, "Accepted publickey"))
		})
	}
}
