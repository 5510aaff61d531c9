package nspawntest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// rebootStatus is nspawn's exit status when the machine asked for a reboot and
// --keep-unit leaves that to the caller.
const rebootStatus = 133

//go:embed boot.sh
var bootScript string

// Machine is one systemd machine. Its methods are safe for concurrent use.
type Machine struct {
	name    string
	address string
	hostKey string
	dir     string
	base    string
	image   bool // boots OSTree deployments, not the base
	group   group
	net     *network

	mu    sync.Mutex
	on    bool          // the power switch: boot again after a reboot
	off   chan struct{} // closed while no boot loop runs
	cmd   *exec.Cmd     // unshare, whose child is nspawn; nil between boots
	boots int
}

// Name is the machine's host name: h1, h2 …
func (m *Machine) Name() string { return m.name }

// Address is the machine's IP address, reachable with [Machines.Dial] only. sshd
// listens on port 22.
func (m *Machine) Address() string { return m.address }

// HostKey is the machine's SSH host key in authorized_keys form.
func (m *Machine) HostKey() string { return m.hostKey }

// Reboots counts how often the machine came up again after its first boot.
func (m *Machine) Reboots() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, m.boots-1)
}

// Console is what the machine has printed on its console since it was made: the
// place to look when one does not come up.
func (m *Machine) Console() string {
	b, err := os.ReadFile(m.path("console.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Start switches the machine on and waits until sshd answers. It only waits when
// the machine is on already.
func (m *Machine) Start(ctx context.Context) error {
	m.mu.Lock()
	if closed(m.off) {
		m.on, m.off = true, make(chan struct{})
		go m.run(m.off)
	}
	off := m.off
	m.mu.Unlock()
	return m.waitSSH(ctx, off)
}

// PowerCut ends every process of the machine between two instructions. What it
// had written to its disk stays.
func (m *Machine) PowerCut() error {
	m.mu.Lock()
	m.on = false
	var err error
	if m.cmd != nil {
		// By its own id too: it may not have reached its group yet.
		err = m.cmd.Process.Kill()
		if errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
		err = errors.Join(err, m.group.kill())
	}
	off := m.off
	m.mu.Unlock()
	<-off // run has a deadline of its own
	return err
}

// PowerOff shuts the machine down in order.
func (m *Machine) PowerOff(ctx context.Context) error {
	m.mu.Lock()
	m.on = false
	var err error
	if m.cmd != nil {
		var nspawn int
		if nspawn, err = onlyChild(m.cmd.Process.Pid); err == nil {
			err = syscall.Kill(nspawn, syscall.SIGTERM) // passed on as a request to halt
		}
	}
	off := m.off
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("power off %s: %w", m.name, err)
	}
	select {
	case <-off:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("power off %s: it is still on: %w", m.name, ctx.Err())
	}
}

// run is the machine's firmware: it boots again whenever the machine rebooted.
func (m *Machine) run(off chan struct{}) {
	defer close(off)
	// The kernel ends the machine when the thread that started it ends: that is
	// when the whole program does, as long as this goroutine keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		status, err := m.boot()
		if err != nil {
			m.note("cannot boot: %v", err)
			return
		}
		m.note("nspawn ended with status %d", status)
		if status != rebootStatus {
			return
		}
	}
}

// boot is one life of the machine, until it reboots or goes off.
func (m *Machine) boot() (status int, err error) {
	if err := m.group.create(); err != nil {
		return 0, err
	}
	console, err := m.openConsole()
	if err != nil {
		return 0, err
	}
	defer console.Close()
	script := []string{bootScript, "boot", m.dir, m.base, m.name, bridgeName}
	if m.image {
		script = []string{bootImageScript, "boot", m.dir, m.name, bridgeName}
	}
	args := slices.Concat([]string{"--mount", "--propagation=private", "--pid", "--mount-proc", "--fork", "--kill-child", "/bin/sh", "-c"}, script, m.group.dirs())
	cmd := m.net.command(context.Background(), "unshare", args...)
	cmd.Stdout, cmd.Stderr = console, console
	// The machine's processes, nspawn's too, are in a process namespace that the
	// kernel ends with unshare, and unshare with this program. A session of its
	// own: an interrupt from the terminal is for the test.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}

	m.mu.Lock()
	started := m.on
	if started {
		if err = cmd.Start(); err == nil {
			m.cmd = cmd
			m.boots++
		}
	}
	m.mu.Unlock()
	if started && err == nil {
		_ = cmd.Wait() // the status says it all
		status = cmd.ProcessState.ExitCode()
		m.mu.Lock()
		m.cmd = nil
		m.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return status, errors.Join(err, m.group.remove(ctx))
}

func (m *Machine) waitSSH(ctx context.Context, off <-chan struct{}) error {
	for {
		err := m.banner(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-off:
			return fmt.Errorf("machine %s went off while it booted; end of its console:\n%s", m.name, tail(m.Console()))
		case <-ctx.Done():
			return fmt.Errorf("machine %s does not answer SSH: %w; end of its console:\n%s", m.name, errors.Join(ctx.Err(), err), tail(m.Console()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// banner connects to sshd and reads the first bytes that it sends.
func (m *Machine) banner(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	c, err := m.net.dial(ctx, "tcp", net.JoinHostPort(m.address, "22"))
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "SSH-" {
		return fmt.Errorf("%q is no SSH banner", b)
	}
	return nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *Machine) openConsole() (*os.File, error) {
	return os.OpenFile(m.path("console.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// note adds a line of ours to the console log.
func (m *Machine) note(format string, args ...any) {
	f, err := m.openConsole()
	if err != nil {
		return // the folder is gone, and with it the reader
	}
	defer f.Close()
	fmt.Fprintf(f, "[nspawntest] "+format+"\n", args...)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tail is the last 30 lines of s.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
