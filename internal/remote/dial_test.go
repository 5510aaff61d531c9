package remote

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func newKey(t testing.TB) (secret.Text, ssh.PublicKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return secret.NewText(pem.EncodeToMemory(block)), signer.PublicKey()
}

func TestReadAndScript(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	ctx := testContext(t)
	r, err := c.Read(ctx, []string{"sh", "-c", "echo out; echo err >&2; cat; exit 7"})
	if err != nil || r.ExitCode != 7 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
		t.Errorf("%v %+v", err, r)
	}
	r, err = c.Script(ctx, `for a; do echo "<$a>"; done; head -c 100000 /dev/zero # and a comment`, "x y", "")
	if err != nil || !strings.HasPrefix(string(r.Stdout), "<x y>\n<>\n\x00") || len(r.Stdout) != maxOutput || !r.Truncated {
		t.Errorf("%v %d", err, len(r.Stdout))
	}
	if _, err := c.Read(ctx, []string{"a\x00b"}); err == nil {
		t.Error("a NUL byte passed")
	}
	if c.HostKey() != b.host.HostKey() {
		t.Error("not the host's key")
	}
	// More at once than sshd allows sessions on one connection.
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if r, err := c.Read(ctx, []string{"sleep", "0.05"}); err != nil || r.ExitCode != 0 {
				t.Errorf("%v %+v", err, r)
			}
		})
	}
	wg.Wait()
}

// What a login shell's start files print is no answer.
func TestNoisyLoginShell(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := os.WriteFile(filepath.Join(b.host.Dir(), "../../home/.bashrc"), []byte("echo Welcome; echo to this host >&2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := b.conn(t).Read(testContext(t), []string{"echo", "answer"})
	if err != nil || string(r.Stdout) != "answer\n" {
		t.Errorf("%v %q", err, r.Stdout)
	}
}

// A cut connection must not turn a script into a shorter one.
func TestCutScriptRunsNothing(t *testing.T) {
	t.Parallel()
	whole := wrap("touch \"$1\"\ntouch \"$2\"", []string{"a", "b"})
	for n := range len(whole) - 1 {
		dir := t.TempDir()
		cmd := exec.Command("sh", "-s")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(whole[:n])
		_ = cmd.Run()
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		// Without its redirection, the last line still closes the group.
		if len(files) == 1 || len(files) == 2 && !strings.Contains(whole[:n], "\n}") {
			t.Fatalf("%d bytes of the script did something: %v", n, files)
		}
	}
}

func TestHostKeyPinned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.target.HostKey
	first := b.target
	first.HostKey = ""
	if c := dial(t, b.dialer, first); c.HostKey() != old {
		t.Error("first contact does not report the key")
	}
	if err := b.host.NewHostKey(testContext(t)); err != nil {
		t.Fatal(err)
	}
	_, err := b.dialer.Dial(testContext(t), b.target)
	var m *HostKeyMismatch
	if KindOf(err) != HostKeyChanged || !errors.As(err, &m) || m.Key != b.host.HostKey() || m.Want == m.Got || !strings.Contains(err.Error(), m.Got) {
		t.Errorf("%v", err)
	}
	var e *Error
	if !errors.As(err, &e) || !e.Permanent() {
		t.Error("trying again cannot help")
	}
	log, err := os.ReadFile(b.host.Dir() + "/sshd.log")
	if err != nil || strings.Contains(string(log), "Accepted") {
		t.Errorf("logged in to a host with another key: %v %s", err, log)
	}
	// Pinned is a type that the host does not have: still a changed key, with
	// both named.
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	target := b.target
	target.HostKey = authorizedKey(public)
	m = nil
	if _, err := b.dialer.Dial(testContext(t), target); KindOf(err) != HostKeyChanged || !errors.As(err, &m) || m.Key != b.host.HostKey() {
		t.Errorf("%v", err)
	}
}

// The pinned key decides which of its keys a host must present.
func TestHostWithKeysOfEveryType(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dir := t.TempDir()
	config, err := os.ReadFile(b.host.Dir() + "/sshd_config")
	if err != nil {
		t.Fatal(err)
	}
	publics := []string{b.host.HostKey()}
	for _, kind := range []string{"rsa", "ecdsa"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", filepath.Join(dir, kind)).CombinedOutput(); err != nil {
			t.Skipf("ssh-keygen: %v %s", err, out)
		}
		config = append(config, "HostKey "+filepath.Join(dir, kind)+"\n"...)
		raw, err := os.ReadFile(filepath.Join(dir, kind+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		publics = append(publics, strings.TrimSpace(string(raw)))
	}
	if err := os.WriteFile(b.host.Dir()+"/sshd_config", config, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.host.RestartSSHD(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, p := range publics {
		target := b.target
		target.HostKey = p
		c := dial(t, b.dialer, target)
		if c.HostKey() != strings.Join(strings.Fields(p)[:2], " ") {
			t.Errorf("pinned %s, got %s", p, c.HostKey())
		}
	}
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dialer := b.dialer
	ctx := testContext(t)
	try := func(target Target) error {
		t.Helper()
		c, err := dialer.Dial(ctx, target)
		if err == nil {
			t.Fatal("logged in")
			_ = c.Close()
		}
		return err
	}

	stranger := b.target
	stranger.Key, _ = newKey(t)
	if err := try(stranger); KindOf(err) != AuthRefused {
		t.Error(err)
	}
	broken := b.target
	broken.Key = secret.NewText([]byte("-----BEGIN CANARY-----"))
	if err := try(broken); KindOf(err) != BadKey || strings.Contains(err.Error(), "CANARY") {
		t.Error(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	broken.Key = secret.NewText(pem.EncodeToMemory(block))
	if err := try(broken); KindOf(err) != BadKey || !strings.Contains(err.Error(), "passphrase") {
		t.Error(err)
	}
	broken = b.target
	broken.HostKey = "nonsense"
	if err := try(broken); KindOf(err) != BadKey {
		t.Error(err)
	}

	if err := b.host.Hang(); err != nil {
		t.Fatal(err)
	}
	dialer = NewDialer(Options{DialTimeout: time.Minute, HandshakeTimeout: 500 * time.Millisecond})
	began := time.Now()
	if err := try(b.target); KindOf(err) != NoBanner || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	canceled, cancel := context.WithCancel(ctx)
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := b.dialer.Dial(canceled, b.target); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := b.host.Unhang(); err != nil {
		t.Fatal(err)
	}
	if err := b.host.Refuse(); err != nil {
		t.Fatal(err)
	}
	if err := try(b.target); KindOf(err) != Unreachable {
		t.Error(err)
	}

	// A server that hangs up before its banner, as sshd over its limits does.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	dialer = NewDialer(Options{DialTimeout: 5 * time.Second, HandshakeTimeout: time.Minute}) // for so long it tries again
	curt := b.target
	curt.Address, curt.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	if err := try(curt); KindOf(err) != Disconnected {
		t.Error(err)
	}
}

// The time of a login does not run while it waits for its turn, and that is none of a host
// that is slow.
func TestLoginTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const limit = 15 * time.Second // far more than a login takes
	d := NewDialer(Options{LoginTimeout: limit, MaxHandshakes: 1})
	turn, err := d.governor.enter(testContext(t), gateKey{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(limit+time.Second, func() { turn.leave(learnedNothing) })
	if c := dial(t, d, b.target); c.LoginTook() <= 0 || c.LoginTook() > limit {
		t.Errorf("it took %s", c.LoginTook())
	}
	if err := b.host.Hang(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.host.Unhang() })
	hasty := NewDialer(Options{LoginTimeout: 300 * time.Millisecond})
	if _, err := hasty.Dial(testContext(t), b.target); KindOf(err) == "" || !strings.Contains(err.Error(), "no answer within 300ms") {
		t.Error(err)
	}
}

// Hosts that accept connections and then say nothing hold no turn of all.
func TestSilentHostsKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody speaks
	require.NoError(t, err)
	defer l.Close()
	silent := b.target
	silent.Address, silent.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	d := NewDialer(Options{HandshakeTimeout: time.Hour, MaxHandshakes: 10})
	const many = 60
	ctx, cancel := context.WithCancel(testContext(t))
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	ended := make(chan error, many)
	for range many {
		all.Go(func() {
			_, err := d.Dial(ctx, silent)
			ended <- err
		})
	}
	eventually(t, "all are connected", func() bool {
		d.governor.mu.Lock()
		defer d.governor.mu.Unlock()
		e := d.governor.gates[gateKey{to: "127.0.0.0/24"}]
		return e != nil && e.inside == many
	})
	dial(t, d, b.target)
	require.Empty(t, ended, "they have not ended before")
}

// A host that sends its banner only when it has ours is waited for like any other, and so
// is a turn of all once it has spoken.
func TestHostThatSpeaksSecond(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	defer all.Wait()
	defer l.Close()
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer in.Close()
				from := bufio.NewReader(in)
				first, err := from.ReadString('\n')
				if err != nil {
					return
				}
				out, err := net.Dial("tcp", b.target.hostPort())
				if err != nil {
					return
				}
				all.Go(func() {
					defer out.Close()
					_, _ = io.Copy(out, io.MultiReader(strings.NewReader(first), from))
				})
				_, _ = io.Copy(in, out)
			})
		}
	})
	target := b.target
	target.Address, target.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	d := NewDialer(Options{HandshakeTimeout: time.Minute, MaxHandshakes: 1})
	require.NoError(t, dial(t, d, target).Close())

	turn, err := d.governor.enter(testContext(t), gateKey{}, 1)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	got := make(chan error, 1)
	all.Go(func() {
		_, err := d.Dial(ctx, target)
		got <- err
	})
	eventually(t, "it waits for its turn", func() bool {
		d.governor.mu.Lock()
		defer d.governor.mu.Unlock()
		return len(turn.gate.waiting) == 1
	})
	cancel()
	err = <-got
	require.ErrorIs(t, err, ErrNoTurn)
	require.ErrorIs(t, err, context.Canceled)
	turn.leave(learnedNothing)
}

func TestSudo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	c.sudo = true // whoever runs this test; sudo is a stand-in
	if r, err := c.Read(testContext(t), []string{"echo", "as root"}); err != nil || string(r.Stdout) != "as root\n" {
		t.Errorf("%v %+v", err, r)
	}
	if err := b.host.OnCommand("sudo", "echo 'sudo: a password is required' >&2; exit 1"); err != nil {
		t.Fatal(err)
	}
	_, err := c.Once(testContext(t), sh("sudo", "true"), 0, &memory{})
	if KindOf(err) != SudoRefused || !strings.Contains(err.Error(), "a password is required") {
		t.Error(err)
	}
}

func TestLostIsNotAnExitCode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy(t)
	c := dial(t, b.dialer, b.via(p))
	time.AfterFunc(200*time.Millisecond, p.Cut)
	_, err := c.Read(testContext(t), []string{"sleep", "60"})
	if KindOf(err) != Lost {
		t.Error(err)
	}
	if _, err := c.Read(testContext(t), []string{"true"}); KindOf(err) != Lost {
		t.Error(err)
	}
}

// A connection on which nothing moves any more is found dead by our own probes.
func TestKeepAliveEndsStalledConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy(t)
	p.Set(remotetest.Fault{StallAfter: 40_000})
	d := NewDialer(Options{DialTimeout: time.Minute, HandshakeTimeout: time.Minute, KeepAliveInterval: 100 * time.Millisecond, KeepAliveMisses: 3})
	c := dial(t, d, b.via(p))
	began := time.Now()
	_, err := c.Read(testContext(t), []string{"head", "-c", "60000", "/dev/zero"})
	if KindOf(err) != Lost || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestContextEndsCall(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := c.Read(ctx, []string{"sleep", "60"})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	// The connection itself is as good as before.
	if _, err := c.Read(testContext(t), []string{"true"}); err != nil {
		t.Error(err)
	}
	// A follower that gives up ends its session, and the run goes on.
	ctx, cancel2 := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel2()
	cmd := sh("ctx", `until [ -e "$FLEET_HOST/go" ]; do sleep 0.05; done; echo done`)
	if _, err := c.Once(ctx, cmd, 0, &memory{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := os.WriteFile(b.host.Dir()+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if o, out := once(t, c, cmd); o.State != Exited || out != "done\n" {
		t.Errorf("%+v %q", o, out)
	}
}

func TestPool(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy(t)
	pool := NewPool(b.dialer, time.Minute) // the last of the ten may come after the first has left
	defer pool.Close()
	get := func() (*Conn, func()) {
		t.Helper()
		c, release, err := pool.Get(testContext(t), b.via(p))
		if err != nil {
			t.Fatal(err)
		}
		return c, release
	}
	var mu sync.Mutex
	seen := map[*Conn]bool{}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			c, release := get()
			defer release()
			mu.Lock()
			seen[c] = true
			mu.Unlock()
			if _, err := c.Read(testContext(t), []string{"true"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(seen) != 1 {
		t.Errorf("%d connections to one host", len(seen))
	}
	pool.idle = 100 * time.Millisecond
	c, release := get()
	p.Cut()
	eventually(t, "the cut is noticed", func() bool {
		select {
		case <-c.closed:
			return true
		default:
			return false
		}
	})
	c2, release2 := get()
	if c2 == c {
		t.Error("got a broken connection")
	}
	release()
	release2()
	eventually(t, "idle connection is closed", func() bool {
		select {
		case <-c2.closed:
			return true
		default:
			return false
		}
	})
	if err := b.host.NewHostKey(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := pool.Get(testContext(t), b.via(p)); KindOf(err) != HostKeyChanged {
		t.Error(err)
	}
	target := b.via(p)
	target.HostKey = b.host.HostKey()
	c3, release3, err := pool.Get(testContext(t), target)
	if err != nil {
		t.Fatal(err)
	}
	defer release3()
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c3.Read(testContext(t), []string{"true"}); err == nil {
		t.Error("a closed pool's connection works")
	}
	if _, _, err := pool.Get(testContext(t), target); err == nil {
		t.Error("a closed pool gives connections")
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on this machine: %v", err)
	}
	relayed := make(chan struct{})
	go func() { // one connection, to the host's own address
		defer close(relayed)
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", net.JoinHostPort(b.host.Address(), strconv.Itoa(b.host.Port())))
		if err != nil {
			_ = in.Close()
			return
		}
		var both sync.WaitGroup
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			both.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
			})
		}
		both.Wait()
	}()
	target := b.target
	target.Address, target.Port = "::1", l.Addr().(*net.TCPAddr).Port
	c, err := b.dialer.Dial(testContext(t), target)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := c.BootID(testContext(t)); err != nil || id != b.host.BootID() {
		t.Fatalf("boot id %q, %v", id, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-relayed
	_ = l.Close()
	if _, err := b.dialer.Dial(testContext(t), target); KindOf(err) != Unreachable || !strings.Contains(err.Error(), "[::1]:") {
		t.Fatalf("got %v", err)
	}
}
