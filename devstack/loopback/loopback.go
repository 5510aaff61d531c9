// Package loopback finds ports on 127.0.0.1, where all of the development stack
// listens.
package loopback

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// IP is the one address that the development stack uses.
const IP = "127.0.0.1"

// Address is host:port of a port.
func Address(port int) string { return net.JoinHostPort(IP, strconv.Itoa(port)) }

// Listen listens on a port, 0 for a free one.
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
		l, err := net.Listen("tcp", Address(first+rand.IntN(count)))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, last
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
