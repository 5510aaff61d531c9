package nspawntest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Run runs a command as root in the machine, past sshd and the network, for a
// test that wants the truth while those are broken. Its environment is a
// machine's, without the test's own proxies and languages. It gives standard
// output.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	init, err := m.init()
	if err != nil {
		return "", err
	}
	args := append([]string{"--target=" + strconv.Itoa(init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s on %s: %w: %s", argv[0], m.name, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// BootID is the machine's boot id, read from outside.
func (m *Machine) BootID() (string, error) {
	init, err := m.init()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/proc/sys/kernel/random/boot_id", init))
	return strings.TrimSpace(string(b)), err
}

// init is the machine's process 1, as seen from here.
func (m *Machine) init() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return 0, fmt.Errorf("machine %s is off", m.name)
	}
	nspawn, err := onlyChild(m.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	return onlyChild(nspawn)
}

func onlyChild(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("the machine is not up yet: process %d has the children %q, not one", pid, b)
	}
	return child, nil
}
