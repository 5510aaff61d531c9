package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of the times in /proc on Linux (USER_HZ): 100 a second.
const clockTick = time.Second / 100

// process is a line of proc_pid_stat(5).
type process struct {
	pid, parent int
	state       byte          // Z: ended, and nobody has waited for it
	used        time.Duration // of processors, with its children that were waited for
}

// parseStat reads /proc/<pid>/stat.
func parseStat(text string) (p process, err error) {
	// The name stands in parentheses and may hold anything, these included.
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return p, fmt.Errorf("stat %q: %w", text, syscall.EINVAL)
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(text[:open])); err != nil {
		return p, err
	}
	const state, parent, utime, stime, cutime, cstime = 0, 1, 11, 12, 13, 14
	fields := strings.Fields(text[end+1:])
	if len(fields) <= cstime {
		return p, fmt.Errorf("stat %q: %w", text, syscall.EINVAL)
	}
	p.state = fields[state][0]
	if p.parent, err = strconv.Atoi(fields[parent]); err != nil {
		return p, err
	}
	for _, i := range []int{utime, stime, cutime, cstime} {
		ticks, err := strconv.Atoi(fields[i])
		if err != nil {
			return p, err
		}
		p.used += time.Duration(ticks) * clockTick
	}
	return p, nil
}

// processes are all of this machine, by their ids.
func processes() (map[int]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := make(map[int]process, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		p, err := parseStat(string(text))
		if err != nil {
			return nil, err
		}
		all[p.pid] = p
	}
	return all, nil
}

// tree gives a process and all that come from it.
func tree(all map[int]process, root int) (found []process) {
	for _, p := range all {
		for up := p; ; {
			if up.pid == root {
				found = append(found, p)
				break
			}
			next, ok := all[up.parent]
			if !ok || next.pid == up.pid {
				break
			}
			up = next
		}
	}
	return found
}

// usage is what a process and all that come from it have used of processors, those
// that have ended included, and how many there are. What ended in the tree is counted
// once: with whoever waited for it, or by itself until then.
func usage(root int) (used time.Duration, count int, err error) {
	all, err := processes()
	if err != nil {
		return 0, 0, err
	}
	found := tree(all, root)
	if len(found) == 0 {
		return 0, 0, fmt.Errorf("process %d: %w", root, syscall.ESRCH)
	}
	for _, p := range found {
		used += p.used
	}
	return used, len(found), nil
}

// selfUsage is what this process has used, without its children.
func selfUsage() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// machineUsage is how long the processors of this machine have been at work for
// anybody, since it started.
func machineUsage() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachine(string(text))
}

// parseMachine reads the first line of proc_stat(5): user, nice, system, idle,
// iowait, irq, softirq, steal; what follows is contained in these.
func parseMachine(text string) (busy time.Duration, err error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat %q: %w", line, syscall.EINVAL)
	}
	for i, field := range fields[1:9] {
		const idle, iowait = 3, 4
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		if i != idle && i != iowait {
			busy += time.Duration(ticks) * clockTick
		}
	}
	return busy, nil
}

var (
	highWater = regexp.MustCompile(`(?m)^VmHWM:\s*(\d+) kB$`)
	share     = regexp.MustCompile(`(?m)^Pss:\s*(\d+) kB$`)
)

// kib reads a value of a file under /proc and gives it in bytes.
func kib(path string, value *regexp.Regexp) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	m := value.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%s has no %s", path, bytes.Trim([]byte(value.String()[len("(?m)^"):]), "$"))
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10, err
}

// peakMemory is the largest resident memory that a process has had, in bytes.
func peakMemory(pid int) (int64, error) {
	return kib(fmt.Sprintf("/proc/%d/status", pid), highWater)
}

// memory is what a process and all that come from it hold, in bytes. Memory that
// several share, as the processes of Postgres do, is counted once.
func memory(root int) (sum int64, err error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	for _, p := range tree(all, root) {
		if p.state == 'Z' {
			continue
		}
		n, err := kib(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid), share)
		switch {
		case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH):
			continue // it has ended
		case err != nil:
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
