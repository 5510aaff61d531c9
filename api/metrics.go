package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics count requests by operationId and status, and what the audit log lacks.
// Never by host or cluster: names are for the log, ten thousand series are not.
type metrics struct {
	requests  *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	unaudited *prometheus.CounterVec
}

// What the audit log lacks when it cannot be written.
const (
	unauditedBegin = "begin" // the act was refused with 503, or was a refusal itself
	unauditedEnd   = "end"   // the act was done or failed, and the log has status 0
)

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "commissaire_http_requests_total",
			Help: "Requests by operationId of the API document and status; operation \"none\" found no route.",
		}, []string{"operation", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "commissaire_http_request_duration_seconds",
			Help:    "Time until the answer was written, by operationId.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"operation"}),
		unaudited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "commissaire_audit_failures_total",
			Help: "Writes of the audit log that failed: \"begin\" of acts, which are refused then, and \"end\" of acts.",
		}, []string{"write"}),
	}
	for _, write := range []string{unauditedBegin, unauditedEnd} {
		m.unaudited.WithLabelValues(write) // a rate needs a zero to begin with
	}
	registry.MustRegister(m.requests, m.latency, m.unaudited)
	return m
}

func (m *metrics) seen(operation string, status int, took time.Duration) {
	if operation == "" {
		operation = "none"
	}
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	m.latency.WithLabelValues(operation).Observe(took.Seconds())
}

// lacks counts a write of the audit log that failed; not one whose client has gone.
func (m *metrics) lacks(write string, err error) {
	if !errors.Is(err, context.Canceled) {
		m.unaudited.WithLabelValues(write).Inc()
	}
}

func metricsPage(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
