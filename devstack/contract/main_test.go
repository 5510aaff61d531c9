package contract

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
)

// parallel is how many tests run at a time unless -parallel says otherwise:
// they wait far more than they compute.
const parallel = "6"

// What all tests share.
var (
	workDir  string // state and logs, kept when something failed
	program  string // commissaire, built for this run
	commctl  string // the same
	postgres *privatepg.Server
	temporl  *temporal.Server
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err == nil && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.list").Value.String() == "" {
		var ok bool
		if ok, err = account(os.Stdout); !ok && code == 0 {
			code = 1
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "contract:", err)
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
	if workDir, err = os.MkdirTemp("", "contract-"); err != nil {
		return 0, err
	}
	defer func() {
		if code == 0 && err == nil {
			err = os.RemoveAll(workDir)
			return
		}
		fmt.Fprintln(os.Stderr, "contract: logs are kept in", workDir)
	}()
	if err := os.Chmod(workDir, 0o711); err != nil { // Postgres runs as another user when we are root
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // cold, on a busy machine
	defer cancel()
	if err := harness.Build(ctx, "../..", workDir, "", "commissaire", "commctl"); err != nil {
		return 0, err
	}
	program, commctl = filepath.Join(workDir, "commissaire"), filepath.Join(workDir, "commctl")
	log, err := os.Create(filepath.Join(workDir, "temporal.log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	if postgres, err = privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(workDir, "postgres"), NoSync: true, MaxConnections: 400}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, postgres.Stop(privatepg.Immediate)) }()
	temporl, err = temporal.Start(ctx, temporal.Options{
		PostgresDSN: postgres.DSN("postgres"), NoUI: true, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, temporl.Stop()) }()
	defer closeQuiet()
	return m.Run(), nil
}
