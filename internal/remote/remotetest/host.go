package remotetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// HostConfig says what a host is when it is made; a host that exists already
// keeps what it has.
type HostConfig struct {
	Name string // folder name within the fleet
	OS   OS     // Debian 12 when empty
}

// OS is what the host says it runs.
type OS struct {
	ID, VersionID string // as in os-release(5)
	OSTree        bool   // /run/ostree-booted exists, and there is rpm-ostree
	Bootc         bool   // booted from a container image
}

// patience is for what ends at once but on a machine that is busy.
const patience = 2 * time.Minute

// Host is one sshd with a folder of its own. Its methods are safe for
// concurrent use.
type Host struct {
	dir     string
	name    string
	address string
	port    int

	commands []string // stand-ins that only its system has

	mu       sync.Mutex // guards what follows, held through power changes
	sshd     *exec.Cmd
	reboot   Reboot
	boots    int
	stopped  bool // the supervisor must not bring it back
	ends     chan struct{}
	power    *os.File
	done     chan struct{} // closed when the supervisor has ended
	stopOnce sync.Once
}

// Name is the host's folder name in the fleet.
func (h *Host) Name() string { return h.name }

// Address is the loopback address on which sshd listens.
func (h *Host) Address() string { return h.address }

// Port is sshd's TCP port.
func (h *Host) Port() int { return h.port }

// Dir is the host's folder; StateDir, hooks and ledger are below it.
func (h *Host) Dir() string { return h.dir }

// StateDir is COMMISSAIRE_STATE_DIR of the host.
func (h *Host) StateDir() string { return filepath.Join(h.dir, "var/lib/commissaire") }

// User is who may log in: whoever runs this program, since an sshd without
// root can give sessions to no one else.
func (h *Host) User() string {
	u, err := user.Current()
	if err != nil {
		return "root"
	}
	return u.Username
}

// HostKey is the key that the host presents now, in authorized_keys form.
func (h *Host) HostKey() string {
	key, err := publicKey(h.path("host_key"))
	if err != nil {
		return ""
	}
	return key
}

// BootID is what the host's kernel would answer now.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bootID()
}

// Reboots counts how often the host came up with a new boot after the first one.
func (h *Host) Reboots() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, h.boots-1)
}

// Start switches the host on: a new boot. It returns when sshd listens, and does
// nothing when the host is on already.
func (h *Host) Start(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sshd != nil {
		return nil
	}
	h.stopped = false
	return h.boot(ctx)
}

// Stop shuts the host down in order: what is staged becomes what will be booted.
func (h *Host) Stop() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	return errors.Join(h.halt(), h.finalize())
}

// Kill cuts the power: every process dies at once and a staged deployment is
// lost, as it is on a real OSTree host.
func (h *Host) Kill() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	err := h.halt()
	if e := os.Remove(h.path("ostree/staged")); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// RestartSSHD ends and starts the listening sshd, as an update of the package
// does: open connections, running commands and the boot id stay.
func (h *Host) RestartSSHD(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sshd == nil {
		return fmt.Errorf("host %s is off", h.name)
	}
	if err := h.endSSHD(); err != nil {
		return err
	}
	return h.startSSHD(ctx)
}

// Refuse closes the port while everything else of the host goes on.
func (h *Host) Refuse() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sshd == nil {
		return nil
	}
	return h.endSSHD()
}

// Accept undoes Refuse.
func (h *Host) Accept(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sshd != nil {
		return nil
	}
	return h.startSSHD(ctx)
}

// Hang stops sshd with SIGSTOP: the kernel still accepts TCP connections, but no
// banner ever comes.
func (h *Host) Hang() error { return h.signal(syscall.SIGSTOP) }

// Unhang lets a hung sshd go on.
func (h *Host) Unhang() error { return h.signal(syscall.SIGCONT) }

func (h *Host) signal(s syscall.Signal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sshd == nil {
		return fmt.Errorf("host %s is off", h.name)
	}
	return h.sshd.Process.Signal(s)
}

func (h *Host) path(name string) string { return filepath.Join(h.dir, name) }

// startSSHD returns when sshd listens. The caller holds mu.
func (h *Host) startSSHD(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		log := h.logSize()
		err := h.tryStartSSHD(ctx)
		if err == nil || !h.addressInUse(log) {
			return err
		}
		// A process of the one before, forked for a connection, has yet to close the
		// socket on which it listened.
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (h *Host) logSize() int64 {
	info, err := os.Stat(h.path("sshd.log"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// addressInUse says whether sshd has written so since its log was of that size.
func (h *Host) addressInUse(since int64) bool {
	log, err := os.ReadFile(h.path("sshd.log"))
	return err == nil && bytes.Contains(log[min(since, int64(len(log))):], []byte("Address already in use"))
}

func (h *Host) tryStartSSHD(ctx context.Context) error {
	pidFile := h.path("sshd.pid")
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	cmd := exec.Command(sshdPath, "-D", "-f", h.path("sshd_config"), "-E", h.path("sshd.log"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.sshd = cmd
	ended := make(chan error, 1)
	h.ends = make(chan struct{})
	go func(ends chan struct{}) {
		ended <- cmd.Wait()
		close(ends)
	}(h.ends)
	for {
		// sshd writes the file once it listens, so no probing connection is needed.
		if b, err := os.ReadFile(pidFile); err == nil && len(b) > 1 && b[len(b)-1] == '\n' {
			return nil
		}
		select {
		case err := <-ended:
			h.sshd = nil
			log, _ := os.ReadFile(h.path("sshd.log"))
			return fmt.Errorf("sshd of host %s did not start: %w: %s", h.name, err, log)
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("sshd of host %s: %w", h.name, ctx.Err()), h.endSSHD())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// endSSHD kills the listening sshd only. The caller holds mu.
func (h *Host) endSSHD() error {
	if h.sshd == nil {
		return nil
	}
	err := h.sshd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-h.ends
	h.sshd = nil
	// Soon another process may have its number, and the keeper would take that for it.
	if e := os.Remove(h.path("sshd.pid")); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// halt kills every process of the host. The caller holds mu.
func (h *Host) halt() error {
	if h.sshd != nil {
		// Stopped first, so that it starts no session while the others are killed.
		_ = h.sshd.Process.Signal(syscall.SIGSTOP)
		if err := killAll(func() []int { return descendants(h.sshd.Process.Pid) }); err != nil {
			return err
		}
	}
	err := h.endSSHD()
	return errors.Join(err, killAll(func() []int { return marked("FLEET_HOST=" + h.dir) }))
}

// killLeftovers ends what an earlier program with this folder left running.
func (h *Host) killLeftovers() error {
	b, err := os.ReadFile(h.path("sshd.pid"))
	if err == nil {
		pid, err := strconv.Atoi(string(b[:max(0, len(b)-1)]))
		if err == nil && processName(pid) == "sshd" {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return killAll(func() []int { return marked("FLEET_HOST=" + h.dir) })
}

func (h *Host) close() error {
	err := h.Stop()
	h.stopOnce.Do(func() {
		err = errors.Join(err, h.power.Close())
		<-h.done
	})
	return err
}
