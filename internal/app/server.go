package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"commissaire/api"
	"commissaire/internal/config"
	"commissaire/internal/dispatch"
	"commissaire/internal/fleet"
	"commissaire/internal/version"
)

// RunServer serves the API until ctx ends, then lets requests finish. It starts
// also while Postgres or Temporal is down, and answers 503 meanwhile.
func RunServer(ctx context.Context, c *config.Config, log *slog.Logger) error {
	p, err := open(ctx, c, log, nil)
	if err != nil {
		return err
	}
	defer p.close()
	if err := checkKeys(ctx, p.db, c.SealingKeyFile, log); err != nil {
		return err
	}
	tenant := p.db.For(fleet.DefaultTenant)
	front, err := newFront(ctx, c, tenant, log)
	if err != nil {
		return err
	}

	configured, err := hostSources(c)
	if err != nil {
		return err
	}
	var sources []fleet.Source
	for _, s := range configured {
		sources = append(sources, s.Source)
	}

	dispatcher := dispatch.New(p.temporal, allTenants{p.db}, dispatch.Options{TaskQueue: c.TaskQueue, Timing: timing(c)}, log)
	needed := []part{
		{api.Check{Name: "postgres", Run: shared(p.db.CheckSchema)}, "Postgres", "nothing can be read or changed"},
		{api.Check{Name: "temporal", Run: dispatcher.Ready}, "Temporal",
			"reading works, but adding hosts and starting operations is refused with 503"},
	}
	registry := prometheus.NewRegistry()
	up := newUp()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(), up,
		&vitals{record: p.db.Vitals, workers: dispatcher.Workers, sources: sources, ages: tenant.SourceAges, tls: front.tls, log: log})
	background, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { dispatcher.Run(background) })
	running.Go(func() { dispatcher.KeepSchedules(background, p.db, watching(c)) })
	running.Go(func() { dispatcher.KeepRefreshes(background, fleet.DefaultTenant, sources) })
	running.Go(func() { watch(background, needed, watchEvery, up, log) })
	defer func() {
		stop()
		running.Wait()
	}()

	registry.MustRegister(&watchGauge{standing: p.db.WatchStanding, interval: c.WatchInterval, log: log})
	handler := api.New(api.Deps{
		Store:          tenant,
		Changes:        p.db.Changes,
		Dispatcher:     dispatcher,
		Authn:          front.chain,
		TrustedProxies: front.proxies,
		SelfAuths:      c.SelfAuths,
		Sources:        sources,
		Logger:         log,
		Metrics:        registry,
		Version:        api.Version{Version: version.Version, Commit: version.Commit(), Go: runtime.Version()},
		Readiness:      checks(needed),
	})
	server := api.NewHTTPServer(c.Listen(), handler, log)
	server.TLSConfig = front.tls
	return serve(ctx, server, "listen-interface and listen-port", c.ShutdownTimeout, log)
}

func checks(parts []part) (all []api.Check) {
	for _, p := range parts {
		all = append(all, p.Check)
	}
	return all
}

// sharedFor is how long the answer of a shared check is good.
const sharedFor = time.Second

// shared lets all callers of a check share one answer for a second, so that
// strangers, who may ask for readiness, cannot keep its part busy.
func shared(check func(context.Context) error) func(context.Context) error {
	var mu sync.Mutex
	var asked time.Time
	var answer error
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if asked.IsZero() || time.Since(asked) >= sharedFor {
			// A caller that goes away must not spoil the answer of others.
			answer = check(context.WithoutCancel(ctx))
			asked = time.Now()
		}
		return answer
	}
}

// serve runs an HTTP server until ctx ends, over TLS when it has settings for that.
// settings are those that say where it listens.
func serve(ctx context.Context, server *http.Server, settings string, grace time.Duration, log *slog.Logger) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", server.Addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (is another program running there? see %s)", server.Addr, err, settings)
	}
	log.InfoContext(ctx, "API is served", "address", listener.Addr().String(), "tls", server.TLSConfig != nil)
	failed := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			failed <- server.ServeTLS(listener, "", "") // its settings know the files
			return
		}
		failed <- server.Serve(listener)
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Info("server stops; requests may finish", "within", grace)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err = server.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
