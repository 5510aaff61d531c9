package bench

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine is where and with what something was measured.
type Machine struct {
	Date, Commit string
	Cores        int
	CPU, Kernel  string
	MemoryGiB    int
	Versions     []string // of tools, one line each
}

// Describe asks the machine and the tools.
func Describe(ctx context.Context) Machine {
	m := Machine{Date: time.Now().UTC().Format("2006-01-02"), Cores: runtime.NumCPU(), Commit: "unknown", Kernel: said(ctx, "uname", "-sr")}
	if commit := said(ctx, "git", "rev-parse", "--short", "HEAD"); commit != "" {
		m.Commit = commit
		if said(ctx, "git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs") != "" {
			m.Commit += " with changes"
		}
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := regexp.MustCompile(`(?m)^model name\s*: (.+)$`).FindSubmatch(text); found != nil {
			m.CPU = string(found[1])
		}
	}
	if n, err := kib("/proc/meminfo", regexp.MustCompile(`(?m)^MemTotal:\s*(\d+) kB$`)); err == nil {
		m.MemoryGiB = int((n + 1<<29) >> 30)
	}
	m.Versions = append(m.Versions, "Go "+strings.TrimPrefix(runtime.Version(), "go"))
	for _, command := range [][]string{{"ssh", "-V"}, {"parallel-ssh", "--version"}, {"clush", "--version"}, {"ansible", "--version"}, {"xargs", "--version"}} {
		if line := said(ctx, command...); line != "" {
			if command[0] == "parallel-ssh" {
				line = "parallel-ssh " + line // it says its number only
			}
			m.Versions = append(m.Versions, line)
		}
	}
	return m
}

// said is the first line that a command prints, "" if there is none.
func said(ctx context.Context, argv ...string) string {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	return string(line)
}

func (m Machine) String() string {
	return fmt.Sprintf("%d cores (%s), %d GiB, %s; %s", m.Cores, cmp.Or(m.CPU, "unknown"), m.MemoryGiB, m.Kernel, strings.Join(m.Versions, ", "))
}

// watchOthers begins to watch what programs that are not below this process take; busy
// gives how many processors they had since, on average.
func watchOthers() (busy func() (float64, error), err error) {
	read := func() (time.Duration, error) {
		// Below, what is ours; what ends in between counts at whoever waited for it.
		ours, _, err := usage(os.Getpid())
		if err != nil {
			return 0, err
		}
		all, err := machineUsage()
		return all - ours, err
	}
	begin := time.Now()
	before, err := read()
	return func() (float64, error) {
		after, err := read()
		return max(0, (after-before).Seconds()/time.Since(begin).Seconds()), err
	}, err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
