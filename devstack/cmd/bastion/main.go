// Command bastion logs in to many simulated hosts at once through one real sshd with the
// limits that it has as it comes, and counts who was refused, by our errors and by sshd's own
// log. Its last line is for machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"commissaire/devstack/scale/simhost"
	"commissaire/internal/hostos"
	"commissaire/internal/remote"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bastion:", err)
		os.Exit(1)
	}
}

func run() error {
	count := flag.Int("hosts", 2000, "hosts behind the bastion")
	limit := flag.Duration("limit", 5*time.Minute, "how long all may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "bastion-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	hosts, err := simhost.Open(simhost.Options{Hosts: *count, Seed: 1})
	if err != nil {
		return err
	}
	defer hosts.Close()
	machine, err := remotetest.Open(ctx, dir, remotetest.HostConfig{Name: "bastion"})
	if err != nil {
		return err
	}
	defer machine.Close()
	sshd := machine.Hosts()[0]
	if err := asItComes(ctx, sshd); err != nil {
		return err
	}
	via := &remote.Target{
		Address: sshd.Address(), Port: sshd.Port(), User: sshd.User(), HostKey: sshd.HostKey(),
		Key: secret.NewText([]byte(machine.ClientKey())),
	}
	fmt.Printf("%d hosts behind one sshd: MaxStartups 10:30:100, MaxSessions 10, 1024 open files for each of its processes\n", *count)

	begun := time.Now()
	answered, failures := reachAll(ctx, hosts, via)
	took := time.Since(begun)
	for _, err := range failures[:min(len(failures), 5)] {
		fmt.Fprintln(os.Stderr, err)
	}
	log, err := os.ReadFile(filepath.Join(sshd.Dir(), "sshd.log"))
	if err != nil {
		return err
	}
	refused, connections := len(failures), strings.Count(string(log), "Accepted publickey")
	for _, text := range []string{"drop connection", "beginning MaxStartups throttling", "open failed", "Too many open files"} {
		n := strings.Count(string(log), text)
		fmt.Printf("sshd says %q: %d\n", text, n)
		refused += n
	}
	fmt.Printf("bastion: hosts=%d refused=%d connections=%d wall_s=%.1f\n", answered, refused, connections, took.Seconds())
	if refused > 0 || answered != *count {
		return errors.New("somebody was refused")
	}
	return nil
}

// asItComes gives an sshd the limits of one that nobody has configured.
func asItComes(ctx context.Context, h *remotetest.Host) error {
	path := filepath.Join(h.Dir(), "sshd_config")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	config := "LogLevel VERBOSE\n"
	for line := range strings.Lines(string(old)) {
		switch name, _, _ := strings.Cut(line, " "); name {
		case "MaxStartups", "PerSourcePenalties", "LogLevel":
		default:
			config += line
		}
	}
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return err
	}
	if err := h.RestartSSHD(ctx); err != nil {
		return err
	}
	pid, err := os.ReadFile(filepath.Join(h.Dir(), "sshd.pid"))
	if err != nil {
		return err
	}
	// What is inherited here may be more.
	if out, err := exec.CommandContext(ctx, "prlimit", "--pid", strings.TrimSpace(string(pid)), "--nofile=1024:").CombinedOutput(); err != nil {
		return fmt.Errorf("prlimit: %w: %s", err, out)
	}
	return nil
}

// reachAll logs in to all hosts at once, asks each how it is, and keeps all connections until
// the last one has answered.
func reachAll(ctx context.Context, hosts *simhost.Fleet, via *remote.Target) (answered int, failures []error) {
	dialer := remote.NewDialer(remote.Options{HandshakeTimeout: 20 * time.Second, MaxHandshakes: 50}) // as a worker has
	defer dialer.Close()
	var mu sync.Mutex
	var open []*remote.Conn
	var all sync.WaitGroup
	for _, h := range hosts.Hosts() {
		all.Go(func() {
			c, err := dialer.Dial(ctx, remote.Target{
				Address: h.Address(), Port: simhost.Port, HostKey: h.HostKey(),
				Key: secret.NewText([]byte(hosts.ClientKey())), Via: via,
			})
			if err == nil {
				_, err = c.Script(ctx, hostos.PulseScript)
			}
			mu.Lock()
			defer mu.Unlock()
			if c != nil {
				open = append(open, c)
			}
			if err != nil {
				failures = append(failures, err)
				return
			}
			answered++
		})
	}
	all.Wait()
	for _, c := range open {
		all.Go(func() { _ = c.Close() })
	}
	all.Wait()
	return answered, failures
}
