package remote

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"commissaire/internal/remote/remotetest"

	"golang.org/x/crypto/ssh"
)

// BenchmarkFanOut runs one command on 50 sshd hosts at once: with nothing but the SSH
// library, and as a run that happens once only. It says what each costs per host: CPU
// of this process (client-ms), and CPU of the hosts (host-ms) where the benchmark runs
// in a control group of its own (scripts: cgroup.procs, then go test -bench FanOut).
func BenchmarkFanOut(b *testing.B) {
	const hosts = 50
	fleet := remotetest.New(b, hosts)
	dialer := NewDialer(Options{})
	argv := []string{"uname", "-r"}
	n := 0
	for _, way := range []struct {
		name string
		run  func(h *remotetest.Host) error
	}{
		{"bare", func(h *remotetest.Host) error { return bare(fleet, h, strings.Join(argv, " ")) }},
		{"login", func(h *remotetest.Host) error {
			c, err := dialer.Dial(b.Context(), targetOf(fleet, h))
			if err != nil {
				return err
			}
			return c.Close()
		}},
		{"read", func(h *remotetest.Host) error {
			c, err := dialer.Dial(b.Context(), targetOf(fleet, h))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Read(b.Context(), argv)
			return err
		}},
		{"once", func(h *remotetest.Host) error {
			c, err := dialer.Dial(b.Context(), targetOf(fleet, h))
			if err != nil {
				return err
			}
			defer c.Close()
			o, err := c.Once(b.Context(), Command{Key: key(fmt.Sprint("speed", n)), Argv: argv}, 0, &memory{})
			if err == nil && (o.State != Exited || o.ExitCode != 0) {
				err = fmt.Errorf("%+v", o)
			}
			return err
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			mine, all := ownCPU(b), groupCPU(b)
			for b.Loop() {
				n++
				var wg sync.WaitGroup
				for _, h := range fleet.Hosts() {
					wg.Go(func() {
						if err := way.run(h); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
			b.StopTimer()
			time.Sleep(200 * time.Millisecond) // what hosts do behind the answer is theirs, too
			per := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) / hosts }
			mine = ownCPU(b) - mine
			b.ReportMetric(per(mine), "client-ms/host")
			if all > 0 {
				b.ReportMetric(per(groupCPU(b)-all-mine), "host-ms/host")
			}
		})
	}
}

// bare is the same with nothing but the library.
func bare(f *remotetest.Fleet, h *remotetest.Host, command string) error {
	signer, err := ssh.ParsePrivateKey([]byte(f.ClientKey()))
	if err != nil {
		return err
	}
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey()))
	if err != nil {
		return err
	}
	c, err := ssh.Dial("tcp", net.JoinHostPort(h.Address(), strconv.Itoa(h.Port())), &ssh.ClientConfig{
		User: h.User(), Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(pinned),
		HostKeyAlgorithms: []string{pinned.Type()},
	})
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	_, err = s.Output(command)
	return err
}

// ownCPU is the time that this process has used.
func ownCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// groupCPU is the time of the control group that this process is in, 0 when that is
// everybody's.
func groupCPU(b *testing.B) time.Duration {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		b.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) != 3 || parts[2] == "/" {
			continue
		}
		if parts[1] == "" { // version 2
			stat, _ := os.ReadFile(filepath.Join("/sys/fs/cgroup", parts[2], "cpu.stat"))
			var us int64
			if _, err := fmt.Sscanf(string(stat), "usage_usec %d", &us); err == nil {
				return time.Duration(us) * time.Microsecond
			}
		}
		if strings.Contains(parts[1], "cpuacct") {
			usage, _ := os.ReadFile(filepath.Join("/sys/fs/cgroup/cpuacct", parts[2], "cpuacct.usage"))
			if ns, err := strconv.ParseInt(strings.TrimSpace(string(usage)), 10, 64); err == nil {
				return time.Duration(ns)
			}
		}
	}
	return 0
}
