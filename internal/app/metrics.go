package app

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"commissaire/api"
	"commissaire/internal/config"
)

// serveWorkerPages serves /metrics, /livez and /readyz of a worker, when it is
// asked to. ready answers whether the worker takes steps.
func serveWorkerPages(ctx context.Context, c *config.Config, log *slog.Logger, ready func(context.Context) error, more ...prometheus.Collector) error {
	if c.MetricsListen == "" {
		<-ctx.Done()
		return nil
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	registry.MustRegister(more...)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := ready(ctx); err != nil {
			log.WarnContext(ctx, "not ready", "error", err)
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return serve(ctx, api.NewHTTPServer(c.MetricsListen, mux, log), "metrics-listen", c.ShutdownTimeout, log)
}
