package nspawntest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"commissaire/internal/leaktest"
	"commissaire/internal/remote/nspawntest"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func newKey(t *testing.T) (signer ssh.Signer, authorized string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err = ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

// login opens an SSH connection with nothing but the SSH library.
func login(ctx context.Context, ms *nspawntest.Machines, m *nspawntest.Machine, user string, signer ssh.Signer) (*ssh.Client, error) {
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(m.HostKey()))
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(m.Address(), "22")
	c, err := ms.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	conn, channels, requests, err := ssh.NewClientConn(c, address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey),
	})
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// run runs one command over a connection of its own.
func run(ms *nspawntest.Machines, m *nspawntest.Machine, user string, signer ssh.Signer, command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := login(ctx, ms, m, user, signer)
	if err != nil {
		return "", err
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	out, err := s.CombinedOutput(command)
	return strings.TrimSpace(string(out)), err
}

func must(t *testing.T, ms *nspawntest.Machines, m *nspawntest.Machine, user string, signer ssh.Signer, command string) string {
	t.Helper()
	out, err := run(ms, m, user, signer, command)
	require.NoErrorf(t, err, "%s on %s: %s", command, m.Name(), out)
	return out
}

const bootIDCommand = "cat /proc/sys/kernel/random/boot_id"

func TestMachines(t *testing.T) {
	signer, authorized := newKey(t)
	begin := time.Now()
	ms := nspawntest.Start(t, 3, authorized)
	t.Logf("3 machines answered SSH after %s", time.Since(begin).Round(time.Millisecond))
	require.Len(t, ms.All(), 3)
	sh := func(t *testing.T, m *nspawntest.Machine, command string) string {
		t.Helper()
		return must(t, ms, m, "root", signer, command)
	}

	for i, m := range ms.All() {
		require.Equal(t, fmt.Sprintf("h%d", i+1), sh(t, m, "uname -n"))
		require.Equal(t, "running", sh(t, m, "systemctl is-system-running --wait"))
		id, err := m.BootID()
		require.NoError(t, err)
		require.Equal(t, id, sh(t, m, bootIDCommand))
	}
	t.Logf("3 machines were running after %s", time.Since(begin).Round(time.Millisecond))

	t.Run("users", func(t *testing.T) {
		m := ms.All()[0]
		require.Equal(t, "root", must(t, ms, m, "ops", signer, "sudo -n id -un"))
		out, err := run(ms, m, "nosudo", signer, "sudo -n id -un")
		require.Error(t, err)
		require.Contains(t, out, "password is required")
		require.Equal(t, "nosudo", must(t, ms, m, "nosudo", signer, "id -un"))
	})

	t.Run("reboot", func(t *testing.T) {
		t.Parallel()
		m := ms.All()[0]
		before := sh(t, m, "echo kept > /var/lib/kept; "+bootIDCommand)
		begin := time.Now()
		_, _ = run(ms, m, "root", signer, "systemctl reboot") // answers or is cut off, as on any machine
		require.Eventually(t, func() bool {
			id, err := run(ms, m, "root", signer, bootIDCommand)
			return err == nil && id != before
		}, patience, 10*time.Millisecond)
		t.Logf("back with a new boot id %s after systemctl reboot", time.Since(begin).Round(time.Millisecond))
		require.Equal(t, "kept", sh(t, m, "cat /var/lib/kept"))
		require.Equal(t, 1, m.Reboots())
	})

	t.Run("power", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		m := ms.All()[1]
		before := sh(t, m, "echo kept > /var/lib/kept; sync /var/lib/kept; "+bootIDCommand)
		require.NoError(t, m.PowerCut())
		_, err := m.BootID()
		require.ErrorContains(t, err, "is off")
		_, err = run(ms, m, "root", signer, "true")
		require.Error(t, err)
		require.NoError(t, m.PowerCut(), "cutting the power twice is no error")
		require.NoError(t, m.Start(ctx))
		require.NotEqual(t, before, sh(t, m, bootIDCommand))
		require.Equal(t, "kept", sh(t, m, "cat /var/lib/kept"))

		sh(t, m, `printf '[Unit]\nConditionPathExists=/var/lib/kept\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStop=/bin/touch /var/lib/stopped\n' > /run/systemd/system/last.service && systemctl start last`)
		require.NoError(t, m.PowerOff(ctx))
		require.NoError(t, m.Start(ctx))
		sh(t, m, "test -e /var/lib/stopped")
		require.Equal(t, 2, m.Reboots())
	})

	t.Run("faults", func(t *testing.T) {
		t.Parallel()
		testFaults(t, ms, ms.All()[2], signer)
	})
}

func testFaults(t *testing.T, ms *nspawntest.Machines, m *nspawntest.Machine, signer ssh.Signer) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := login(ctx, ms, m, "root", signer)
	require.NoError(t, err)
	defer c.Close()

	// answer is done when the machine has answered over the open connection.
	answer := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			s, err := c.NewSession()
			if err == nil {
				err = s.Run("true")
			}
			done <- err
		}()
		return done
	}
	silent := func(done <-chan error) {
		t.Helper()
		select {
		case err := <-done:
			t.Fatalf("the machine answered: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
	}

	require.NoError(t, m.Freeze(ctx))
	done := answer()
	silent(done)
	require.NoError(t, m.Thaw())
	require.NoError(t, <-done)

	require.NoError(t, m.Unplug(ctx))
	done = answer()
	silent(done)
	require.NoError(t, m.Plug(ctx))
	require.NoError(t, <-done, "the connection outlives a pulled cable")

	require.NoError(t, m.PauseSSHD(ctx))
	require.NoError(t, <-answer(), "an open connection goes on")
	conn, err := ms.Dial(ctx, "tcp", net.JoinHostPort(m.Address(), "22"))
	require.NoError(t, err, "the kernel still accepts")
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	out, err := m.Run(ctx, "systemctl", "is-active", "ssh")
	require.NoError(t, err)
	require.Equal(t, "active\n", out)
	require.NoError(t, m.ResumeSSHD(ctx))
	must(t, ms, m, "root", signer, "true")

	require.NoError(t, m.ResetConnections(ctx))
	require.Error(t, c.Wait())
	must(t, ms, m, "root", signer, "true")
}

// A program inside reaches the machines by itself, and of this machine what is
// exposed.
func TestCommandAndExpose(t *testing.T) {
	_, authorized := newKey(t)
	ms := nspawntest.Start(t, 1, authorized)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("from outside"))
			_ = c.Close()
		}
	}()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	read := func(host, port string) (string, error) {
		out, err := ms.Command(t.Context(), "bash", "-c", `exec 3<>"/dev/tcp/$0/$1" && head -c 12 <&3`, host, port).Output()
		return string(out), err
	}
	_, err = read("127.0.0.1", port)
	require.Error(t, err)
	require.NoError(t, ms.Expose(l.Addr().String()))
	out, err := read("127.0.0.1", port)
	require.NoError(t, err)
	require.Equal(t, "from outside", out)
	out, err = read(ms.All()[0].Address(), "22")
	require.NoError(t, err)
	require.Contains(t, out, "SSH-2.0")
}

// apt on a machine installs from a repository, and finds what is published later.
func TestRepository(t *testing.T) {
	_, authorized := newKey(t)
	ms := nspawntest.Start(t, 1, authorized)
	m := ms.All()[0]
	r, err := ms.Repository()
	require.NoError(t, err)
	for _, version := range []string{"1.0", "2.0"} {
		require.NoError(t, r.Publish(t.Context(), nspawntest.Package{Name: "tool", Version: version, Postinst: "echo " + version + " >> /var/lib/ledger"}))
		require.NoError(t, r.Install(t.Context(), m, "tool"))
		out, err := m.Run(t.Context(), "cat", "/usr/share/tool/version")
		require.NoError(t, err)
		require.Equal(t, version+"\n", out)
	}
	out, err := m.Run(t.Context(), "cat", "/var/lib/ledger")
	require.NoError(t, err)
	require.Equal(t, "1.0\n2.0\n", out, "the script ran once for each version")
}
