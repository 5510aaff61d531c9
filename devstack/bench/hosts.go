package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// hostEntry is a host that runs in another process.
type hostEntry struct {
	Address, User, HostKey string
	Port                   int
}

// site is the hosts of a comparison.
type site struct {
	Hosts []hostEntry
	Key   string // the private key that opens all of them, in OpenSSH's PEM form
}

// ServeHosts runs sshd hosts until ctx ends. It writes what a client needs to know to
// a file once all of them answer.
func ServeHosts(ctx context.Context, dir, file string, count int) (err error) {
	var configs []remotetest.HostConfig
	for i := range count {
		configs = append(configs, remotetest.HostConfig{Name: fmt.Sprintf("h%d", i+1)})
	}
	fleet, err := remotetest.Open(ctx, dir, configs...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	s := site{Key: fleet.ClientKey()}
	for _, h := range fleet.Hosts() {
		s.Hosts = append(s.Hosts, hostEntry{Address: h.Address(), User: h.User(), HostKey: h.HostKey(), Port: h.Port()})
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// sshHosts are real sshd hosts below a process of their own, so that what they use of
// processors can be told from all else.
type sshHosts struct {
	site
	keeper *keeper
	ended  chan struct{} // closed when they have
	quiet  int           // processes while nobody is logged in
}

func startHosts(ctx context.Context, dir string, count int) (_ *sshHosts, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &sshHosts{ended: make(chan struct{})}
	if h.keeper, err = startKeeper(); err != nil {
		return nil, err
	}
	file, log := filepath.Join(dir, "hosts.json"), filepath.Join(dir, "hosts.log")
	go func() {
		defer close(h.ended)
		const forever = 24 * time.Hour
		argv := []string{self, RoleHosts, filepath.Join(dir, "hosts"), file, fmt.Sprint(count)}
		_, _ = h.keeper.do(ctx, task{Argv: argv, Env: os.Environ(), Out: log, Limit: forever}) // why it ended is in the log
	}()
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	err = harness.Until(ctx, readyLimit, "the hosts to answer", func() (bool, error) {
		select {
		case <-h.ended:
			said, err := os.ReadFile(log)
			return false, errors.Join(fmt.Errorf("the hosts ended: %s", said), err)
		default:
		}
		_, err := os.Stat(file)
		return err == nil, nil
	})
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &h.site); err != nil {
		return nil, err
	}
	_, h.quiet, err = usage(h.keeper.pid())
	return h, err
}

// free waits until nobody is logged in on any host: who comes next has to.
func (h *sshHosts) free(ctx context.Context) error {
	const limit = time.Minute
	return harness.Until(ctx, limit, "all connections to the hosts to end", func() (bool, error) {
		_, count, err := usage(h.keeper.pid())
		return count <= h.quiet, err
	})
}

// settle waits until the hosts use no processors any more, and gives what they have used
// so far: sshd goes on for a moment after its client has gone.
func (h *sshHosts) settle(ctx context.Context) (used time.Duration, err error) {
	const limit, still = 3 * time.Second, 3 // readings
	same, begin := 0, time.Now()
	for same < still && time.Since(begin) < limit {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		now, _, err := usage(h.keeper.pid())
		if err != nil {
			return 0, err
		}
		if same++; now != used {
			used, same = now, 0
		}
	}
	return used, nil
}

func (h *sshHosts) close() error {
	_ = h.keeper.in.Close()
	<-h.ended
	return h.keeper.cmd.Wait()
}
