package nspawntest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

const setupHint = "run scripts/setup-nspawn as root"

// Available says why this machine cannot run nspawn machines; nil when it can.
// It tries the kernel's part, namespaces and overlayfs, for real.
func Available() error { return available() }

var available = sync.OnceValue(func() error {
	if runtime.GOOS != "linux" {
		return errors.New("nspawn machines need Linux")
	}
	if os.Geteuid() != 0 {
		return errors.New("nspawn machines need root")
	}
	for _, program := range []string{"systemd-nspawn", "debootstrap", "apt-get", "dpkg-deb", "zstd", "tar", "ip", "ss", "nsenter", "unshare", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("nspawn machines need %s, which is not installed; %s", program, setupHint)
		}
	}
	if _, err := findTrees(); err != nil {
		return err
	}
	return tryOverlay()
})

// tryOverlay mounts an overlay where the machines' folders will be, in
// namespaces like theirs: a folder that is itself an overlay cannot carry one.
func tryOverlay() error {
	dir, err := os.MkdirTemp("", folderPattern())
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, sub := range []string{"base", "up", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	cmd := exec.Command("unshare", "--net", "--mount", "mount", "-t", "overlay", "overlay", "-o", "lowerdir=base,upperdir=up,workdir=work", "root")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nspawn machines need network and mount namespaces and an overlay file system below %s: %w: %s", os.TempDir(), err, strings.TrimSpace(string(out)))
	}
	return nil
}
