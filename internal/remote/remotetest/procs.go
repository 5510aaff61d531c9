package remotetest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killAll kills what find finds until it finds nothing twice: a process may fork
// between being found and being killed, or end in a search that passes by its child.
func killAll(find func() []int) error {
	deadline := time.Now().Add(patience)
	for nothing := 0; nothing < 2; {
		pids := find()
		if nothing++; len(pids) > 0 {
			nothing = 0
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// marked are the living processes that were started with this in their environment.
func marked(mark string) []int {
	return processes(func(pid string) bool {
		b, err := os.ReadFile("/proc/" + pid + "/environ")
		return err == nil && slices.ContainsFunc(bytes.Split(b, []byte{0}), func(v []byte) bool { return string(v) == mark })
	})
}

// descendants are the living processes below a process.
func descendants(root int) []int {
	parent := map[int]int{}
	all := processes(func(pid string) bool {
		state, ppid := processStat(pid)
		n, _ := strconv.Atoi(pid)
		parent[n] = ppid
		return state != "" && state != "Z"
	})
	return slices.DeleteFunc(all, func(pid int) bool {
		for p := parent[pid]; p > 1; p = parent[p] {
			if p == root {
				return false
			}
		}
		return true
	})
}

func processes(keep func(pid string) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n != os.Getpid() && keep(e.Name()) {
			pids = append(pids, n)
		}
	}
	return pids
}

func processStat(pid string) (state string, ppid int) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", 0
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 2 {
		return "", 0
	}
	ppid, _ = strconv.Atoi(fields[1])
	return fields[0], ppid
}

func processName(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return strings.TrimSpace(string(b))
}
