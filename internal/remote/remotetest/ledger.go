package remotetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Entry is one line of a host's ledger.
type Entry struct {
	Time   time.Time
	BootID string // of the boot in which it happened
	What   string // name of the command, or "boot" when the host came up
	Args   string // as given, joined by spaces
}

// Ledger is everything that changed the host since it was made, in order.
func (h *Host) Ledger() ([]Entry, error) {
	b, err := os.ReadFile(h.path("ledger"))
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(fields) != 4 {
			return nil, fmt.Errorf("ledger of host %s: malformed line %q", h.name, line)
		}
		seconds, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, fmt.Errorf("ledger of host %s: %w", h.name, err)
		}
		entries = append(entries, Entry{
			Time:   time.UnixMicro(int64(seconds * 1e6)),
			BootID: fields[1], What: fields[2], Args: strings.TrimSpace(fields[3]),
		})
	}
	return entries, nil
}

// Count is how often the ledger has the command with arguments that begin so.
func (h *Host) Count(what, args string) int {
	entries, err := h.Ledger()
	if err != nil {
		return -1
	}
	n := 0
	for _, e := range entries {
		if e.What == what && strings.HasPrefix(e.Args, args) {
			n++
		}
	}
	return n
}

// OnCommand makes a stand-in run a piece of shell script before it does its
// work: "sleep 3" for a slow one, "echo disk full >&2; exit 1" for one that
// fails, "head -c 100000000 /dev/zero" for one that prints much. The script sees the
// arguments as "$@". Empty script: back to normal.
func (h *Host) OnCommand(command, script string) error {
	if script == "" {
		return os.RemoveAll(h.path("hooks/" + command))
	}
	return h.put("hooks/"+command, script)
}

// Lock makes another process, which is init to tell it from ours, hold the
// package manager until Unlock or a reboot.
func (h *Host) Lock() error { return h.put("lock", "1") }

// Unlock ends what Lock began.
func (h *Host) Unlock() error { return os.RemoveAll(h.path("lock")) }

// HalfConfigure leaves a package behind as a failed dpkg does; "" mends it.
func (h *Host) HalfConfigure(pkg string) error {
	if pkg == "" {
		return os.RemoveAll(h.path("halfway"))
	}
	return h.put("halfway", pkg)
}

// Publish offers a version of a package in the host's repository.
func (h *Host) Publish(pkg, version string) error { return h.put("repo/"+pkg, version) }

// Package is the installed version, "" when it is not installed.
func (h *Host) Package(pkg string) string { return h.get("pkg/" + pkg) }

// PublishOSTree offers a version in the host's OSTree remote.
func (h *Host) PublishOSTree(version string) error {
	if err := h.put("ostree/known", h.get("ostree/known")+"\n"+version); err != nil {
		return err
	}
	return h.put("ostree/remote", version)
}

// Booted is the OSTree version that runs.
func (h *Host) Booted() string { return h.get("ostree/booted") }

// Staged is the OSTree version that the next orderly reboot boots, "" for none.
func (h *Host) Staged() string { return h.get("ostree/staged") }

// UnitActive says whether a unit was started and not stopped since.
func (h *Host) UnitActive(unit string) bool {
	_, err := os.Stat(h.path("units/" + strings.TrimSuffix(unit, ".service") + ".active"))
	return err == nil
}

func (h *Host) get(name string) string {
	b, _ := os.ReadFile(h.path(name))
	return strings.TrimSpace(string(b))
}

// put replaces a file whole, since stand-ins may be reading it.
func (h *Host) put(name, content string) error {
	tmp := h.path(filepath.Dir(name) + "/." + filepath.Base(name))
	if err := os.WriteFile(tmp, []byte(content+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, h.path(name))
}

// note adds a line in the form that the stand-ins use. The caller holds mu.
func (h *Host) note(what, args string) error {
	f, err := os.OpenFile(h.path("ledger"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	now := time.Now()
	_, err = fmt.Fprintf(f, "%d.%09d %s %s %s\n", now.Unix(), now.Nanosecond(), h.bootID(), what, args)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
