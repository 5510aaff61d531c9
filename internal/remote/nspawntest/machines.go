package nspawntest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Options says what [Open] makes.
type Options struct {
	Count         int    // machines, at most 250
	AuthorizedKey string // an authorized_keys line; lets in root, ops (sudo without password) and nosudo (no sudo)
	CacheDir      string // of the base; CacheDir() when empty
	// Packages are installed beyond those of every base. Each set of them has a
	// base of its own.
	Packages []string
	// Files are written into the root of a machine before it boots, by path. The
	// first map is that of h1; machines without one have none.
	Files []map[string]string
	// Images says how many machines, the last ones, boot OSTree deployments: of
	// version 1.0 of an image that is the base in OSTree's shape, with a stand-in for
	// rpm-ostree. Of their Files only those of /etc are kept by later deployments.
	// Packages must have ImagePackages.
	Images int
}

// Machines are machines on one network.
type Machines struct {
	dir      string
	net      *network
	images   string // OSTree repository, to be served; "" without machines that boot images
	machines []*Machine
	relays   relays
}

// Open boots new machines and waits until all of them answer SSH. The caller
// closes them. They do not outlive this process, however it ends.
func Open(ctx context.Context, o Options) (*Machines, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	if err := sweep(ctx); err != nil {
		return nil, fmt.Errorf("remove what a killed test left: %w", err)
	}
	if err := raiseInotify(); err != nil {
		return nil, err
	}
	if o.CacheDir == "" {
		var err error
		if o.CacheDir, err = CacheDir(); err != nil {
			return nil, err
		}
	}
	base, err := Base(ctx, o.CacheDir, o.Packages...)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", folderPattern())
	if err != nil {
		return nil, err
	}
	ms := &Machines{dir: dir}
	if err := ms.boot(ctx, base, o); err != nil {
		return nil, errors.Join(err, ms.Close())
	}
	return ms, nil
}

// All are the machines in order: h1, h2 …
func (ms *Machines) All() []*Machine { return ms.machines }

// Close cuts the power of every machine and removes everything of them.
func (ms *Machines) Close() error {
	errs := make([]error, len(ms.machines))
	var wg sync.WaitGroup
	for i, m := range ms.machines {
		wg.Go(func() { errs[i] = m.PowerCut() })
	}
	wg.Wait()
	ms.relays.close()
	if ms.net != nil {
		errs = append(errs, ms.net.close())
	}
	return errors.Join(append(errs, os.RemoveAll(ms.dir))...)
}

func (ms *Machines) boot(ctx context.Context, base string, o Options) error {
	groups, err := findTrees()
	if err != nil {
		return err
	}
	if ms.net, err = newNetwork(ctx); err != nil {
		return err
	}
	var images string
	if o.Images > 0 {
		if images, err = imageBase(ctx, base); err != nil {
			return err
		}
		if ms.images, err = openImages(ctx, ms.dir, images); err != nil {
			return fmt.Errorf("open a repository of images: %w", err)
		}
	}
	for i := range o.Count {
		m := &Machine{
			name: fmt.Sprintf("h%d", i+1), address: fmt.Sprintf("10.77.0.%d", i+1),
			base: base, net: ms.net, off: make(chan struct{}),
		}
		close(m.off)
		m.dir = filepath.Join(ms.dir, m.name)
		m.group = group{groups, filepath.Base(ms.dir) + "-" + m.name}
		var files map[string]string
		if i < len(o.Files) {
			files = o.Files[i]
		}
		m.image = i >= o.Count-o.Images
		if err := m.install(ctx, images, o.AuthorizedKey, files); err != nil {
			return fmt.Errorf("install machine %s: %w", m.name, err)
		}
		ms.machines = append(ms.machines, m)
	}
	errs := make([]error, len(ms.machines))
	var wg sync.WaitGroup
	for i, m := range ms.machines {
		wg.Go(func() { errs[i] = m.Start(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// install makes the machine's folder. What it has beyond the base is in up, the
// upper layer of its root, or in the deployment of an image.
func (m *Machine) install(ctx context.Context, images, authorizedKey string, files map[string]string) error {
	for _, dir := range []string{"", "up", "work", "root"} {
		if err := os.Mkdir(m.path(dir), 0o755); err != nil {
			return err
		}
	}
	root := m.path("up")
	if m.image {
		var err error
		if root, err = m.deploy(ctx, images); err != nil {
			return err
		}
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return err
	}
	m.hostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	type file struct {
		name, content string
		mode          os.FileMode
	}
	all := []file{
		{"etc/hostname", m.name + "\n", 0o644},
		{"etc/hosts", "127.0.0.1 localhost\n127.0.1.1 " + m.name + "\n", 0o644},
		{"etc/ssh/ssh_host_ed25519_key", string(pem.EncodeToMemory(block)), 0o600},
		{"etc/ssh/authorized_keys", authorizedKey + "\n", 0o644},
		{"etc/systemd/network/10-host0.network", "[Match]\nName=host0\n[Network]\nAddress=" + m.address + "/16\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n", 0o644},
	}
	for name, content := range files {
		all = append(all, file{name, content, 0o644})
	}
	for _, f := range all {
		path := filepath.Join(root, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.content), f.mode); err != nil {
			return err
		}
	}
	return nil
}
