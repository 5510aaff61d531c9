package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
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

// Options bound every wait. A zero value means the default.
type Options struct {
	DialTimeout       time.Duration // for TCP to connect; 10 s
	HandshakeTimeout  time.Duration // from TCP to the end of the login; 15 s
	KeepAliveInterval time.Duration // between two probes; 5 s
	KeepAliveMisses   int           // so many intervals without an answer close the connection; 3
	RequestTimeout    time.Duration // for sshd to start a command; 15 s
	MaxHandshakes     int           // handshakes at once over all hosts; 64
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
	if o.KeepAliveMisses <= 0 {
		o.KeepAliveMisses = 3
	}
	if o.MaxHandshakes <= 0 {
		o.MaxHandshakes = 64
	}
	return o
}

// Dialer logs in to hosts. One is shared by the whole process, since the limit
// on handshakes is its.
type Dialer struct {
	opts  Options
	slots chan struct{}
}

// NewDialer makes a Dialer.
func NewDialer(o Options) *Dialer {
	o = o.withDefaults()
	return &Dialer{opts: o, slots: make(chan struct{}, o.MaxHandshakes)}
}

// Dial logs in. The context covers the dial only; the Conn lives until Close or
// until the host does not answer any more.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Conn, error) {
	fail := func(kind Kind, err error) (*Conn, error) {
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("host %s: log in: %w", t.hostPort(), cause)
		}
		return nil, &Error{Kind: kind, Host: t.hostPort(), Err: err}
	}
	signer, err := parseKey(t.Key)
	if err != nil {
		return fail(BadKey, err)
	}
	var pinned ssh.PublicKey
	if t.HostKey != "" {
		if pinned, _, _, _, err = ssh.ParseAuthorizedKey([]byte(t.HostKey)); err != nil {
			return fail(BadKey, fmt.Errorf("pinned host key: %w", err))
		}
	}
	h := &handshake{target: t, pinned: pinned, signer: signer}
	client, kind, err := d.connect(ctx, h)
	if kind == HostKeyChanged && h.presented == nil {
		// The host has no key of the pinned type any more. To name the one it has,
		// look at it, and leave before anything is authenticated.
		look := &handshake{target: t, lookOnly: true}
		if _, _, e := d.connect(ctx, look); look.presented != nil {
			err = mismatch(pinned, look.presented)
		} else {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fail(kind, err)
	}
	return newConn(client, t, h.presented, d.opts), nil
}

// handshake is one attempt to log in and how far it came.
type handshake struct {
	target    Target
	pinned    ssh.PublicKey // nil: any
	signer    ssh.Signer
	lookOnly  bool // stop at the host key
	presented ssh.PublicKey
}

var errLooked = errors.New("only looked at the host key")

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

// connect makes the TCP connection and the handshake on it.
func (d *Dialer) connect(ctx context.Context, h *handshake) (*ssh.Client, Kind, error) {
	dialer := net.Dialer{Timeout: d.opts.DialTimeout}
	tcp, err := dialer.DialContext(ctx, "tcp", h.target.hostPort())
	if err != nil {
		return nil, Unreachable, fmt.Errorf("connect: %w", err)
	}
	// Taken only now, so that a thousand hosts that are switched off do not keep
	// the others waiting.
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		_ = tcp.Close()
		return nil, Unreachable, context.Cause(ctx)
	}
	watched := &watchedConn{Conn: tcp}
	// A stopped sshd accepts and then says nothing, for ever.
	deadline := time.Now().Add(d.opts.HandshakeTimeout)
	if err := watched.SetDeadline(deadline); err != nil {
		_ = tcp.Close()
		return nil, Unreachable, err
	}
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	defer stop()
	conn, channels, requests, err := ssh.NewClientConn(watched, h.target.hostPort(), h.config())
	if err != nil {
		_ = tcp.Close()
		kind, err := classify(err, h, watched.heard.Load())
		return nil, kind, err
	}
	if err := watched.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, Disconnected, err
	}
	return ssh.NewClient(conn, channels, requests), "", nil
}

// classify finds the kind of a failed handshake.
func classify(err error, h *handshake, heard bool) (Kind, error) {
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
		if !heard {
			return NoBanner, errors.New("sshd accepted the connection but sent no banner in time")
		}
		return NoBanner, errors.New("sshd did not finish the handshake in time")
	// The library has no type for a refusal; the test against a real sshd holds
	// these two texts.
	case strings.Contains(text, "unable to authenticate"), strings.Contains(text, "Too many authentication failures"):
		return AuthRefused, fmt.Errorf("sshd does not accept user %s with key %s", h.target.user(), ssh.FingerprintSHA256(h.signer.PublicKey()))
	case !heard && errors.Is(err, io.EOF):
		return Disconnected, errors.New("sshd closed the connection before its banner; it may limit connections (MaxStartups, PerSourcePenalties)")
	default:
		return Disconnected, err
	}
}

// watchedConn knows whether the other side has said anything yet.
type watchedConn struct {
	net.Conn
	heard atomic.Bool
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}
