package versions

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

	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
)

// What all tests share.
var (
	workDir  string // state and logs, kept when something failed
	postgres *privatepg.Server
	server   *temporal.Server
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "versions:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if workDir, err = os.MkdirTemp("", "versions-"); err != nil {
		return 0, err
	}
	defer func() {
		if code == 0 && err == nil {
			err = os.RemoveAll(workDir)
			return
		}
		fmt.Fprintln(os.Stderr, "versions: logs are kept in", workDir)
	}()
	if err := os.Chmod(workDir, 0o711); err != nil { // Postgres runs as another user when we are root
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if postgres, err = privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(workDir, "postgres"), NoSync: true, MaxConnections: 400}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, postgres.Stop(privatepg.Immediate)) }()
	log, err := os.Create(filepath.Join(workDir, "temporal.log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	server, err = temporal.Start(ctx, temporal.Options{PostgresDSN: postgres.DSN("postgres"), NoUI: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	return m.Run(), nil
}
