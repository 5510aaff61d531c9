package simhost

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
)

// Down is a time in which the host was of no use: from the order to reboot
// until it listened again. Up is zero while it is still down. Both have a
// reading of the monotonic clock.
type Down struct{ Start, Up time.Time }

// Host is one simulated machine. Its methods are safe for concurrent use.
type Host struct {
	fleet    *Fleet
	address  string
	key      string // its host key, in authorized_keys form
	config   *ssh.ServerConfig
	shutdown time.Duration
	downtime time.Duration

	mu       sync.Mutex // guards what follows
	random   *mathrand.Rand
	listener net.Listener // nil while it is down
	conns    map[net.Conn]struct{}
	bootID   string
	downs    []Down
	power    *time.Timer // the next change of a reboot under way
	closed   bool
	runs     map[string]*run
}

func newHost(f *Fleet, o Options, address string, random *mathrand.Rand) (*Host, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	h := &Host{
		fleet: f, address: address, random: random, shutdown: o.Shutdown, downtime: o.Downtime,
		key:   strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
		conns: map[net.Conn]struct{}{}, runs: map[string]*run{},
	}
	h.config = &ssh.ServerConfig{ServerVersion: "SSH-2.0-simhost", PublicKeyCallback: h.authorize}
	h.config.AddHostKey(signer)
	return h, nil
}

// Address is the loopback address on which the host listens.
func (h *Host) Address() string { return h.address }

// HostKey is the key that the host presents, in authorized_keys form.
func (h *Host) HostKey() string { return h.key }

// BootID is the id of the present or last boot.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bootID
}

// Facts are what the host says about itself.
func (h *Host) Facts() (fleet.Facts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return hostos.ParseFacts(string(h.facts()))
}

// Downs are the reboots of the host, in order.
func (h *Host) Downs() []Down {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.downs)
}

var errStranger = errors.New("not the key of this fleet")

func (h *Host) authorize(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if !bytes.Equal(key.Marshal(), h.fleet.public) {
		return nil, errStranger
	}
	return nil, nil
}

// boot makes the host listen, with a new boot id.
func (h *Host) boot() error {
	l, err := net.Listen("tcp", net.JoinHostPort(h.address, strconv.Itoa(Port)))
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return l.Close()
	}
	h.listener, h.bootID = l, uuid.NewString()
	if n := len(h.downs); n > 0 {
		h.downs[n-1].Up = time.Now()
	}
	h.fleet.wg.Go(func() { h.accept(l) })
	return nil
}

// reboot begins a reboot, unless one is under way. The caller holds mu.
func (h *Host) reboot() {
	if n := len(h.downs); h.closed || n > 0 && h.downs[n-1].Up.IsZero() {
		return
	}
	h.downs = append(h.downs, Down{Start: time.Now()})
	h.power = time.AfterFunc(h.about(h.shutdown), h.goDown)
}

// about is d with its jitter. The caller holds mu.
func (h *Host) about(d time.Duration) time.Duration {
	return time.Duration((0.5 + h.random.Float64()) * float64(d))
}

func (h *Host) goDown() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.unplug()
	h.power = time.AfterFunc(h.about(h.downtime), func() {
		if err := h.boot(); err != nil {
			h.fleet.noteBroken(fmt.Errorf("simulated host %s did not come back: %w", h.address, err))
		}
	})
}

// unplug closes the port and all connections. The caller holds mu.
func (h *Host) unplug() {
	if h.listener != nil {
		_ = h.listener.Close()
		h.listener = nil
	}
	for c := range h.conns {
		_ = c.Close()
	}
}

func (h *Host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.power != nil {
		h.power.Stop()
	}
	h.unplug()
}

func (h *Host) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // the host went down
		}
		if !h.enter(l, c) {
			_ = c.Close()
			return
		}
		h.fleet.wg.Go(func() {
			h.serve(c)
			h.leave(c)
		})
	}
}

// enter counts a connection among the host's, unless the host went down since.
func (h *Host) enter(l net.Listener, c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener != l {
		return false
	}
	h.conns[c] = struct{}{}
	return true
}

func (h *Host) leave(c net.Conn) {
	_ = c.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}
