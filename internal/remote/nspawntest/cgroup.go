package nspawntest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// trees are the mount points of the control group trees in which a machine needs
// a group of its own; without, all machines would share the group "/payload"
// that nspawn makes below its own.
type trees struct {
	v2  string   // has cgroup.freeze and cgroup.kill
	all []string // v2, and systemd's own tree where the other controllers are v1
}

func findTrees() (trees, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return trees{}, err
	}
	var t trees
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch mount, kind, options := f[1], f[2], ","+f[3]+","; {
		case kind == "cgroup2":
			t.v2 = mount
			t.all = append(t.all, mount)
		case kind == "cgroup" && strings.Contains(options, ",name=systemd,"):
			t.all = append(t.all, mount)
		}
	}
	if t.v2 == "" {
		return trees{}, errors.New("nspawn machines need a mounted cgroup v2 tree (the only one, or beside v1 at /sys/fs/cgroup/unified)")
	}
	return t, nil
}

// group is one machine's control group: a folder of the same name in every tree.
type group struct {
	trees
	name string
}

func (g group) dirs() []string {
	dirs := make([]string, len(g.all))
	for i, tree := range g.all {
		dirs[i] = filepath.Join(tree, g.name)
	}
	return dirs
}

func (g group) create() error {
	for _, dir := range g.dirs() {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a control group: %w", err)
		}
	}
	return nil
}

// kill ends every process of the machine at once, frozen ones too.
func (g group) kill() error { return g.write("cgroup.kill", "1") }

// freeze returns when every process of the machine has stopped.
func (g group) freeze(ctx context.Context) error {
	if err := g.write("cgroup.freeze", "1"); err != nil {
		return err
	}
	for {
		events, err := os.ReadFile(filepath.Join(g.v2, g.name, "cgroup.events"))
		if err != nil || strings.Contains(string(events), "frozen 1") {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("control group %s does not freeze: %w", g.name, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func (g group) thaw() error { return g.write("cgroup.freeze", "0") }

func (g group) write(file, value string) error {
	return os.WriteFile(filepath.Join(g.v2, g.name, file), []byte(value), 0)
}

// remove takes the group away once its processes have ended, for which it waits.
func (g group) remove(ctx context.Context) error {
	for _, dir := range g.dirs() {
		for {
			err := removeGroup(dir)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("control group %s still has processes: %w", dir, err)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// removeGroup removes dir and the groups below it. The files in a group are the
// kernel's and go with it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
