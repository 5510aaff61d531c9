package nspawntest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"time"
)

// Package is a Debian package of one small file.
type Package struct {
	Name, Version string
	Postinst      string // a POSIX shell script without its first line, deb-postinst(5); "" for none
}

// Repository is a flat apt repository (sources.list(5)) that all machines reach by
// HTTP, and beside it one of RPM packages and one of images. Its methods are safe for concurrent use.
type Repository struct {
	url    string
	images string // OSTree repository, "" for none
	mu     sync.Mutex
	index  []byte            // of what was published, as Packages has it
	files  map[string][]byte // by path
}

// Repository opens an empty repository. It ends with ms.
func (ms *Machines) Repository() (*Repository, error) {
	var l net.Listener
	err := ms.net.inside(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(bridgeAddress, "0"))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open an apt repository: %w", err)
	}
	r := &Repository{url: "http://" + l.Addr().String(), images: ms.images, files: map[string][]byte{}}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	ms.relays.wg.Go(func() { _ = server.Serve(l) }) // until it is closed
	ms.relays.add(server)
	return r, nil
}

// Publish adds packages. Machines see them with their next apt-get update.
func (r *Repository) Publish(ctx context.Context, packages ...Package) error {
	for _, p := range packages {
		control, deb, err := p.build(ctx)
		if err != nil {
			return fmt.Errorf("build package %s %s: %w", p.Name, p.Version, err)
		}
		file := p.Name + "_" + p.Version + "_all.deb"
		r.mu.Lock()
		r.files["/"+file] = deb
		r.index = fmt.Appendf(r.index, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", control, file, len(deb), sha256.Sum256(deb))
		r.files["/Packages"] = r.index
		r.files["/Release"] = fmt.Appendf(nil, "Date: %s\nSHA256:\n %x %d Packages\n", time.Now().UTC().Format(time.RFC1123), sha256.Sum256(r.index), len(r.index))
		r.mu.Unlock()
	}
	return nil
}

// Install makes r the one package source of m, as an administrator would, and
// installs the newest of these packages from it.
func (r *Repository) Install(ctx context.Context, m *Machine, names ...string) error {
	const script = `echo "deb [trusted=yes] $1 /" > /etc/apt/sources.list.d/nspawntest.list
shift
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q -y install "$@"`
	_, err := m.Run(ctx, append([]string{"sh", "-ec", script, "install", r.url}, names...)...)
	return err
}

// ServeHTTP answers apt, dnf and ostree. It gives no time of modification: two publications may
// share a second, and apt would keep the first.
func (r *Repository) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	name := path.Clean(request.URL.Path)
	if r.images != "" && isImage(name) {
		r.serveImage(w, request)
		return
	}
	r.mu.Lock()
	content, ok := r.files[name]
	r.mu.Unlock()
	if !ok {
		http.NotFound(w, request)
		return
	}
	http.ServeContent(w, request, name, time.Time{}, bytes.NewReader(content))
}

// build gives the package and its control file.
func (p Package) build(ctx context.Context) (control string, deb []byte, err error) {
	dir, err := os.MkdirTemp("", folderPattern())
	if err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(dir)
	control = fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: nspawntest <root@localhost>\nDescription: a package for tests\n", p.Name, p.Version)
	tree, packed := filepath.Join(dir, "tree"), filepath.Join(dir, "deb")
	files := map[string]string{"DEBIAN/control": control, "usr/share/" + p.Name + "/version": p.Version + "\n"}
	if p.Postinst != "" {
		files["DEBIAN/postinst"] = "#!/bin/sh\n" + p.Postinst + "\n"
	}
	for name, content := range files {
		file := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", nil, err
		}
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			return "", nil, err
		}
	}
	if err := quiet(exec.CommandContext(ctx, "dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, packed)); err != nil {
		return "", nil, err
	}
	deb, err = os.ReadFile(packed)
	return control, deb, err
}
