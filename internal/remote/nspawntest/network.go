package nspawntest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	bridgeName    = "br0"
	bridgeAddress = "10.77.255.1"
)

// network is a network namespace without a name: it lives as long as this
// process holds the file, or a process runs inside, and so cannot be left over.
type network struct {
	file *os.File
}

// newNetwork makes the namespace, with loopback and an empty bridge.
func newNetwork(ctx context.Context) (*network, error) {
	n := &network{}
	err := elsewhere(
		func() error { return unix.Unshare(unix.CLONE_NEWNET) },
		func() (err error) {
			n.file, err = os.Open(threadNetwork)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", bridgeName, "type", "bridge"},
		{"addr", "add", bridgeAddress + "/16", "dev", bridgeName},
		{"link", "set", bridgeName, "up"},
	} {
		if err := quiet(n.command(ctx, "ip", args...)); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	// While a machine is down, look for it often: the usual second between two
	// ARP requests would be the larger part of the wait for a reboot.
	err = n.inside(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/neigh/"+bridgeName+"/retrans_time_ms", []byte("50"), 0)
	})
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *network) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

func (n *network) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.path(), "--", name}, args...)...)
}

// inside runs f on a thread in the namespace. A socket stays in the namespace in
// which it was made, so what f opens can be used from anywhere afterwards.
func (n *network) inside(f func() error) error {
	return elsewhere(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, f)
}

const threadNetwork = "/proc/thread-self/ns/net"

// elsewhere runs f on a thread that enter has brought into another network
// namespace, and brings the thread back.
func elsewhere(enter, f func() error) error {
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			runtime.LockOSThread()
			home, err := os.Open(threadNetwork)
			if err != nil {
				runtime.UnlockOSThread()
				return err
			}
			defer home.Close()
			if err := enter(); err != nil {
				runtime.UnlockOSThread()
				return fmt.Errorf("enter a network namespace: %w", err)
			}
			err = f()
			if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
				// Still locked, the thread ends with the goroutine rather than
				// give others the wrong network.
				return errors.Join(err, fmt.Errorf("leave a network namespace: %w", back))
			}
			runtime.UnlockOSThread()
			return err
		}()
	}()
	return <-done
}

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := n.inside(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func (n *network) close() error { return n.file.Close() }

// Dial connects from inside the machines' network. Its signature is that of
// [net.Dialer.DialContext]; the address is numeric.
func (ms *Machines) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return ms.net.dial(ctx, network, address)
}

// Command prepares a program that will run in the machines' network, and shares
// everything else with this process.
func (ms *Machines) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return ms.net.command(ctx, name, args...)
}
