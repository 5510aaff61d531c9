package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"commissaire/devstack/harness"
)

// parallel is how many tests run at a time unless -parallel says otherwise:
// they wait far more than they compute.
const parallel = "6"

// programVariable names a commissaire that is built already, for a child of ours
// that runs as a user without a Go toolchain.
const programVariable = "E2E_PROGRAM"

// startLimit is how long the product may take to build, cold, and a Postgres and a
// Temporal to start: the machine may be busy.
const startLimit = 10 * time.Minute

// What all tests share.
var (
	workDir string // state and logs, kept when something failed
	program string // commissaire, built for this run
	shared  *stack
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", parallel); err != nil {
			return 0, err
		}
	}
	if workDir, err = os.MkdirTemp("", "e2e-"); err != nil {
		return 0, err
	}
	defer func() {
		if code == 0 && err == nil {
			err = os.RemoveAll(workDir)
			return
		}
		fmt.Fprintln(os.Stderr, "e2e: logs are kept in", workDir)
	}()
	if err := os.Chmod(workDir, 0o711); err != nil { // Postgres runs as another user when we are root
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit) // there is no test yet
	defer cancel()
	if program = os.Getenv(programVariable); program == "" {
		program = filepath.Join(workDir, "commissaire")
		if err := harness.Build(ctx, "../..", workDir, "", "commissaire"); err != nil {
			return 0, err
		}
	}
	if shared, err = newStack(ctx, filepath.Join(workDir, "shared")); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, shared.close()) }()
	return m.Run(), nil
}
