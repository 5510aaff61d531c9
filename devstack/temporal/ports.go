package temporal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"

	"go.temporal.io/server/common/primitives"
)

const loopback = "127.0.0.1"

// ports are where the services of one server listen.
type ports struct {
	frontend, history, matching, worker int
	ui                                  int
}

func (p ports) services() map[primitives.ServiceName]int {
	return map[primitives.ServiceName]int{
		primitives.FrontendService: p.frontend,
		primitives.HistoryService:  p.history,
		primitives.MatchingService: p.matching,
		primitives.WorkerService:   p.worker,
	}
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// choosePorts checks the given ports and finds free ones for the rest. The
// check matters: server and UI end the whole process when a port is taken.
func choosePorts(o Options) (ports, error) {
	p := ports{frontend: o.Port, ui: o.UIPort}
	wanted := []struct {
		port *int
		what string
	}{
		{&p.frontend, "the Temporal frontend"}, {&p.history, "Temporal's history service"},
		{&p.matching, "Temporal's matching service"}, {&p.worker, "Temporal's worker service"},
		{&p.ui, "the Temporal web UI"},
	}
	// All are held until all are found, so that no two are the same.
	for _, w := range wanted {
		l, err := listen(*w.port)
		if err != nil {
			return p, fmt.Errorf("port for %s: %w", w.what, err)
		}
		defer l.Close()
		*w.port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

func listen(port int) (net.Listener, error) {
	if port != 0 {
		l, err := net.Listen("tcp", address(port))
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s is in use; stop what listens there, or choose another port", address(port))
		}
		return l, err
	}
	// Not the kernel's choice: those ports are also given to outgoing
	// connections, so one could be gone again before the server takes it.
	const first, count, tries = 15000, 17000, 100
	var last error
	for range tries {
		l, err := net.Listen("tcp", address(first+rand.IntN(count)))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, last
}
