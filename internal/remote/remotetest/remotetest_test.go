package remotetest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"commissaire/internal/leaktest"
	"commissaire/internal/remote/remotetest"

	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// run logs in with nothing but the SSH library, as the product's own transport
// is tested with these hosts.
func run(t *testing.T, f *remotetest.Fleet, h *remotetest.Host, command string) (string, error) {
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(f.ClientKey()))
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", net.JoinHostPort(h.Address(), strconv.Itoa(h.Port())), &ssh.ClientConfig{
		User: h.User(), Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(key), Timeout: time.Minute,
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	out, err := s.CombinedOutput(command)
	return string(out), err
}

func must(t *testing.T, f *remotetest.Fleet, h *remotetest.Host, command string) string {
	t.Helper()
	out, err := run(t, f, h, command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func TestTenHosts(t *testing.T) {
	start := time.Now()
	f := remotetest.New(t, 10)
	t.Logf("10 hosts started in %v", time.Since(start))
	seen := map[string]bool{}
	for _, h := range f.Hosts() {
		seen[strings.TrimSpace(must(t, f, h, `cat "$COMMISSAIRE_BOOT_ID_FILE"`))] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d boot ids on 10 hosts", len(seen))
	}
}

func TestRebootKillsEverythingAndChangesBootID(t *testing.T) {
	t.Parallel()
	f := remotetest.New(t, 1)
	h := f.Hosts()[0]
	before := h.BootID()
	must(t, f, h, `setsid sh -c 'echo $$ >"$FLEET_HOST/detached"; exec sleep 600' >/dev/null 2>&1 </dev/null & while [ ! -s "$FLEET_HOST/detached" ]; do sleep 0.01; done`)
	b, err := os.ReadFile(h.Dir() + "/detached")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = run(t, f, h, "systemctl reboot") // it may be gone before it answers
	eventually(t, "one reboot", func() bool { return h.Reboots() == 1 })
	if h.BootID() == before {
		t.Error("same boot id after a reboot")
	}
	// A zombie that init has yet to collect has no memory, so no environment.
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%s/environ", strings.TrimSpace(string(b)))); err == nil && strings.Contains(string(env), h.Dir()) {
		t.Error("a detached process outlived the reboot")
	}
	must(t, f, h, "true")
	if n := h.Count("systemctl", "reboot"); n != 1 {
		t.Errorf("%d reboots in the ledger", n)
	}
}

var fedora = remotetest.HostConfig{Name: "a", OS: remotetest.OS{ID: "fedora", VersionID: "42", OSTree: true}}

func TestPackagesAndDeployments(t *testing.T) {
	t.Parallel()
	f := remotetest.NewHosts(t, fedora)
	h := f.Hosts()[0]
	if err := h.Publish("openssl", "2.0"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, f, h, "dnf -q check-update"); err == nil || !strings.Contains(out, "openssl") {
		t.Errorf("check-update: %v %q", err, out)
	}
	must(t, f, h, "dnf -y upgrade")
	must(t, f, h, "dnf -y install etcd")
	if got := strings.TrimSpace(must(t, f, h, `rpm -q --qf '%{NAME} %{VERSION}\n' openssl etcd`)); got != "openssl 2.0\netcd 1.0" {
		t.Errorf("rpm says %q", got)
	}
	if h.Count("dnf", "") != 2 || h.Count("dnf", "-y upgrade") != 1 {
		t.Errorf("ledger: %v", h)
	}
	must(t, f, h, "systemctl enable --now etcd.service")
	if !h.UnitActive("etcd") || strings.TrimSpace(must(t, f, h, "systemctl is-active etcd")) != "active" {
		t.Error("etcd is not active")
	}
	if err := h.PublishOSTree("1.1"); err != nil {
		t.Fatal(err)
	}
	must(t, f, h, "rpm-ostree upgrade")
	if h.Booted() != "1.0" || h.Staged() != "1.1" {
		t.Fatalf("booted %s, staged %s", h.Booted(), h.Staged())
	}
	if out := must(t, f, h, "rpm-ostree status --json"); !strings.Contains(out, `"version":"1.1"`) {
		t.Error(out)
	}
	_, _ = run(t, f, h, "rpm-ostree deploy version=1.1; reboot") // it may be gone before it answers
	eventually(t, "reboot", func() bool { return h.Reboots() == 1 })
	if h.Booted() != "1.1" || h.Staged() != "" {
		t.Errorf("booted %s, staged %s", h.Booted(), h.Staged())
	}
}

func TestPowerCutLosesStaged(t *testing.T) {
	t.Parallel()
	f := remotetest.NewHosts(t, fedora)
	h := f.Hosts()[0]
	if err := h.PublishOSTree("1.1"); err != nil {
		t.Fatal(err)
	}
	must(t, f, h, "rpm-ostree upgrade")
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, f, h, "true"); err == nil {
		t.Error("a host without power answered")
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, f, h, "true")
	if h.Booted() != "1.0" || h.Staged() != "" {
		t.Errorf("booted %s, staged %s", h.Booted(), h.Staged())
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	f := remotetest.New(t, 1)
	h := f.Hosts()[0]
	if err := h.OnCommand("apt-get", "echo no space left >&2; exit 9"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, f, h, "apt-get -y upgrade"); err == nil || !strings.Contains(out, "no space left") {
		t.Errorf("%v %q", err, out)
	}
	old := h.HostKey()
	h.SetReboot(remotetest.Reboot{SameBootID: true, NewHostKey: true, Shutdown: time.Millisecond, Downtime: time.Millisecond})
	id := h.BootID()
	_, _ = run(t, f, h, "reboot") // it may be gone before it answers
	eventually(t, "new host key", func() bool { return h.HostKey() != old })
	eventually(t, "sshd is back", func() bool { _, err := run(t, f, h, "true"); return err == nil })
	if h.BootID() != id || h.Reboots() != 0 {
		t.Error("the boot id changed")
	}
	h.SetReboot(remotetest.Reboot{NeverReturns: true})
	_, _ = run(t, f, h, "reboot")
	eventually(t, "host is away", func() bool { _, err := run(t, f, h, "true"); return err != nil })
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Hang(); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", net.JoinHostPort(h.Address(), strconv.Itoa(h.Port())), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := c.Read(make([]byte, 10)); err == nil {
		t.Errorf("a hung sshd said %d bytes", n)
	}
	_ = c.Close()
	if err := h.Unhang(); err != nil {
		t.Fatal(err)
	}
	must(t, f, h, "true")
}

// What holds the address of a host for a moment keeps it from nothing but that moment.
func TestAddressIsHeld(t *testing.T) {
	t.Parallel()
	f := remotetest.New(t, 1)
	h := f.Hosts()[0]
	if err := h.Refuse(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(h.Address(), strconv.Itoa(h.Port())))
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() { accepted <- h.Accept(t.Context()) }()
	eventually(t, "sshd finds it held", func() bool {
		log, err := os.ReadFile(h.Dir() + "/sshd.log")
		return err == nil && strings.Contains(string(log), "Address already in use")
	})
	_ = l.Close()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	must(t, f, h, "true")
}

// A fleet opened again, here after a program that did not close it in order, has
// the same addresses, keys and state.
func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := remotetest.HostConfig{Name: "h1"}
	open := func() *remotetest.Fleet {
		f, err := remotetest.Open(context.Background(), dir, config)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip(remotetest.ErrNoSSHD)
	}
	f := open()
	h := f.Hosts()[0]
	must(t, f, h, "apt-get -y install etcd")
	if got := must(t, f, h, `dpkg-query -W -f='${Package} ${Version}\n' etcd`); got != "etcd 1.0\n" {
		t.Errorf("dpkg-query says %q", got)
	}
	address, key, boot := h.Address(), h.HostKey(), h.BootID()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open()
	defer f.Close()
	h = f.Hosts()[0]
	if h.Address() != address || h.HostKey() != key || h.BootID() == boot || h.Package("etcd") != "1.0" {
		t.Error("another host under the same name")
	}
	must(t, f, h, "true")
}
