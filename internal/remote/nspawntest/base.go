package nspawntest

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// basePackages is what every machine has beyond Debian's minimum.
var basePackages = []string{
	"systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "sudo", "iproute2",
	"procps", "python3-minimal", "ca-certificates", "curl",
}

// finishScript turns a fresh Debian tree into the machines' tree. It is part of
// the cache's key.
//
//go:embed base.sh
var finishScript string

// CacheDir is where [Start] keeps the base: below the user's cache folder, so
// that every test and every checkout shares one.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the nspawn base: %w", err)
	}
	return filepath.Join(dir, "commissaire", "nspawn"), nil
}

// Base gives the root tree that all machines share, read-only. The first call
// builds it from the apt mirror that this machine is configured with (about a
// minute) and keeps base-KEY.tar.zst in cacheDir, which is what a CI cache should
// carry; later calls unpack that, or find it unpacked. Calls in several
// processes at once build it once. extra are packages beyond those of every base.
func Base(ctx context.Context, cacheDir string, extra ...string) (string, error) {
	packages := append(slices.Clone(basePackages), extra...)
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(cacheDir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	suite, err := codename()
	if err != nil {
		return "", err
	}
	tree := filepath.Join(cacheDir, "base-"+baseKey(suite, packages))
	if _, err := os.Stat(tree); !errors.Is(err, fs.ErrNotExist) {
		return tree, err
	}
	// Made beside its place and renamed, so that a tree by that name is whole.
	partial := tree + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	packed := tree + ".tar.zst"
	if _, err := os.Stat(packed); err == nil {
		err = unpack(ctx, packed, partial)
		if err != nil {
			return "", fmt.Errorf("unpack the nspawn base %s (remove it to have it built again): %w", packed, err)
		}
	} else if err := build(ctx, suite, packages, partial, packed); err != nil {
		return "", fmt.Errorf("build the nspawn base: %w", err)
	}
	return tree, os.Rename(partial, tree)
}

// baseKey changes whenever the tree would.
func baseKey(suite string, packages []string) string {
	h := sha256.New()
	fmt.Fprintln(h, suite, runtime.GOARCH, packages)
	fmt.Fprint(h, finishScript)
	return suite + "-" + hex.EncodeToString(h.Sum(nil))[:12]
}

func build(ctx context.Context, suite string, packages []string, tree, packed string) error {
	from, err := aptArchive(ctx, suite)
	if err != nil {
		return err
	}
	// What debootstrap mounts in the tree, and every process of it, goes when this
	// thread or the test does: a mount that is left could not be removed with the
	// tree, and a process that is left would write into the next one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation=private", "--pid", "--mount-proc", "--fork", "--kill-child",
		"debootstrap", "--variant=minbase",
		"--include="+strings.Join(packages, ","), "--components="+from.components, suite, tree, from.uri)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if from.proxy != "" {
		cmd.Env = append(os.Environ(), "http_proxy="+from.proxy)
	}
	if err := quiet(cmd); err != nil {
		return err
	}
	if err := quiet(exec.CommandContext(ctx, "chroot", tree, "/bin/sh", "-ec", finishScript)); err != nil {
		return err
	}
	if err := quiet(exec.CommandContext(ctx, "tar", "--zstd", "--xattrs", "--numeric-owner", "-C", tree, "-cf", packed+".partial", ".")); err != nil {
		return err
	}
	return os.Rename(packed+".partial", packed)
}

func unpack(ctx context.Context, packed, tree string) error {
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	return quiet(exec.CommandContext(ctx, "tar", "--zstd", "--xattrs", "--numeric-owner", "-C", tree, "-xpf", packed))
}

// lock takes path for this process until unlock; other processes wait.
func lock(ctx context.Context, path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process builds the nspawn base (lock %s): %w", path, ctx.Err()), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// quiet runs cmd and shows what it printed only when it failed.
func quiet(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if len(out) > 4096 {
		out = out[len(out)-4096:]
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(string(out)))
}
