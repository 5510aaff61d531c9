package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"commissaire/internal/secret"

	"golang.org/x/crypto/ssh"
)

// Target is a host and how to log in to it.
type Target struct {
	Address string      // IP literal or DNS name
	Port    int         // 22 when 0
	User    string      // root when empty; everybody else needs sudo without a password
	Key     secret.Text // private key, PEM or OpenSSH, not encrypted
	HostKey string      // pinned key in authorized_keys form; "" on first contact: any is accepted, see Conn.HostKey
	Via     *Target     // bastion from which to connect; nil: from here. It must have none itself
}

func (t Target) hostPort() string {
	return net.JoinHostPort(t.Address, strconv.Itoa(t.port()))
}

func (t Target) port() int {
	if t.Port == 0 {
		return 22
	}
	return t.Port
}

func (t Target) user() string {
	if t.User == "" {
		return "root"
	}
	return t.User
}

// fail names the host, and the bastion where that may be what is wrong.
func (t Target) fail(kind Kind, err error) error {
	if t.Via != nil && (kind == NoBanner || kind == Disconnected || kind == Lost) {
		err = fmt.Errorf("through bastion %s: %w", t.Via.hostPort(), err)
	}
	return &Error{Kind: kind, Host: t.hostPort(), Err: err}
}

// Options bound every wait. A zero value means the default.
type Options struct {
	DialTimeout       time.Duration // for TCP to connect; 10 s
	HandshakeTimeout  time.Duration // from TCP to the end of the login, without its wait for a turn; 15 s
	LoginTimeout      time.Duration // for a whole login with all tries, but not its waits for turns and for a bastion's login; none
	KeepAliveInterval time.Duration // between two probes; 5 s
	KeepAliveMisses   int           // so many intervals without an answer close the connection; 3
	RequestTimeout    time.Duration // for sshd to start a command; 15 s
	MaxHandshakes     int           // handshakes at once over all hosts that have sent their banner; 64
	BastionIdle       time.Duration // a connection to a bastion that no host uses is closed after it; 1 min
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.DialTimeout, 10*time.Second)
	set(&o.HandshakeTimeout, 15*time.Second)
	set(&o.KeepAliveInterval, 5*time.Second)
	set(&o.RequestTimeout, 15*time.Second)
	set(&o.BastionIdle, time.Minute)
	if o.KeepAliveMisses <= 0 {
		o.KeepAliveMisses = 3
	}
	if o.MaxHandshakes <= 0 {
		o.MaxHandshakes = 64
	}
	return o
}

// Dialer logs in to hosts. One is shared by the whole process, since the limits
// on handshakes and the connections to bastions are its.
type Dialer struct {
	opts     Options
	governor *governor
	bastions *bastions
	keys     keys
	subnets  sync.Map // by host name: that of the address it had last
}

// NewDialer makes a Dialer. The caller closes it when it used bastions.
func NewDialer(o Options) *Dialer {
	d := &Dialer{opts: o.withDefaults(), governor: newGovernor()}
	d.bastions = newBastions(d.dialBastion, d.opts)
	return d
}

// Close ends the connections to bastions, and with them those to the hosts behind.
func (d *Dialer) Close() { d.bastions.close() }

// Dial logs in. The context covers the dial only; the Conn lives until Close or
// until the host does not answer any more.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Conn, error) {
	return d.dial(ctx, &handshake{target: t})
}

func (d *Dialer) dialBastion(ctx context.Context, t Target) (*Conn, error) {
	return d.dial(ctx, &handshake{target: t, bastion: true})
}

func (d *Dialer) dial(ctx context.Context, h *handshake) (*Conn, error) {
	t := h.target
	fail := func(kind Kind, err error) (*Conn, error) {
		switch cause := context.Cause(ctx); {
		case errors.Is(err, ErrNoTurn):
			return nil, fmt.Errorf("host %s: log in: %w", t.hostPort(), err)
		case errors.Is(cause, errLoginTimeout):
			return nil, t.fail(kind, fmt.Errorf("no answer within %s", d.opts.LoginTimeout))
		case cause != nil:
			return nil, fmt.Errorf("host %s: log in: %w", t.hostPort(), cause)
		}
		return nil, t.fail(kind, err)
	}
	var err error
	if h.signer, err = d.keys.parse(t.Key); err != nil {
		return fail(BadKey, err)
	}
	if t.HostKey != "" {
		if h.pinned, _, _, _, err = ssh.ParseAuthorizedKey([]byte(t.HostKey)); err != nil {
			return fail(BadKey, fmt.Errorf("pinned host key: %w", err))
		}
	}
	if subnet, ok := d.subnets.Load(t.Address); ok && t.Via == nil {
		h.subnet = subnet.(string)
	}
	h.begun, h.limit = time.Now(), d.opts.LoginTimeout
	if h.limit > 0 {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		h.clock = time.AfterFunc(h.limit, func() { cancel(errLoginTimeout) })
		defer h.clock.Stop()
	}
	client, kind, err := d.connect(ctx, h)
	if kind == HostKeyChanged && h.presented == nil {
		// The host has no key of the pinned type any more. To name the one it has,
		// look at it, and leave before anything is authenticated.
		look := &handshake{target: t, bastion: h.bastion, lookOnly: true}
		if _, _, e := d.connect(ctx, look); look.presented != nil {
			err = mismatch(h.pinned, look.presented)
		} else {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fail(kind, err)
	}
	c := newConn(client, t, h.presented, d.opts)
	c.took = h.took()
	return c, nil
}

// handshake is a login and how far it came.
type handshake struct {
	target    Target
	bastion   bool          // the connection is to be shared by the hosts behind
	pinned    ssh.PublicKey // nil: any
	signer    ssh.Signer
	lookOnly  bool // stop at the host key
	presented ssh.PublicKey
	subnet    string // of the host, once known
	begun     time.Time
	waited    time.Duration // for turns, and for the bastion's login
	limit     time.Duration // of the rest; 0: none
	clock     *time.Timer   // ends the login at the limit; nil: none
}

var (
	errLooked       = errors.New("only looked at the host key")
	errLoginTimeout = errors.New("no answer in time")
)

// took is how long it takes by now, without its waits.
func (h *handshake) took() time.Duration { return time.Since(h.begun) - h.waited }

// wait stops the clock while the login waits for others.
func (h *handshake) wait() (goOn func()) {
	begun := time.Now()
	if h.clock != nil {
		h.clock.Stop()
	}
	return func() {
		h.waited += time.Since(begun)
		if h.clock != nil {
			h.clock.Reset(h.limit - h.took())
		}
	}
}

func (h *handshake) checkKey(_ string, _ net.Addr, key ssh.PublicKey) error {
	h.presented = key
	if h.lookOnly {
		return errLooked
	}
	if h.pinned != nil && string(h.pinned.Marshal()) != string(key.Marshal()) {
		return mismatch(h.pinned, key)
	}
	return nil
}

func mismatch(want, got ssh.PublicKey) error {
	return &HostKeyMismatch{Want: ssh.FingerprintSHA256(want), Got: ssh.FingerprintSHA256(got), Key: authorizedKey(got)}
}

func authorizedKey(k ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func (h *handshake) config() *ssh.ClientConfig {
	c := &ssh.ClientConfig{
		User:              h.target.user(),
		HostKeyCallback:   h.checkKey,
		HostKeyAlgorithms: hostKeyAlgorithms(h.pinned),
		ClientVersion:     "SSH-2.0-Commissaire",
	}
	// curve25519 first: a fifth of the cost of the post-quantum default for a
	// fleet of short connections, and every sshd since 2014 has it.
	c.KeyExchanges = []string{
		ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521,
		ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeDH14SHA256, ssh.KeyExchangeDH16SHA512,
	}
	if h.signer != nil {
		c.Auth = []ssh.AuthMethod{ssh.PublicKeys(h.signer)}
	}
	return c
}

// hostKeyAlgorithms are those that fit the pinned key: a host with keys of
// several types must present the one that was pinned.
func hostKeyAlgorithms(pinned ssh.PublicKey) []string {
	rsa := []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	switch {
	case pinned == nil:
		return append([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}, rsa...)
	case pinned.Type() == ssh.KeyAlgoRSA:
		return rsa
	default:
		return []string{pinned.Type()}
	}
}

func parseKey(key secret.Text) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(key.Reveal())
	if err == nil {
		return signer, nil
	}
	// The library's error is not passed on: it must never quote the key.
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, errors.New("the private key is encrypted with a passphrase; store it decrypted, it is sealed at rest")
	}
	return nil, errors.New("the private key cannot be read; it must be an unencrypted key in OpenSSH or PEM form")
}

// How long to wait before a dropped connection is tried again: from the first to
// the second, doubled each time, and up to as much again by chance.
const (
	dropPauseMin = 100 * time.Millisecond
	dropPauseMax = 800 * time.Millisecond
)

// turnUnconnected is for how long a host may hold a turn without a connection: what is
// switched off is no reason to keep others waiting.
const turnUnconnected = time.Second

// dropped is a connection that was closed before sshd's banner, which is how sshd
// and what stands before it keep off what is too much for them.
type dropped struct{ said string }

func (d *dropped) Error() string {
	if d.said != "" {
		return fmt.Sprintf("sshd closed the connection before its banner, saying %q", d.said)
	}
	return "sshd closed the connection before its banner; it may limit connections (MaxStartups, PerSourcePenalties)"
}

// connect makes the TCP connection and the handshake on it. What is dropped is
// tried again for as long as a connection may take, besides waiting for turns.
func (d *Dialer) connect(ctx context.Context, h *handshake) (*ssh.Client, Kind, error) {
	begun := time.Now()
	for pause := dropPauseMin; ; pause = min(2*pause, dropPauseMax) {
		client, kind, err := d.attempt(ctx, h)
		wait := pause + rand.N(pause)
		if !errors.As(err, new(*dropped)) || time.Since(begun)-h.waited+wait > d.opts.DialTimeout {
			return client, kind, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, kind, err
		}
	}
}

// attempt is one connection and one handshake.
func (d *Dialer) attempt(ctx context.Context, h *handshake) (*ssh.Client, Kind, error) {
	learned := learnedNothing
	key, most := h.gate()
	var turn *turn
	defer func() {
		if turn != nil {
			turn.leave(learned)
		}
	}()
	var early *time.Timer
	// Where connections count, a turn is needed before there is one. Elsewhere not
	// yet, so that a thousand hosts that are switched off do not keep the others
	// waiting.
	if h.bastion || d.governor.narrowed(key) {
		var err error
		if turn, err = d.enter(ctx, h, key, most); err != nil {
			return nil, Unreachable, err
		}
		if !h.bastion {
			given := turn
			early = time.AfterFunc(turnUnconnected, func() { given.leave(learnedNothing) })
		}
	}
	raw, err := d.reach(ctx, h)
	if early != nil && !early.Stop() {
		turn = nil // it was given back
	}
	if err != nil {
		return nil, Unreachable, err
	}
	if _, literal := subnetOf(h.target.Address); !literal && h.target.Via == nil {
		d.subnets.Store(h.target.Address, subnetOfConn(raw)) // to ask for a turn before, the next time
	}
	if turn == nil {
		if h.subnet == "" {
			h.subnet = subnetOfConn(raw)
			key, most = h.gate()
		}
		if turn, err = d.enter(ctx, h, key, most); err != nil {
			_ = raw.Close()
			return nil, Unreachable, err
		}
	}
	watched := &watchedConn{Conn: raw}
	// A stopped sshd accepts and then says nothing, for ever.
	deadline := time.Now().Add(d.opts.HandshakeTimeout)
	if err := watched.SetDeadline(deadline); err != nil {
		_ = raw.Close()
		return nil, Unreachable, err
	}
	// The bound on all is for what costs us something, which is the key exchange: who says
	// nothing waits without such a turn, and keeps nobody waiting.
	leaveAll := func() {}
	defer func() { leaveAll() }()
	watched.spoken = func() error {
		begun := time.Now()
		all, err := d.enter(ctx, h, gateKey{}, d.opts.MaxHandshakes)
		if err != nil {
			return err
		}
		leaveAll = func() { all.leave(learnedNothing) }
		return watched.SetDeadline(deadline.Add(time.Since(begun)))
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn, channels, requests, err := ssh.NewClientConn(watched, h.target.hostPort(), h.config())
	if err != nil {
		_ = raw.Close()
		if errors.Is(err, ErrNoTurn) {
			return nil, Unreachable, err
		}
		kind, err := classify(err, h, watched)
		switch {
		case ctx.Err() != nil: // we closed it
		case errors.As(err, new(*dropped)):
			learned = wasDropped
		case watched.banner.Load():
			learned = wasTaken
		}
		return nil, kind, err
	}
	learned = wasTaken
	if err := watched.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, Disconnected, err
	}
	return ssh.NewClient(conn, channels, requests), "", nil
}

// enter waits for a turn of this handshake.
func (d *Dialer) enter(ctx context.Context, h *handshake, key gateKey, most int) (*turn, error) {
	defer h.wait()()
	turn, err := d.governor.enter(ctx, key, most)
	if err == nil {
		turn.target = h.target.hostPort()
	}
	return turn, err
}

// gate is what bounds this handshake, besides the bound on all.
func (h *handshake) gate() (key gateKey, most int) {
	if h.bastion {
		return gateKey{to: h.target.hostPort()}, bastionHandshakes
	}
	if h.target.Via != nil {
		key.via = h.target.Via.hostPort()
	}
	if h.subnet == "" {
		h.subnet, _ = subnetOf(h.target.Address)
	}
	key.to = h.subnet
	if key.to == "" {
		key.to = h.target.Address // nobody knows yet which address the name has, or only the bastion does
	}
	return key, subnetHandshakes
}

// reach makes the TCP connection.
func (d *Dialer) reach(ctx context.Context, h *handshake) (net.Conn, error) {
	t := h.target
	if t.Via == nil {
		dialer := net.Dialer{Timeout: d.opts.DialTimeout}
		c, err := dialer.DialContext(ctx, "tcp", t.hostPort())
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		return c, nil
	}
	if t.Via.Via != nil {
		return nil, fmt.Errorf("through bastion %s: it is reached through a bastion itself, and one is all there may be", t.Via.hostPort())
	}
	if t.Via.HostKey == "" {
		return nil, fmt.Errorf("through bastion %s: its host key is not pinned; bootstrap it first", t.Via.hostPort())
	}
	return d.bastions.connect(ctx, *t.Via, t.hostPort(), h.wait)
}

// classify finds the kind of a failed handshake.
func classify(err error, h *handshake, c *watchedConn) (Kind, error) {
	var changed *HostKeyMismatch
	var unfit *ssh.AlgorithmNegotiationError
	var timeout net.Error
	text := err.Error()
	switch {
	case errors.As(err, &changed):
		return HostKeyChanged, changed
	case errors.As(err, &unfit):
		if h.pinned != nil && unfit.What == "host key" {
			return HostKeyChanged, fmt.Errorf("the host has no %s key any more, pinned is %s", h.pinned.Type(), ssh.FingerprintSHA256(h.pinned))
		}
		return HostUnusable, fmt.Errorf("no common SSH algorithm: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		if !c.banner.Load() {
			return NoBanner, errors.New("sshd accepted the connection but sent no banner in time")
		}
		return NoBanner, errors.New("sshd did not finish the handshake in time")
	// The library has no type for a refusal; the test against a real sshd holds
	// these two texts.
	case strings.Contains(text, "unable to authenticate"), strings.Contains(text, "Too many authentication failures"):
		return AuthRefused, fmt.Errorf("sshd does not accept user %s with key %s", h.target.user(), ssh.FingerprintSHA256(h.signer.PublicKey()))
	case !c.banner.Load() && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		return Disconnected, &dropped{said: c.said()}
	default:
		return Disconnected, err
	}
}

// watchedConn knows what the other side says before its banner.
type watchedConn struct {
	net.Conn
	spoken func() error // called once, in the Read that has the beginning of the banner; its error is that of the Read
	banner atomic.Bool

	mu    sync.Mutex
	first []byte // until the banner, at most maxSaid bytes
}

// maxSaid is how much is kept of what is said instead of a banner, in bytes.
const maxSaid = 128

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		// Else the library could send once more after it has told all its channels that
		// the connection is gone, and wait for the answer for ever.
		_ = c.Close()
	}
	if n > 0 && !c.banner.Load() && c.begins(b[:n]) {
		if err := c.spoken(); err != nil {
			return 0, err
		}
	}
	return n, err
}

// begins says whether the banner begins in these bytes, the next ones.
func (c *watchedConn) begins(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = append(c.first, b[:min(len(b), maxSaid-len(c.first))]...)
	if bytes.HasPrefix(c.first, []byte("SSH-")) || bytes.Contains(c.first, []byte("\nSSH-")) || len(c.first) == maxSaid {
		c.banner.Store(true)
		c.first = nil
	}
	return c.banner.Load()
}

// said is the first line of what came instead of a banner.
func (c *watchedConn) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	line, _, _ := strings.Cut(string(c.first), "\n")
	return strings.ToValidUTF8(strings.TrimSpace(line), "?")
}
