package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Build puts programs of the product, by their names below cmd, into the folder out.
// root is the folder of the repository; tags are build tags, "" for none. What is
// linked stays in root/bin/tests, so that only the first package of tests that asks
// links it, which takes seconds of CPU time. It needs the go command.
func Build(ctx context.Context, root, out, tags string, programs ...string) error {
	kept, err := filepath.Abs(filepath.Join(root, "bin", "tests", tags))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(filepath.Join(kept, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	// Without the tables of a debugger it links in half the time.
	build := []string{"build", "-ldflags", "-s -w", "-tags", tags, "-o", kept + "/"}
	for _, name := range programs {
		build = append(build, "./cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", build...)
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %v: %w\n%s", programs, err, said)
	}
	for _, name := range programs {
		if err := copyProgram(filepath.Join(kept, name), filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return nil
}

// lockFile waits for other processes that hold the lock, which ends with the process.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// copyProgram gives a program another name, which stays when the old one is built anew.
// A hard link is not open for writing while other goroutines fork, as a copy is, which
// then could not be run; another file system has to do with the copy.
func copyProgram(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	return exec.Command("cp", from, to).Run()
}
