package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/client"

	"commissaire/activities"
	"commissaire/internal/config"
	"commissaire/internal/dispatch"
	"commissaire/internal/profile"
	"commissaire/internal/remote"
	"commissaire/worker"
	"commissaire/workflows"
)

// RunWorker runs a worker until ctx ends, then lets its steps hand over.
func RunWorker(ctx context.Context, c *config.Config, log *slog.Logger) error {
	var points failpoints
	p, err := open(ctx, c, log, func(o *client.Options) { points = installFailpoints(o) })
	if err != nil {
		return err
	}
	defer p.close()
	namespace := func(ctx context.Context) error { return dispatch.CheckNamespace(ctx, p.temporal, p.namespace) }
	revision := workflows.Revision
	versions := func(ctx context.Context) error {
		knows, why, err := dispatch.KnowsVersions(ctx, p.temporal)
		if err == nil && !knows {
			revision = 0
			log.WarnContext(ctx, "Temporal does not tell workers of different revisions apart; stop all old workers before new ones begin", "error", why)
		}
		return err
	}
	if !untilReady(ctx, log, "Postgres and its schema", p.db.CheckSchema) ||
		!untilReady(ctx, log, "Temporal and its namespace", namespace) ||
		!untilReady(ctx, log, "Temporal to know the revisions of workers", versions) {
		return nil // asked to stop before it began
	}
	if err := checkKeys(ctx, p.db, c.SealingKeyFile, log); err != nil {
		return err
	}
	sources, err := hostSources(c)
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	dialer := remote.NewDialer(remote.Options{
		DialTimeout:       c.SSHDialTimeout,
		HandshakeTimeout:  c.SSHHandshakeTimeout,
		KeepAliveInterval: c.SSHKeepalive,
		KeepAliveMisses:   3,
		MaxHandshakes:     c.SSHMaxHandshakes,
	})
	defer dialer.Close()
	pool := remote.NewPool(dialer, c.SSHIdleTimeout)
	defer pool.Close()
	nodes := &activities.Nodes{Store: func(tenant string) activities.NodeStore { return p.db.For(tenant) }}
	defer nodes.Close()
	checks := newWatchMetrics()
	watch := activities.NewWatch(func(tenant string) activities.WatchStore { return p.db.For(tenant) }, checks.seen)
	defer watch.Close()
	w := worker.New(p.temporal,
		worker.Options{TaskQueue: c.TaskQueue, Revision: revision, Slots: c.WorkerSlots, Heartbeat: c.HeartbeatTimeout, StopTimeout: c.ShutdownTimeout, Fatal: fail, Interceptors: points.interceptors()},
		&activities.Record{Store: func(tenant string) activities.RecordStore { return p.db.For(tenant) }, Profile: c.BootstrapProfile},
		&activities.Hosts{
			Store: func(tenant string) activities.HostStore { return p.db.For(tenant) }, SSH: pool,
			Settings: func() (profile.Settings, error) { return bootstrapSettings(c) },
		},
		nodes,
		watch,
		&activities.Sources{Store: func(tenant string) activities.SourceStore { return p.db.For(tenant) }, Known: sources},
		activities.NewCommands(func(tenant string) activities.CommandStore { return p.db.For(tenant) }, dialer),
	)
	if err := w.Start(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	log.InfoContext(ctx, "worker takes operations", "task_queue", c.TaskQueue, "slots", c.WorkerSlots)
	var current sync.WaitGroup
	if revision > 0 {
		current.Go(func() { dispatch.KeepCurrent(ctx, p.temporal, revision, log) })
	}
	err = serveWorkerPages(ctx, c, log, func(ctx context.Context) error { return errors.Join(namespace(ctx), p.db.Ping(ctx)) }, checks)
	log.Info("worker stops; its steps hand over", "within", c.ShutdownTimeout)
	w.Stop()
	fail(nil)
	current.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, fmt.Errorf("Temporal stopped the worker: %w", cause))
	}
	return err
}

const (
	readyTimeout = 5 * time.Second
	readyWait    = 500 * time.Millisecond
)

// untilReady waits for a part that this process cannot do without. It says
// what it waits for, and ends only with ctx: in a fresh installation the parts
// come up in any order.
func untilReady(ctx context.Context, log *slog.Logger, what string, check func(context.Context) error) (ready bool) {
	for said := ""; ; {
		try, cancel := context.WithTimeout(ctx, readyTimeout)
		err := check(try)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			log.WarnContext(ctx, "waiting for "+what, "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(readyWait):
		}
	}
}
