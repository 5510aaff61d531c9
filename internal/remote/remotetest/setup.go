package remotetest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

//go:embed standin/standin.sh
var standInScript []byte

// standIns are the names under which the stand-in script is in the PATH of every
// host; commands adds those of its system.
var standIns = []string{"systemctl", "reboot", "shutdown", "systemd-run", "journalctl", "sudo", "uname"}

// commands are the stand-ins that only this system has: what is in PATH tells
// how a host is upgraded.
func (o OS) commands() []string {
	var names []string
	switch {
	case o.ID == "debian" || o.ID == "ubuntu":
		names = []string{"apt-get", "dpkg", "dpkg-query"}
	case o.ID == "centos" || o.ID == "rhel":
		names = []string{"yum", "rpm", "needs-restarting"}
	case o.ID == "sles" || strings.HasPrefix(o.ID, "opensuse"):
		names = []string{"zypper", "rpm"}
	default:
		names = []string{"dnf", "rpm"}
	}
	if o.ID == "rhel" {
		names = append(names, "subscription-manager")
	}
	if o.OSTree {
		names = append(names, "rpm-ostree")
	}
	if o.Bootc {
		names = append(names, "bootc")
	}
	return names
}

// saved is what a host's folder remembers of it between programs.
type saved struct {
	Address  string
	Port     int
	Commands []string // stand-ins besides those that every host has
}

// openHost makes the host's folder or takes over the one that is there.
func openHost(dir string, config HostConfig, authorized string) (*Host, error) {
	h := &Host{dir: dir, name: config.Name, stopped: true, done: make(chan struct{})}
	b, err := os.ReadFile(h.path("host.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := h.create(config); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		var s saved
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", h.path("host.json"), err)
		}
		h.address, h.port, h.commands = s.Address, s.Port, s.Commands
		if err := h.killLeftovers(); err != nil {
			return nil, err
		}
	}
	if err := h.configure(authorized); err != nil {
		return nil, err
	}
	if h.power, err = openFIFO(h.path("power")); err != nil {
		return nil, err
	}
	go h.supervise()
	return h, nil
}

// create fills a new folder.
func (h *Host) create(config HostConfig) error {
	for _, d := range []string{"bin", "pkg", "repo", "units", "hooks", "ostree", "root/etc", "root/run", "var/lib"} {
		if err := os.MkdirAll(h.path(d), 0o755); err != nil {
			return err
		}
	}
	if config.OS.ID == "" {
		config.OS = OS{ID: "debian", VersionID: "12"}
	}
	files := map[string]string{
		"root/etc/os-release": fmt.Sprintf("NAME=%q\nID=%s\nVERSION_ID=%q\n", config.OS.ID, config.OS.ID, config.OS.VersionID),
		"ledger":              "",
		"ostree/booted":       "1.0\n",
		"ostree/remote":       "1.0\n",
		"ostree/known":        "1.0\n",
		"ostree/image":        "registry.example:5000/fleet/os:stable\n",
	}
	if config.OS.OSTree || config.OS.Bootc {
		files["root/run/ostree-booted"] = ""
	}
	for _, p := range []string{"openssl", "bash", "systemd"} {
		files["pkg/"+p], files["repo/"+p] = "1.0\n", "1.0\n"
	}
	for name, content := range files {
		if err := os.WriteFile(h.path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := ensureKey(h.path("host_key")); err != nil {
		return err
	}
	var err error
	if h.address, h.port, err = freeAddress(); err != nil {
		return err
	}
	h.commands = config.OS.commands()
	b, err := json.Marshal(saved{Address: h.address, Port: h.port, Commands: h.commands})
	if err != nil {
		return err
	}
	return os.WriteFile(h.path("host.json"), b, 0o644)
}

// configure writes what belongs to this program rather than to the host, so a
// newer program brings its own stand-ins to an old folder.
func (h *Host) configure(authorized string) error {
	standIn := h.path("bin/standin.sh")
	if err := os.WriteFile(standIn, standInScript, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Concat(standIns, h.commands) {
		if err := os.Symlink("standin.sh", h.path("bin/"+name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := os.WriteFile(h.path("authorized_keys"), []byte(authorized+"\n"), 0o644); err != nil {
		return err
	}
	home := filepath.Join(h.dir, "../../home")
	config := fmt.Sprintf(`ListenAddress %s
Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile %s
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
UseDNS no
MaxStartups 500
LogLevel ERROR
%s
SetEnv HOME=%s PATH=%s:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin FLEET_HOST=%s COMMISSAIRE_STATE_DIR=%s COMMISSAIRE_BOOT_ID_FILE=%s COMMISSAIRE_OS_ROOT=%s
`, h.address, h.port, h.path("host_key"), h.path("authorized_keys"), h.path("sshd.pid"),
		penalties(), home, h.path("bin"), h.dir, h.StateDir(), h.path("boot_id"), h.path("root"))
	return os.WriteFile(h.path("sshd_config"), []byte(config), 0o644)
}

// penalties switches off what sshd has since 9.8 against repeated bad logins:
// every test's connection comes from the same address. Older ones refuse to start
// with an option that they do not know.
var penalties = sync.OnceValue(func() string {
	const line = "PerSourcePenalties no"
	out, _ := exec.Command(sshdPath, "-t", "-f", "/dev/null", "-o", line).CombinedOutput()
	if bytes.Contains(out, []byte("Bad configuration option")) {
		return ""
	}
	return line
})

// freeAddress picks at random, so that test processes running side by side do
// not need to know of each other. All of 127.0.0.0/8 is local on Linux.
func freeAddress() (string, int, error) {
	const port = 2222
	var last error
	for range 50 {
		ip := fmt.Sprintf("127.%d.%d.%d", 77+rand.IntN(40), rand.IntN(256), 1+rand.IntN(254))
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err == nil {
			return ip, port, l.Close()
		}
		last = err
	}
	return "", 0, fmt.Errorf("no free loopback address: %w", last)
}

// openFIFO makes a fresh FIFO and opens both of its ends, so that reading never
// meets an end of file and writers never wait for a reader.
func openFIFO(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
}
