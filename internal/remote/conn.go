package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxSessions is below sshd's default MaxSessions of 10 a connection.
const maxSessions = 8

// maxOutput bounds what Read and Script keep of each stream, in bytes.
const maxOutput = 64 << 10

// ready is printed by the host's shell before anything of ours, so that what a
// login shell's start files print is told from an answer, and a sudo that refuses
// from a command that fails.
const ready = "\n@commissaire-ready@\n"

// finished ends both streams of a script.
const finished = "\n@commissaire-end@\n"

// Conn is a login to a host. It is safe for concurrent use.
type Conn struct {
	client  *ssh.Client
	target  Target
	hostKey string
	opts    Options
	sudo    bool
	took    time.Duration

	sessions chan struct{}
	closed   chan struct{} // closed when the connection is gone, whoever ended it
	cancel   context.CancelFunc

	mu      sync.Mutex // orders starting a session and closing
	closing bool
	wg      sync.WaitGroup // everything that the connection has running
}

func newConn(client *ssh.Client, t Target, hostKey ssh.PublicKey, o Options) *Conn {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Conn{
		client: client, target: t, hostKey: authorizedKey(hostKey), opts: o, sudo: t.user() != "root",
		sessions: make(chan struct{}, maxSessions), cancel: cancel, closed: make(chan struct{}),
	}
	c.wg.Go(func() {
		_ = client.Wait()
		cancel()
		close(c.closed)
	})
	c.wg.Go(func() { c.keepAlive(ctx) })
	return c
}

// HostKey is the key that the host presented, in authorized_keys form.
func (c *Conn) HostKey() string { return c.hostKey }

// LoginTook is how long the login took, without its waits for turns and for a bastion's.
func (c *Conn) LoginTook() time.Duration { return c.took }

// Close ends the connection. Runs on the host go on.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.cancel()
	err := c.client.Close()
	c.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil // the host or the keepalive was first
	}
	return err
}

// spawn starts what Close waits for, unless Close was first.
func (c *Conn) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.wg.Go(f)
	}
	return !c.closing
}

// keepAlive ends a connection that the other side does not answer on. TCP alone
// would take a quarter of an hour to notice.
func (c *Conn) keepAlive(ctx context.Context) {
	ticker := time.NewTicker(c.opts.KeepAliveInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		watchdog := time.AfterFunc(time.Duration(c.opts.KeepAliveMisses)*c.opts.KeepAliveInterval, func() { _ = c.client.Close() })
		_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
		watchdog.Stop()
		if err != nil {
			_ = c.client.Close()
			return
		}
	}
}

func (c *Conn) fail(kind Kind, err error) error {
	return c.target.fail(kind, err)
}

// Result is what a short command left behind.
type Result struct {
	ExitCode       int
	Stdout, Stderr []byte // at most 64 KiB each, the first ones
	Truncated      bool   // there was more
}

// Read runs a short command that changes nothing, as root. A non-zero exit code
// is a result and no error. What it prints beyond 64 KiB a stream is dropped.
func (c *Conn) Read(ctx context.Context, argv []string) (Result, error) {
	if err := checkArgv(argv); err != nil {
		return Result{}, err
	}
	return c.Script(ctx, `exec "$@"`, argv...)
}

// Script runs a POSIX sh script with arguments, as root, as Read does.
func (c *Conn) Script(ctx context.Context, script string, args ...string) (Result, error) {
	if err := checkWords(args); err != nil {
		return Result{}, err
	}
	call, err := c.call(ctx, wrap(script, args))
	if err != nil {
		return Result{}, err
	}
	defer call.close()
	out := limited{max: maxOutput}
	if _, err := io.Copy(&out, call.stdout); err != nil {
		return Result{}, call.error(err)
	}
	code, err := call.wait()
	if err != nil {
		return Result{}, err
	}
	// sshd may send the exit code before the last output, and a broken connection
	// looks like the end of a stream: only both marks prove that all of it is here.
	if !out.complete() || !call.stderr.complete() {
		return Result{}, c.fail(Lost, errors.New("the connection ended within the answer"))
	}
	return Result{ExitCode: code, Stdout: out.content(), Stderr: call.stderr.content(), Truncated: out.cut() || call.stderr.cut()}, nil
}

// BootID is the id of the host's present boot.
func (c *Conn) BootID(ctx context.Context) (string, error) {
	r, err := c.Script(ctx, hostLibrary+"c_boot_id && printf '%s' \"$c_now\"")
	if err != nil {
		return "", err
	}
	if r.ExitCode != 0 || len(r.Stdout) == 0 {
		return "", c.fail(HostUnusable, fmt.Errorf("read the boot id: %s", firstLine(r.Stderr)))
	}
	return string(r.Stdout), nil
}

// limited keeps the first max bytes before the end mark and swallows the rest, so
// that a host can neither fill our memory nor block itself.
type limited struct {
	max   int
	kept  []byte
	last  []byte // as long as the end mark
	total int
}

func (l *limited) Write(b []byte) (int, error) {
	l.kept = append(l.kept, b[:min(len(b), l.max-len(l.kept))]...)
	l.last = append(l.last, b[max(0, len(b)-len(finished)):]...)
	l.last = l.last[max(0, len(l.last)-len(finished)):]
	l.total += len(b)
	return len(b), nil
}

func (l *limited) complete() bool { return string(l.last) == finished }

func (l *limited) size() int {
	if l.complete() {
		return l.total - len(finished)
	}
	return l.total
}

func (l *limited) content() []byte { return l.kept[:min(len(l.kept), l.size())] }

func (l *limited) cut() bool { return l.size() > l.max }

func checkArgv(argv []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return errors.New("no command given")
	}
	// The host's shell would take it for an option of its exec.
	if strings.HasPrefix(argv[0], "-") {
		return fmt.Errorf("command %q begins with a dash", argv[0])
	}
	return checkWords(argv)
}

func checkWords(words []string) error {
	for i, w := range words {
		if strings.ContainsRune(w, 0) {
			return fmt.Errorf("argument %d holds a NUL byte, which no command can take", i)
		}
	}
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if line == "" {
		return "the host gave no reason"
	}
	return strings.ToValidUTF8(line, "?")
}
