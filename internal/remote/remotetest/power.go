package remotetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Reboot says how the host reboots when one of its commands asks for it.
type Reboot struct {
	Shutdown     time.Duration // from the request until everything is killed; sshd answers with the old boot id meanwhile. 200 ms when 0
	Downtime     time.Duration // the port is closed that long. 300 ms when 0
	NeverReturns bool          // it stays down until Start
	SameBootID   bool          // it comes back, but was never away as far as its boot id tells
	NewHostKey   bool          // it comes back with another host key
}

// SetReboot changes how the host's reboots go from now on.
func (h *Host) SetReboot(r Reboot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reboot = r
}

// NewHostKey replaces the host's key at once, without a reboot: what a
// reinstalled machine, or one in the middle, looks like.
func (h *Host) NewHostKey(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.endSSHD(); err != nil {
		return err
	}
	if err := writeKey(h.path("host_key")); err != nil {
		return err
	}
	return h.startSSHD(ctx)
}

// supervise waits for the host's own requests to reboot. They come through a
// FIFO, as a real one comes through the kernel. It ends when the FIFO is closed.
func (h *Host) supervise() {
	defer close(h.done)
	requests := bufio.NewScanner(h.power)
	for requests.Scan() {
		if err := h.doReboot(); err != nil {
			h.logf("reboot: %v", err)
		}
	}
}

func (h *Host) doReboot() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sshd == nil || h.stopped {
		return nil // a request that was on its way when the power went
	}
	r := h.reboot
	h.wait(orElse(r.Shutdown, 200*time.Millisecond))
	if h.stopped {
		return nil
	}
	if err := errors.Join(h.halt(), h.finalize()); err != nil {
		return err
	}
	if r.NeverReturns {
		return nil
	}
	h.wait(orElse(r.Downtime, 300*time.Millisecond))
	if h.stopped || h.sshd != nil {
		return nil
	}
	if r.NewHostKey {
		if err := writeKey(h.path("host_key")); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if r.SameBootID {
		return h.startSSHD(ctx)
	}
	return h.boot(ctx)
}

// wait lets others at the host meanwhile. The caller holds mu.
func (h *Host) wait(d time.Duration) {
	h.mu.Unlock()
	defer h.mu.Lock()
	time.Sleep(d)
}

// boot gives the host a new boot id and starts sshd. The caller holds mu.
func (h *Host) boot(ctx context.Context) error {
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.path("boot_id"), id, 0o644); err != nil {
		return err
	}
	// /run is empty after a boot, but for what the boot itself puts there.
	for _, name := range []string{"root/run/reboot-required", "root/run/reboot-required.pkgs", "lock"} {
		if err := os.Remove(h.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	h.boots++
	if err := h.note("boot", ""); err != nil {
		return err
	}
	return h.startSSHD(ctx)
}

// finalize does what an orderly shutdown of an OSTree host does: the staged
// deployment is the one that will boot, the present one is kept to roll back to.
func (h *Host) finalize() error {
	staged, err := os.ReadFile(h.path("ostree/staged"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Rename(h.path("ostree/booted"), h.path("ostree/rollback")); err != nil {
		return err
	}
	if err := os.WriteFile(h.path("ostree/booted"), staged, 0o644); err != nil {
		return err
	}
	return os.Remove(h.path("ostree/staged"))
}

func (h *Host) bootID() string {
	b, _ := os.ReadFile(h.path("boot_id"))
	return strings.TrimSpace(string(b))
}

func (h *Host) logf(format string, args ...any) {
	f, err := os.OpenFile(h.path("sshd.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "supervisor: "+format+"\n", args...)
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
