package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"commissaire/internal/config"
	"commissaire/internal/dispatch"
	"commissaire/internal/fleet"
)

// watching takes from the settings how hosts are watched.
func watching(c *config.Config) dispatch.WatchOptions {
	return dispatch.WatchOptions{Interval: c.WatchInterval, Slow: c.WatchSlow, Failures: c.WatchFailures, Facts: c.WatchFactsInterval}
}

// watchMetrics count the checks of hosts that a worker makes.
type watchMetrics struct {
	checks *prometheus.CounterVec
	took   prometheus.Histogram
}

func newWatchMetrics() *watchMetrics {
	m := &watchMetrics{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "commissaire_watch_checks_total",
			Help: "Checks of hosts between operations, by what they found.",
		}, []string{"found"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "commissaire_watch_check_duration_seconds",
			Help:    "Time that a check of a host took, with its facts where they were read.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	for _, state := range fleet.WatchStates {
		m.checks.WithLabelValues(string(state)) // a rate needs a zero to begin with
	}
	return m
}

func (m *watchMetrics) seen(found fleet.WatchState, took time.Duration) {
	m.checks.WithLabelValues(string(found)).Inc()
	m.took.Observe(took.Seconds())
}

func (m *watchMetrics) Describe(descs chan<- *prometheus.Desc) {
	m.checks.Describe(descs)
	m.took.Describe(descs)
}

func (m *watchMetrics) Collect(metrics chan<- prometheus.Metric) {
	m.checks.Collect(metrics)
	m.took.Collect(metrics)
}

var watchedDesc = prometheus.NewDesc("commissaire_watched_hosts", "Hosts of all tenants by what their last check found; never is for those that no check has looked at.", []string{"found"}, nil)

// watchGauge counts hosts by what their last check found, when somebody looks, and at
// most every 10 s. All servers of an installation give the same numbers.
type watchGauge struct {
	states func(context.Context) (map[fleet.WatchState]int, error)
	log    *slog.Logger

	mu     sync.Mutex
	looked time.Time
	found  map[fleet.WatchState]int // nil when they could not be read
}

const (
	watchGaugeFor     = 10 * time.Second
	watchGaugeTimeout = 5 * time.Second
)

func (g *watchGauge) Describe(descs chan<- *prometheus.Desc) { descs <- watchedDesc }

func (g *watchGauge) Collect(metrics chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.looked.IsZero() || time.Since(g.looked) >= watchGaugeFor {
		ctx, cancel := context.WithTimeout(context.Background(), watchGaugeTimeout)
		defer cancel()
		var err error
		if g.found, err = g.states(ctx); err != nil {
			g.found = nil
			g.log.WarnContext(ctx, "the gauge of watched hosts could not be read", "error", err)
		}
		g.looked = time.Now()
	}
	if g.found == nil {
		return
	}
	gauge := func(name string, n int) {
		metrics <- prometheus.MustNewConstMetric(watchedDesc, prometheus.GaugeValue, float64(n), name)
	}
	for _, state := range fleet.WatchStates {
		gauge(string(state), g.found[state])
	}
	gauge("never", g.found[fleet.WatchNever])
}
