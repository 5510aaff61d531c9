package nspawntest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"commissaire/internal/remote"
	"commissaire/internal/remote/nspawntest"
	"commissaire/internal/secret"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// patience is for what comes soon but on a busy machine.
const patience = 3 * time.Minute

// rig is the product's transport with real machines behind it.
type rig struct {
	ms     *nspawntest.Machines
	dialer *remote.Dialer
	key    secret.Text
}

func newRig(t *testing.T, n int) *rig {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	return &rig{
		ms:     nspawntest.Start(t, n, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))),
		dialer: remote.NewDialer(remote.Options{HandshakeTimeout: 15 * time.Second, RequestTimeout: 15 * time.Second}),
		key:    secret.NewText(pem.EncodeToMemory(block)),
	}
}

// target is how the product logs in to m.
func (r *rig) target(t *testing.T, m *nspawntest.Machine, user string) remote.Target {
	t.Helper()
	address, err := r.ms.Forward(m)
	require.NoError(t, err)
	return remote.Target{Address: address.IP.String(), Port: address.Port, User: user, Key: r.key, HostKey: m.HostKey()}
}

// dial logs in, trying until the machine is up.
func (r *rig) dial(t *testing.T, target remote.Target) *remote.Conn {
	t.Helper()
	var c *remote.Conn
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var err error
		c, err = r.dialer.Dial(ctx, target)
		require.NoError(t, err)
	}, patience, 20*time.Millisecond)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func step(name, script string) remote.Command {
	return remote.Command{
		Key:  remote.Key{Operation: "0198-nspawn", Host: "h", Step: name, Attempt: 1},
		Argv: []string{"sh", "-c", script},
	}
}

// output is a Sink that keeps what it is given.
type output struct {
	mu    sync.Mutex
	bytes []byte
}

func (o *output) Output(offset int64, data []byte) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset != int64(len(o.bytes)) {
		return 0, fmt.Errorf("offset %d, have %d bytes", offset, len(o.bytes))
	}
	o.bytes = append(o.bytes, data...)
	return int64(len(o.bytes)), nil
}

func (o *output) Alive() {}

func (o *output) size() int64 { o.mu.Lock(); defer o.mu.Unlock(); return int64(len(o.bytes)) }

func (o *output) String() string { o.mu.Lock(); defer o.mu.Unlock(); return string(o.bytes) }

// units are the systemd units of runs on m, those that failed included.
func units(t *testing.T, m *nspawntest.Machine) string {
	t.Helper()
	out, err := m.Run(t.Context(), "systemctl", "list-units", "--all", "--no-legend", "--plain", "commissaire-*")
	require.NoError(t, err)
	return out
}

func noUnits(t *testing.T, m *nspawntest.Machine) {
	t.Helper()
	require.Eventually(t, func() bool { return units(t, m) == "" }, patience, 10*time.Millisecond, "units of runs that have ended")
}

func TestOnce(t *testing.T) {
	r := newRig(t, 4)
	m := r.ms.All()
	t.Run("unit", func(t *testing.T) { t.Parallel(); testUnit(t, r, m[0]) })
	t.Run("connections", func(t *testing.T) { t.Parallel(); testConnections(t, r, m[1]) })
	t.Run("interrupted", func(t *testing.T) { t.Parallel(); testInterrupted(t, r, m[2]) })
	t.Run("reboot", func(t *testing.T) { t.Parallel(); testReboot(t, r, m[3]) })
}

// A run is a systemd unit of its own, for root and through sudo alike, and no
// trace of the unit stays, not even of a run that failed.
func testUnit(t *testing.T, r *rig, m *nspawntest.Machine) {
	for _, user := range []string{"root", "ops"} {
		c := r.dial(t, r.target(t, m, user))
		var out output
		o, err := c.Once(t.Context(), step("unit-"+user, "id -un; cat /proc/self/cgroup; exit 7"), 0, &out)
		require.NoError(t, err)
		require.Equal(t, remote.Exited, o.State)
		require.Equal(t, 7, o.ExitCode)
		require.True(t, strings.HasPrefix(out.String(), "root\n"), out.String())
		require.Regexp(t, `/system\.slice/commissaire-[0-9a-f]+\.service\n`, out.String())
		noUnits(t, m)
	}
	c := r.dial(t, r.target(t, m, "nosudo"))
	_, err := c.Once(t.Context(), step("refused", "touch /ran"), 0, &output{})
	require.Equal(t, remote.SudoRefused, remote.KindOf(err), err)
	_, err = m.Run(t.Context(), "test", "!", "-e", "/ran")
	require.NoError(t, err)
}

// Whatever happens to sshd and to connections, the run goes on and its output
// arrives whole.
func testConnections(t *testing.T, r *rig, m *nspawntest.Machine) {
	target := r.target(t, m, "ops")
	cmd := step("long", `echo ran >> /var/lib/ledger; i=0; until [ -e /var/lib/enough ]; do echo line $i; i=$((i+1)); sleep 0.1; done`)
	run := func(argv ...string) error { _, err := m.Run(t.Context(), argv...); return err }
	breaks := []func() error{
		func() error { return m.ResetConnections(t.Context()) },
		// Ends no open session by itself.
		func() error { return errors.Join(run("systemctl", "restart", "ssh"), m.ResetConnections(t.Context())) },
		// What logind does to those whose processes may not outlive their session.
		func() error { return run("loginctl", "terminate-user", "ops") },
		func() error { return errors.Join(m.ResetConnections(t.Context()), run("touch", "/var/lib/enough")) },
	}
	var out output
	var o remote.Outcome
	for {
		c := r.dial(t, target)
		type ending struct {
			outcome remote.Outcome
			err     error
		}
		ended := make(chan ending, 1)
		from := out.size()
		go func() {
			o, err := c.Once(t.Context(), cmd, from, &out)
			ended <- ending{o, err}
		}()
		if len(breaks) > 0 {
			require.Eventually(t, func() bool { return out.size() > from }, patience, 5*time.Millisecond)
			require.NoError(t, breaks[0]())
			breaks = breaks[1:]
		}
		e := <-ended
		if e.err == nil {
			o = e.outcome
			break
		}
		require.Equal(t, remote.Lost, remote.KindOf(e.err), e.err)
	}
	require.Empty(t, breaks)
	require.Equal(t, remote.Exited, o.State)
	require.Zero(t, o.ExitCode)
	var want strings.Builder
	for i := range strings.Count(out.String(), "\n") {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	require.Equal(t, want.String(), out.String())
	require.EqualValues(t, want.Len(), o.OutputSize)
	ledger, err := m.Run(t.Context(), "cat", "/var/lib/ledger")
	require.NoError(t, err)
	require.Equal(t, "ran\n", ledger)
	noUnits(t, m)
}

// A run that a power cut ended is indeterminate. One that a reboot ended may have
// been told to end, and then has an exit code, or not. Neither is success, and
// neither is begun again.
func testInterrupted(t *testing.T, r *rig, m *nspawntest.Machine) {
	target := r.target(t, m, "root")
	for _, by := range []struct {
		name      string
		interrupt func()
		states    []remote.State
	}{
		{"power", func() {
			require.NoError(t, m.PowerCut())
			require.NoError(t, m.Start(t.Context()))
		}, []remote.State{remote.Indeterminate}},
		{"reboot", func() {
			// A run may take its time to end, as any service may: 90 s unless
			// configured.
			_, err := m.Run(t.Context(), "sh", "-ec", "mkdir -p /run/systemd/system.conf.d; printf '[Manager]\\nDefaultTimeoutStopSec=2s\\n' > /run/systemd/system.conf.d/stop.conf; systemctl daemon-reexec")
			require.NoError(t, err)
			reboots := m.Reboots()
			_, _ = m.Run(t.Context(), "systemctl", "reboot") // the machine ends it half way
			require.Eventually(t, func() bool { return m.Reboots() > reboots }, patience, 10*time.Millisecond)
		}, []remote.State{remote.Indeterminate, remote.Exited}},
	} {
		ledger := "/var/lib/ledger-" + by.name
		cmd := step(by.name, "echo ran >> "+ledger+"; echo half; sleep 300; echo whole")
		c := r.dial(t, target)
		status, err := c.Start(t.Context(), cmd)
		require.NoError(t, err)
		require.Equal(t, remote.Running, status.State)
		require.Eventually(t, func() bool {
			out, err := m.Run(t.Context(), "cat", ledger)
			return err == nil && out == "ran\n"
		}, patience, 10*time.Millisecond)
		begin := time.Now()
		by.interrupt()

		c = r.dial(t, target)
		t.Logf("%s: up again after %s", by.name, time.Since(begin).Round(time.Millisecond))
		var out output
		for range 2 {
			o, err := c.Once(t.Context(), cmd, out.size(), &out)
			require.NoError(t, err)
			require.Contains(t, by.states, o.State)
			require.NotEqual(t, o.BootID, o.BootIDNow)
			if o.State == remote.Exited {
				require.NotZero(t, o.ExitCode)
			}
			t.Logf("%s: %s %d %s", by.name, o.State, o.ExitCode, o.Reason)
		}
		require.True(t, strings.HasPrefix(out.String(), "half\n"), out.String())
		require.NotContains(t, out.String(), "whole")
		ran, err := m.Run(t.Context(), "cat", ledger)
		require.NoError(t, err)
		require.Equal(t, "ran\n", ran)
		noUnits(t, m)
	}
}

// A guarded reboot happens exactly once, however often and from how many places
// it is asked for, before, during and after.
func testReboot(t *testing.T, r *rig, m *nspawntest.Machine) {
	target := r.target(t, m, "ops")
	before, err := r.dial(t, target).BootID(t.Context())
	require.NoError(t, err)
	cmd := step("reboot", "")
	cmd.Argv = []string{"systemctl", "reboot"}
	cmd.IfBootID = before

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for asked := 0; asked < 5; {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if c, err := r.dialer.Dial(ctx, target); err == nil {
					if _, err := c.Start(ctx, cmd); err == nil {
						asked++
					}
					_ = c.Close()
				}
				cancel()
				if t.Context().Err() != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool {
		id, err := m.BootID()
		return err == nil && id != before
	}, patience, 10*time.Millisecond)

	c := r.dial(t, target)
	for range 20 {
		status, err := c.Start(t.Context(), cmd)
		require.NoError(t, err)
		require.Contains(t, []remote.State{remote.Exited, remote.Indeterminate}, status.State)
		require.Equal(t, before, status.BootID)
		require.NotEqual(t, before, status.BootIDNow)
	}
	// Another attempt that believes in the old boot is refused by the host.
	cmd.Key.Attempt++
	o, err := c.Once(t.Context(), cmd, 0, &output{})
	require.NoError(t, err)
	require.Equal(t, remote.BootIDChanged, o.State)
	require.Equal(t, 1, m.Reboots())
	noUnits(t, m)
}
