// Package loopback finds ports on 127.0.0.1, where all of the development stack
// listens.
package loopback

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// IP is the one address that the development stack uses.
const IP = "127.0.0.1"

// Address is host:port of a port.
func Address(port int) string { return net.JoinHostPort(IP, strconv.Itoa(port)) }

// bookings is another address of the loopback device. Whoever was given a free port of IP
// listens on the same port of this one until its process ends: a server takes its port
// only later, and may be stopped and started again, and nobody else may have it meanwhile.
const bookings = "127.0.0.2"

// booked keeps the listeners of this process.
var booked struct {
	sync.Mutex
	all []net.Listener
}

// Listen listens on a port, 0 for a free one that no other process is given by this
// package as long as ours runs.
func Listen(port int) (net.Listener, error) {
	if port != 0 {
		l, err := net.Listen("tcp", Address(port))
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s is in use; stop what listens there, or choose another port", Address(port))
		}
		return l, err
	}
	// Not the kernel's choice: those ports are also given to outgoing
	// connections, so one could be gone again before a server takes it.
	const first, count, tries = 15000, 17000, 100
	var last error
	for range tries {
		l, err := book(first + rand.IntN(count))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, last
}

// book listens on a port if nobody has booked it.
func book(port int) (net.Listener, error) {
	b, err := net.Listen("tcp", net.JoinHostPort(bookings, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", Address(port))
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	booked.Lock()
	defer booked.Unlock()
	booked.all = append(booked.all, b)
	return l, nil
}

// Wanted is a port that something is going to listen on.
type Wanted struct {
	Port *int // 0 is replaced by a free one
	What string
}

// Choose checks the given ports and finds free ones for the rest, no two the same.
func Choose(ports ...Wanted) error {
	var errs []error
	for _, w := range ports {
		l, err := Listen(*w.Port)
		if err != nil {
			errs = append(errs, fmt.Errorf("port for %s: %w", w.What, err))
			continue
		}
		defer l.Close()
		*w.Port = l.Addr().(*net.TCPAddr).Port
	}
	return errors.Join(errs...)
}
