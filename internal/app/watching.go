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
	"commissaire/internal/store"
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

var (
	watchedDesc = prometheus.NewDesc("commissaire_watched_hosts", "Hosts of all tenants by what their last check found; never is for those that no check has looked at.", []string{"found"}, nil)
	newestDesc  = prometheus.NewDesc("commissaire_watch_newest_check_seconds", "Time since the newest check of a host began; left out when there was none.", nil, nil)
	everyDesc   = prometheus.NewDesc("commissaire_watch_interval_seconds", "The setting watch-interval; 0 watches none.", nil, nil)
)

// watchGauge counts hosts by what their last check found, when somebody looks, and at
// most every 10 s. All servers of an installation give the same numbers.
type watchGauge struct {
	standing func(context.Context) (store.WatchStanding, error)
	interval time.Duration
	log      *slog.Logger

	mu     sync.Mutex
	looked time.Time
	found  store.WatchStanding // without Found when it could not be read
}

const (
	watchGaugeFor     = 10 * time.Second
	watchGaugeTimeout = 5 * time.Second
)

func (g *watchGauge) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{watchedDesc, newestDesc, everyDesc} {
		descs <- d
	}
}

func (g *watchGauge) Collect(metrics chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.looked.IsZero() || time.Since(g.looked) >= watchGaugeFor {
		ctx, cancel := context.WithTimeout(context.Background(), watchGaugeTimeout)
		defer cancel()
		var err error
		if g.found, err = g.standing(ctx); err != nil {
			g.found = store.WatchStanding{}
			g.log.WarnContext(ctx, "the gauge of watched hosts could not be read", "error", err)
		}
		g.looked = time.Now()
	}
	metrics <- gauge(everyDesc, g.interval.Seconds())
	if g.found.Found == nil {
		return
	}
	if g.found.Newest != nil {
		// It grows on until the next look.
		metrics <- gauge(newestDesc, (*g.found.Newest + time.Since(g.looked)).Seconds())
	}
	for _, state := range fleet.WatchStates {
		metrics <- gauge(watchedDesc, float64(g.found.Found[state]), string(state))
	}
	metrics <- gauge(watchedDesc, float64(g.found.Found[fleet.WatchNever]), "never")
}
