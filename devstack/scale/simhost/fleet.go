package simhost

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// Port is the TCP port of every host.
const Port = 2222

// maxHosts is how many addresses there are under one second octet of 127/8.
const maxHosts = perNet * 256

// perNet is how many hosts share the third octet of their addresses.
const perNet = 250

// Options say what a fleet is made of.
type Options struct {
	Hosts int
	// Seed of all that differs between the reboots of hosts.
	Seed uint64
	// Shutdown is how long a host still answers after a reboot was ordered, and
	// Downtime how long its port is closed then. Each reboot takes between half
	// and one and a half of both.
	Shutdown, Downtime time.Duration
}

// Fleet is a set of hosts. Its methods are safe for concurrent use.
type Fleet struct {
	hosts   []*Host
	booking net.Listener // keeps other fleets off the addresses of hosts that are down
	key     string
	public  []byte // the client's key, in SSH's wire format

	wg      sync.WaitGroup // everything that the hosts have running
	mu      sync.Mutex
	unknown []string
	broken  error // the first host that could not come back
}

// Open starts the hosts. The caller closes the fleet.
func Open(o Options) (*Fleet, error) {
	if o.Hosts < 0 || o.Hosts > maxHosts {
		return nil, fmt.Errorf("%d hosts: at most %d can be simulated", o.Hosts, maxHosts)
	}
	// Each host has a listening socket here, and some have a connection.
	var files syscall.Rlimit // Go has raised the soft limit to the hard one
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	if need := uint64(o.Hosts) + 2000; files.Cur < need {
		return nil, fmt.Errorf("%d hosts need %d open files, allowed are %d: raise the limit with ulimit -Hn", o.Hosts, need, files.Cur)
	}
	f := &Fleet{}
	if err := f.makeKey(); err != nil {
		return nil, err
	}
	// Picked at random, so that two fleets on one machine need not know of each
	// other. Fleets of package remotetest are below 127.117.
	const first, count, tries = 120, 130, 20
	var err error
	for range tries {
		if err = f.open(o, first+mathrand.IntN(count)); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// open makes all hosts under one second octet of 127/8, or none.
func (f *Fleet) open(o Options, octet int) (err error) {
	f.hosts = make([]*Host, 0, o.Hosts)
	// Behind the last address that a host can have.
	if f.booking, err = net.Listen("tcp", net.JoinHostPort(fmt.Sprintf("127.%d.255.254", octet), strconv.Itoa(Port))); err != nil {
		return err
	}
	for i := range o.Hosts {
		address := fmt.Sprintf("127.%d.%d.%d", octet, i/perNet, 1+i%perNet)
		h, err := newHost(f, o, address, mathrand.New(mathrand.NewPCG(o.Seed, uint64(i))))
		if err == nil {
			err = h.boot()
		}
		if err != nil {
			f.Close()
			return fmt.Errorf("simulated host %s: %w", address, err)
		}
		f.hosts = append(f.hosts, h)
	}
	return nil
}

// makeKey makes the key pair that opens every host.
func (f *Fleet) makeKey() error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	wire, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	f.key, f.public = string(pem.EncodeToMemory(block)), wire.Marshal()
	return nil
}

// Hosts are in the order of their numbers.
func (f *Fleet) Hosts() []*Host { return f.hosts }

// ClientKey is the private key, in OpenSSH's PEM form, that opens every host
// for every user.
func (f *Fleet) ClientKey() string { return f.key }

// Unknown are the requests that the hosts could not recognise, each once.
func (f *Fleet) Unknown() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.unknown)
}

// Err is why a host could not come back from a reboot, if one could not.
func (f *Fleet) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

// Down is how many hosts are down at this moment.
func (f *Fleet) Down() int {
	n := 0
	for _, h := range f.hosts {
		if downs := h.Downs(); len(downs) > 0 && downs[len(downs)-1].Up.IsZero() {
			n++
		}
	}
	return n
}

// Close switches all hosts off and waits until nothing of them runs.
func (f *Fleet) Close() {
	for _, h := range f.hosts {
		h.close()
	}
	f.wg.Wait()
	_ = f.booking.Close()
}

func (f *Fleet) noteUnknown(what string) {
	const most = 20 // a drift shows in the first few
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.unknown) < most && !slices.Contains(f.unknown, what) {
		f.unknown = append(f.unknown, strings.Clone(what))
	}
}

func (f *Fleet) noteBroken(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		f.broken = err
	}
}
