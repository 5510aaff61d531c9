package app

import (
	"context"
	"crypto/tls"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/internal/version"
)

// buildInfo tells which version a process is.
func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "commissaire_build_info",
		Help:        "1; the labels say which version this process is.",
		ConstLabels: prometheus.Labels{"version": version.Version, "commit": version.Commit()},
	}, func() float64 { return 1 })
}

// newUp makes the gauge of what watch sees.
func newUp() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "commissaire_dependency_up",
		Help: "1 while postgres or temporal answers and can be used, else 0.",
	}, []string{"name"})
}

const (
	// vitalsFor is how long what was read is good, also that it could not be.
	vitalsFor = 10 * time.Second
	// vitalsTimeout is below the 10 s that Prometheus waits for a page.
	vitalsTimeout = 5 * time.Second
)

var (
	hostsDesc = prometheus.NewDesc("commissaire_hosts", "Hosts of all tenants by state.", []string{"state"}, nil)
	opsDesc   = prometheus.NewDesc("commissaire_operations_unfinished",
		"Operations that have not ended, by kind and state: pending, running, or waiting (running, and the record says what for).", []string{"kind", "state"}, nil)
	quietDesc = prometheus.NewDesc("commissaire_operation_quiet_seconds",
		"Time since the record of the quietest unfinished operation has grown, by kind and state.", []string{"kind", "state"}, nil)
	cordonsDesc   = prometheus.NewDesc("commissaire_cordons_left", "Nodes that are still cordoned though the work on their hosts has ended.", nil, nil)
	cordonAgeDesc = prometheus.NewDesc("commissaire_cordon_left_seconds", "Time since the work ended on the host of the oldest of commissaire_cordons_left; 0 for none.", nil, nil)
	keysDesc      = prometheus.NewDesc("commissaire_sealing_keys_missing", "Keys that stored secrets need and the key file of this process does not have.", nil, nil)
	workersDesc   = prometheus.NewDesc("commissaire_workers", "Workers that asked Temporal for steps in the last minutes.", nil, nil)
	syncedDesc    = prometheus.NewDesc("commissaire_source_synced_seconds", "Time since the last good sync of a host source with refresh; since the first one while none was good.", []string{"source"}, nil)
	refreshDesc   = prometheus.NewDesc("commissaire_source_refresh_seconds", "How often a host source is asked without anybody's order.", []string{"source"}, nil)
	readDesc      = prometheus.NewDesc("commissaire_vitals_read", "1 when what the gauges say of the record or of the workers could be read, else 0 and they are left out.", []string{"of"}, nil)
	certDesc      = prometheus.NewDesc("commissaire_tls_certificate_expiry_timestamp_seconds", "Unix time at which the certificate of the API ends.", nil, nil)
)

// vitals are gauges of what operators watch, read when somebody looks, one look at a
// time, and at most every 10 s. All servers of an installation give the same numbers.
type vitals struct {
	record  func(context.Context) (store.Vitals, error)
	workers func(context.Context) (int, error)
	sources []fleet.Source
	ages    func(ctx context.Context, sources []string) (map[string]time.Duration, error) // nil without sources
	tls     *tls.Config                                                                   // nil for plain HTTP
	log     *slog.Logger

	mu     sync.Mutex
	looked time.Time
	found  []prometheus.Metric
}

func (v *vitals) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{hostsDesc, opsDesc, quietDesc, cordonsDesc, cordonAgeDesc, keysDesc, workersDesc, syncedDesc, refreshDesc, readDesc, certDesc} {
		descs <- d
	}
}

func (v *vitals) Collect(metrics chan<- prometheus.Metric) {
	for _, m := range v.look() {
		metrics <- m
	}
}

func (v *vitals) look() []prometheus.Metric {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.looked.IsZero() && time.Since(v.looked) < vitalsFor {
		return v.found
	}
	ctx, cancel := context.WithTimeout(context.Background(), vitalsTimeout)
	defer cancel()
	var record, workers, sources []prometheus.Metric
	var all sync.WaitGroup
	all.Go(func() { record = v.ofRecord(ctx) })
	all.Go(func() { workers = v.ofWorkers(ctx) })
	all.Go(func() { sources = v.ofSources(ctx) })
	all.Wait()
	v.found = slices.Concat(record, workers, sources)
	if expiry := certificateExpiry(v.tls); !expiry.IsZero() {
		v.found = append(v.found, gauge(certDesc, float64(expiry.Unix())))
	}
	v.looked = time.Now()
	return v.found
}

func (v *vitals) ofRecord(ctx context.Context) []prometheus.Metric {
	r, err := v.record(ctx)
	if err != nil {
		v.log.WarnContext(ctx, "the gauges of the record could not be read", "error", err)
		return []prometheus.Metric{gauge(readDesc, 0, "record")}
	}
	found := []prometheus.Metric{
		gauge(readDesc, 1, "record"),
		gauge(cordonsDesc, float64(r.Cordons)), gauge(cordonAgeDesc, r.CordonAge.Seconds()),
		gauge(keysDesc, float64(len(r.NoKeys))),
	}
	for _, state := range []fleet.HostState{fleet.HostInvestigating, fleet.HostBootstrapping, fleet.HostActive, fleet.HostDisassociated, fleet.HostFailed} {
		found = append(found, gauge(hostsDesc, float64(r.Hosts[state]), string(state)))
	}
	for _, u := range r.Unfinished {
		found = append(found, gauge(opsDesc, float64(u.Count), string(u.Kind), u.State), gauge(quietDesc, u.Quiet.Seconds(), string(u.Kind), u.State))
	}
	return found
}

func (v *vitals) ofWorkers(ctx context.Context) []prometheus.Metric {
	n, err := v.workers(ctx)
	if err != nil {
		return []prometheus.Metric{gauge(readDesc, 0, "workers")} // watch tells of Temporal
	}
	return []prometheus.Metric{gauge(readDesc, 1, "workers"), gauge(workersDesc, float64(n))}
}

// ofSources is about those that are asked without anybody's order.
func (v *vitals) ofSources(ctx context.Context) (found []prometheus.Metric) {
	var names []string
	for _, s := range v.sources {
		if s.Refresh > 0 {
			names = append(names, s.Name)
			found = append(found, gauge(refreshDesc, s.Refresh.Seconds(), s.Name))
		}
	}
	if names == nil {
		return nil
	}
	ages, err := v.ages(ctx, names)
	if err != nil {
		v.log.WarnContext(ctx, "the gauges of host sources could not be read", "error", err)
		return found
	}
	for name, age := range ages {
		found = append(found, gauge(syncedDesc, age.Seconds(), name))
	}
	return found
}

func gauge(d *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// certificateExpiry gives the end of the certificate that new connections get now, which
// files may have changed since the start; zero for plain HTTP.
func certificateExpiry(c *tls.Config) time.Time {
	if c == nil {
		return time.Time{}
	}
	now, err := c.GetConfigForClient(&tls.ClientHelloInfo{})
	if err != nil || len(now.Certificates) == 0 || now.Certificates[0].Leaf == nil {
		return time.Time{}
	}
	return now.Certificates[0].Leaf.NotAfter
}
