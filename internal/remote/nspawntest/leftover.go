package nspawntest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// folderPattern names a folder after this process, so that a later one can tell
// whether its owner still lives.
func folderPattern() string { return fmt.Sprintf("cmsr-%d-", os.Getpid()) }

// orphaned says whether name was given by a process that is gone.
func orphaned(name string) bool {
	rest, ours := strings.CutPrefix(name, "cmsr-")
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return ours && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// sweep removes the control groups and folders of tests that were killed.
func sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	found, err := findTrees()
	if err != nil {
		return err
	}
	var errs []error
	for _, tree := range found.all {
		for _, name := range orphansIn(tree) {
			g := group{found, name}
			if err := g.kill(); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
			errs = append(errs, g.remove(ctx))
		}
	}
	for _, name := range orphansIn(os.TempDir()) {
		errs = append(errs, os.RemoveAll(filepath.Join(os.TempDir(), name)))
	}
	return errors.Join(errs...)
}

func orphansIn(dir string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, "cmsr-*")) // the pattern is valid
	var names []string
	for _, path := range paths {
		if name := filepath.Base(path); orphaned(name) {
			names = append(names, name)
		}
	}
	return names
}

// raiseInotify lets the kernel give every machine's systemd the watches it needs:
// with the usual 128 the tenth machine or so fails to boot. The setting is the
// whole kernel's and stays, since other processes may rely on it by then.
func raiseInotify() error {
	const (
		file = "/proc/sys/fs/inotify/max_user_instances"
		want = 8192
	)
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if have, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && have >= want {
		return nil
	}
	return os.WriteFile(file, []byte(strconv.Itoa(want)), 0)
}
