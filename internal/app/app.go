// Package app wires the parts into the two processes of Commissaire: the API
// server and the worker. It is the one place where everything meets.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.temporal.io/sdk/client"

	"commissaire/internal/config"
	"commissaire/internal/dispatch"
	"commissaire/internal/fleet"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/migrations"
	"commissaire/workflows"
)

// Logger makes the logger that the settings ask for, on standard error.
func Logger(c *config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level()}
	if c.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(os.Stderr, options))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options))
}

// Migrate brings the database to the schema of this version and creates what
// Temporal lacks: the namespace and its search attributes. Repeating it changes
// nothing; several may run at once.
func Migrate(ctx context.Context, c *config.Config, log *slog.Logger) error {
	dsn, err := c.DSN()
	if err != nil {
		return err
	}
	if err := migrations.Up(ctx, dsn); err != nil {
		return err
	}
	options, err := temporalOptions(c, log)
	if err != nil {
		return err
	}
	return dispatch.Setup(ctx, options)
}

func temporalOptions(c *config.Config, log *slog.Logger) (client.Options, error) {
	return dispatch.Connection{Address: c.TemporalAddress, Namespace: c.TemporalNamespace}.ClientOptions(log)
}

// parts are what both processes need.
type parts struct {
	db        *store.DB
	temporal  client.Client
	namespace string // of Temporal
}

// open opens the database and the Temporal client. Both connect when they are
// first used, so a process also starts while one of them is down.
func open(ctx context.Context, c *config.Config, log *slog.Logger, adjust func(*client.Options)) (*parts, error) {
	db, err := openDB(ctx, c)
	if err != nil {
		return nil, err
	}
	t, namespace, err := openTemporal(c, log, adjust)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &parts{db: db, temporal: t, namespace: namespace}, nil
}

func openTemporal(c *config.Config, log *slog.Logger, adjust func(*client.Options)) (t client.Client, namespace string, err error) {
	options, err := temporalOptions(c, log)
	if err == nil {
		if adjust != nil {
			adjust(&options)
		}
		t, err = client.NewLazyClient(options)
	}
	if err != nil {
		return nil, "", fmt.Errorf("temporal client: %w", err)
	}
	return t, options.Namespace, nil
}

func openDB(ctx context.Context, c *config.Config) (*store.DB, error) {
	sealer, err := openSealer(c)
	if err != nil {
		return nil, err
	}
	dsn, err := c.DSN()
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, dsn, sealer)
}

func openSealer(c *config.Config) (*secret.Sealer, error) {
	if c.SealingKeyFile == "" {
		return nil, errors.New("sealing-key-file is not set; make one with 'commissaire key create FILE' and name it in the configuration")
	}
	return secret.OpenKeyFile(c.SealingKeyFile)
}

func (p *parts) close() {
	p.temporal.Close()
	p.db.Close()
}

// timing takes the time limits of operations from the settings.
func timing(c *config.Config) workflows.Timing {
	return workflows.Timing{Heartbeat: c.HeartbeatTimeout, Step: c.StepTimeout, Unreachable: c.UnreachableAfter, Reboot: c.RebootTimeout, Hold: c.HoldTimeout}
}

// allTenants is the store as the dispatcher sees it.
type allTenants struct{ *store.DB }

func (s allTenants) EndOperation(ctx context.Context, tenant, id string, state fleet.OperationState, reason string) error {
	return s.For(tenant).EndOperation(ctx, id, state, reason)
}

func (s allTenants) LeftCordons(ctx context.Context, olderThan time.Duration, limit int) (hosts []workflows.HostRef, err error) {
	left, err := s.DB.LeftCordons(ctx, olderThan, limit)
	for _, c := range left {
		hosts = append(hosts, workflows.HostRef{OperationRef: workflows.OperationRef{Tenant: c.Tenant, OperationID: c.OperationID}, Address: c.Address})
	}
	return hosts, err
}
