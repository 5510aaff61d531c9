package nspawntest

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ImagePackages are what machines need beyond their base to boot OSTree deployments.
// See [Options].
var ImagePackages = []string{"ostree", "python3-gi", "gir1.2-ostree-1.0"}

var (
	//go:embed tree.sh
	treeScript string
	//go:embed boot_image.sh
	bootImageScript string
	//go:embed rpm-ostree
	rpmOSTree string
)

// Names in the repositories of images.
const (
	imageRemote = "nspawntest"
	imageRef    = "nspawntest/stable"
	imageOS     = "nspawntest"
	firstImage  = "1.0"
)

// osRelease is what an image says it is, which is what Fedora's say.
func osRelease(version string) string {
	return fmt.Sprintf("ID=fedora\nVERSION_ID=43\nVARIANT_ID=coreos\nPRETTY_NAME=\"image %[1]s of a test\"\nOSTREE_VERSION=%[1]s\n", version)
}

// imagesAvailable says why this machine cannot make images; nil when it can.
func imagesAvailable() error {
	if _, err := exec.LookPath("ostree"); err != nil {
		return errors.New("machines that boot images need ostree, which is not installed; " + setupHint)
	}
	return nil
}

// imageBase gives a folder with two OSTree repositories that have version 1.0 of the
// image made from a base: "bare", of which machines take theirs by hard links, and
// "archive", which can be served. The first call makes them, some seconds.
func imageBase(ctx context.Context, base string) (string, error) {
	if err := imagesAvailable(); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(filepath.Dir(base), "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	key := sha256.Sum256([]byte(treeScript + rpmOSTree + osRelease(firstImage)))
	whole := base + "-image-" + hex.EncodeToString(key[:6])
	if _, err := os.Stat(whole); !errors.Is(err, fs.ErrNotExist) {
		return whole, err
	}
	partial := whole + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	const script = `base=$1
mkdir "$2"
cd "$2"
cp -al "$base" tree
(cd tree && eval "$3")
rm -f tree/usr/bin/rpm-ostree tree/usr/lib/os-release
printf %s "$4" > tree/usr/bin/rpm-ostree
chmod 755 tree/usr/bin/rpm-ostree
printf %s "$5" > tree/usr/lib/os-release
ostree init --repo=bare --mode=bare
ostree commit --repo=bare --branch="$6" --tree=dir=tree --add-metadata-string=version="$7"
ostree init --repo=archive --mode=archive
ostree config --repo=archive set archive.zlib-level 1
ostree pull-local --repo=archive bare "$6"
rm -rf tree`
	cmd := exec.CommandContext(ctx, "sh", "-ec", script, "image", base, partial, treeScript, rpmOSTree, osRelease(firstImage), imageRef, firstImage)
	if err := quiet(cmd); err != nil {
		return "", fmt.Errorf("make an image: %w", err)
	}
	return whole, os.Rename(partial, whole)
}

// deploy makes the machine's disk, with version 1.0 of the image deployed, and gives
// the folder of that deployment. Files of the image are links to those of images.
func (m *Machine) deploy(ctx context.Context, images string) (string, error) {
	const script = `mkdir "$1"
export OSTREE_SYSROOT_DEBUG=mutable-deployments
ostree admin init-fs "$1"
ostree admin os-init --sysroot="$1" "$2"
ostree config --repo="$1/ostree/repo" set core.fsync false
ostree pull-local --repo="$1/ostree/repo" --remote="$3" "$4/bare" "$5"
ostree admin deploy --sysroot="$1" --os="$2" "$3:$5"`
	sysroot := m.path("sysroot")
	if err := quiet(exec.CommandContext(ctx, "sh", "-ec", script, "deploy", sysroot, imageOS, imageRemote, images, imageRef)); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(sysroot, "ostree/deploy", imageOS, "deploy", "*.0"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("the deployments are %q (%w)", found, err)
	}
	return found[0], nil
}

// PublishImage adds versions of the image, which differ in what they say they are.
// Machines see them with their next upgrade or deploy.
func (r *Repository) PublishImage(ctx context.Context, versions ...string) error {
	const script = `tree=$(mktemp -d -p "$(dirname "$1")")
chmod 755 "$tree" # it becomes the root
mkdir -p "$tree/usr/lib"
printf %s "$4" > "$tree/usr/lib/os-release"
ostree commit --repo="$1" --branch="$2" --tree=ref="$2" --tree=dir="$tree" --add-metadata-string=version="$3"
rm -r "$tree"`
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.images == "" {
		return errors.New("none of the machines boots images")
	}
	for _, v := range versions {
		if err := quiet(exec.CommandContext(ctx, "sh", "-ec", script, "publish", r.images, imageRef, v, osRelease(v))); err != nil {
			return fmt.Errorf("publish image %s: %w", v, err)
		}
	}
	return nil
}

// TrackImages makes r the place from which m, which boots images, has them.
func (r *Repository) TrackImages(ctx context.Context, m *Machine) error {
	_, err := m.Run(ctx, "ostree", "remote", "add", "--no-gpg-verify", imageRemote, r.url+"/ostree", imageRef)
	return err
}

// serveImage answers ostree. It has files by the hundred of megabytes, so they stay
// on disk.
func (r *Repository) serveImage(w http.ResponseWriter, request *http.Request) {
	http.StripPrefix("/ostree", http.FileServer(http.Dir(r.images))).ServeHTTP(w, request)
}

// openImages gives the repository of this set of machines, with the first version.
func openImages(ctx context.Context, dir, images string) (string, error) {
	repository := filepath.Join(dir, "images")
	const script = `ostree init --repo="$1" --mode=archive
ostree config --repo="$1" set core.fsync false
ostree pull-local --repo="$1" "$2/archive" "$3"`
	return repository, quiet(exec.CommandContext(ctx, "sh", "-ec", script, "images", repository, images, imageRef))
}

// isImage says whether a request is for a repository of images.
func isImage(name string) bool { return strings.HasPrefix(name, "/ostree/") }
