package remotetest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

const sshdPath = "/usr/sbin/sshd"

// ErrNoSSHD says that OpenSSH's server is not installed.
var ErrNoSSHD = errors.New("no " + sshdPath + " on this machine; install it with: apt-get install -y --no-install-recommends openssh-server")

//go:embed standin/keeper.sh
var keeperScript string

// Fleet is a set of hosts under one folder. The folder keeps keys, addresses
// and the hosts' state, so a fleet opened again is the same fleet.
type Fleet struct {
	dir    string
	hosts  []*Host
	key    string
	keeper *exec.Cmd
	alive  io.Closer // the pipe that the keeper watches
}

// Open starts the hosts, creating those that are not in dir yet. One key pair,
// made in dir, opens them all. The caller closes the fleet; if it dies before,
// the hosts end by themselves.
func Open(ctx context.Context, dir string, hosts ...HostConfig) (*Fleet, error) {
	if _, err := os.Stat(sshdPath); err != nil {
		return nil, ErrNoSSHD
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		// sshd as root refuses to start without its privilege separation folder,
		// which is otherwise made by its systemd unit.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "home"), 0o755); err != nil {
		return nil, err
	}
	f := &Fleet{dir: dir}
	public, err := f.loadKey()
	if err != nil {
		return nil, err
	}
	for _, config := range hosts {
		h, err := openHost(filepath.Join(dir, "hosts", config.Name), config, public)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", config.Name, err)
		}
		f.hosts = append(f.hosts, h)
	}
	if err := f.startKeeper(); err != nil {
		return nil, err
	}
	if err := f.startAll(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Hosts are in the order in which they were given to Open.
func (f *Fleet) Hosts() []*Host { return f.hosts }

// ClientKey is the private key, in OpenSSH's PEM form, that opens every host.
func (f *Fleet) ClientKey() string { return f.key }

// Close ends every process of every host and gives its addresses back. The
// folder stays.
func (f *Fleet) Close() error {
	var errs []error
	for _, h := range f.hosts {
		errs = append(errs, h.close())
	}
	if f.alive != nil {
		errs = append(errs, f.alive.Close(), f.keeper.Wait())
		f.alive = nil
	}
	return errors.Join(errs...)
}

func (f *Fleet) startAll(ctx context.Context) error {
	errs := make([]error, len(f.hosts))
	var wg sync.WaitGroup
	for i, h := range f.hosts {
		wg.Go(func() { errs[i] = h.Start(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *Fleet) startKeeper() error {
	args := []string{"-c", keeperScript, "keeper"}
	for _, h := range f.hosts {
		args = append(args, h.dir)
	}
	f.keeper = exec.Command("/bin/sh", args...)
	// A session of its own, so that an interrupt from the terminal does not end
	// the keeper before it has done its work.
	f.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := f.keeper.StdinPipe()
	if err != nil {
		return err
	}
	f.alive = pipe
	return f.keeper.Start()
}

// loadKey reads or makes the client's key and gives its authorized_keys line.
func (f *Fleet) loadKey() (public string, err error) {
	path := filepath.Join(f.dir, "client_key")
	if err := ensureKey(path); err != nil {
		return "", err
	}
	private, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	f.key = string(private)
	return publicKey(path)
}

// ensureKey writes a new ed25519 private key to path unless one is there.
func ensureKey(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeKey(path)
}

// writeKey puts a new ed25519 private key in path, whole or not at all.
func writeKey(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// publicKey is the authorized_keys form of the private key in path.
func publicKey(path string) (string, error) {
	private, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return "", fmt.Errorf("key %s: %w", path, err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), nil
}
