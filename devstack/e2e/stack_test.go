package e2e

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
)

// stack is a Postgres and a Temporal on it. Both keep their addresses when they
// are stopped and started.
type stack struct {
	options  privatepg.Options
	postgres *privatepg.Server
	temporal *temporal.Server // nil while stopped
	port     int              // of Temporal
	log      *os.File         // of Temporal
}

func newStack(ctx context.Context, dir string) (*stack, error) {
	s := &stack{options: privatepg.Options{Dir: dir, NoSync: true, MaxConnections: 400}}
	var err error
	if s.log, err = os.Create(dir + "-temporal.log"); err != nil {
		return nil, err
	}
	if s.postgres, err = privatepg.Start(ctx, s.options); err != nil {
		return nil, err
	}
	if err := s.startTemporal(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	_, port, err := net.SplitHostPort(s.temporal.Addr())
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.port, err = strconv.Atoi(port)
	return s, err
}

// ownStack is for tests that stop parts of it.
func ownStack(t *testing.T) *stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	s, err := newStack(ctx, filepath.Join(workDir, nameOf(t)+"-stack"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.close()) })
	return s
}

func (s *stack) startTemporal(ctx context.Context) (err error) {
	s.temporal, err = temporal.Start(ctx, temporal.Options{
		PostgresDSN: s.postgres.DSN("postgres"), Port: s.port, NoUI: true, Logger: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	return err
}

func (s *stack) stopTemporal() error {
	if s.temporal == nil {
		return nil
	}
	defer func() { s.temporal = nil }()
	return s.temporal.Stop()
}

func (s *stack) startPostgres(ctx context.Context) (err error) {
	s.postgres, err = privatepg.Start(ctx, s.options)
	return err
}

func (s *stack) close() error {
	err := s.stopTemporal()
	return errors.Join(err, s.postgres.Stop(privatepg.Immediate), s.log.Close())
}

func (s *stack) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }
