package nspawntest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"commissaire/internal/remote/nspawntest"

	"github.com/stretchr/testify/require"
)

// leftovers lists what exists of the machines that process pid made: folders,
// control groups, mounts in anyone's namespace, processes in a group of theirs or
// in their network.
func leftovers(t *testing.T, pid int, network string) []string {
	t.Helper()
	mark := fmt.Sprintf("cmsr-%d-", pid)
	var found []string
	for _, pattern := range []string{filepath.Join(os.TempDir(), mark+"*"), "/sys/fs/cgroup/" + mark + "*", "/sys/fs/cgroup/*/" + mark + "*"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		found = append(found, paths...)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, p := range processes {
		if stat, err := os.ReadFile(p + "/stat"); err != nil || strings.Contains(string(stat), ") Z ") {
			continue // it has ended; its parent has yet to take notice
		}
		for _, file := range []string{"cgroup", "mountinfo"} {
			if b, err := os.ReadFile(filepath.Join(p, file)); err == nil && strings.Contains(string(b), mark) {
				found = append(found, p+"/"+file)
			}
		}
		holds, _ := filepath.Glob(p + "/fd/*")
		for _, link := range append(holds, p+"/ns/net") {
			if to, err := os.Readlink(link); err == nil && to == network {
				found = append(found, link)
			}
		}
	}
	return found
}

// networkOf names the machines' network namespace as the kernel does.
func networkOf(ctx context.Context, ms *nspawntest.Machines) (string, error) {
	out, err := ms.Command(ctx, "readlink", "/proc/self/ns/net").Output()
	return strings.TrimSpace(string(out)), err
}

func TestNothingIsLeft(t *testing.T) {
	var network string
	t.Run("machines", func(t *testing.T) {
		_, authorized := newKey(t)
		ms := nspawntest.Start(t, 2, authorized)
		var err error
		network, err = networkOf(t.Context(), ms)
		require.NoError(t, err)
		require.NotEmpty(t, leftovers(t, os.Getpid(), network), "the search finds what is there")
		// The worst case to clean up after.
		require.NoError(t, ms.All()[1].Freeze(t.Context()))
	})
	if network == "" {
		t.SkipNow() // the subtest has said why
	}
	require.Empty(t, leftovers(t, os.Getpid(), network))
}

// A test that is killed takes its machines along at once; the rest goes with the
// next start.
func TestKilledTest(t *testing.T) {
	const child = "NSPAWNTEST_KILLED_CHILD"
	if os.Getenv(child) != "" {
		_, authorized := newKey(t)
		ms := nspawntest.Start(t, 1, authorized)
		network, err := networkOf(t.Context(), ms)
		require.NoError(t, err)
		fmt.Println("network", network)
		select {}
	}
	if err := nspawntest.Available(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledTest$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), child+"=1")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	network := ""
	for network == "" && lines.Scan() {
		network, _ = strings.CutPrefix(lines.Text(), "network ")
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.NotEmpty(t, network)

	require.Eventually(t, func() bool {
		for _, left := range leftovers(t, cmd.Process.Pid, network) {
			if strings.HasPrefix(left, "/proc/") {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "its processes, mounts and network")

	ms, err := nspawntest.Open(t.Context(), nspawntest.Options{})
	require.NoError(t, err)
	require.NoError(t, ms.Close())
	require.Empty(t, leftovers(t, cmd.Process.Pid, network))
}
