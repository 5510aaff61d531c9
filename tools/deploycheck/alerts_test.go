package deploycheck

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
)

const alertsFile = "../../deploy/prometheus/alerts.yml"

// minutes is how long the series of the tests are; they are looked at in the last one.
const minutes = 60

// healthy is an installation with two servers in which all is well.
const healthy = `
	up{job="commissaire-server",instance="a"} 1x60
	up{job="commissaire-server",instance="b"} 1x60
	up{job="commissaire-worker",instance="w"} 1x60
	process_start_time_seconds{job="commissaire-server",instance="a"} 100x60
	commissaire_build_info{job="commissaire-server",instance="a",version="1",commit="x"} 1x60
	commissaire_build_info{job="commissaire-worker",instance="w",version="1",commit="x"} 1x60
	commissaire_dependency_up{name="postgres",job="commissaire-server",instance="a"} 1x60
	commissaire_dependency_up{name="temporal",job="commissaire-server",instance="a"} 1x60
	commissaire_vitals_read{of="record",job="commissaire-server",instance="a"} 1x60
	commissaire_workers{instance="a"} 1x60
	commissaire_workers{instance="b"} 1x60
	commissaire_hosts{state="active",instance="a"} 100x60
	commissaire_hosts{state="active",instance="b"} 100x60
	commissaire_hosts{state="failed",instance="a"} 0x60
	commissaire_hosts{state="failed",instance="b"} 0x60
	commissaire_operation_quiet_seconds{kind="bootstrap",state="pending",instance="a"} 3x60
	commissaire_operation_quiet_seconds{kind="upgrade",state="running",instance="a"} 1200x60
	commissaire_operation_quiet_seconds{kind="deploy",state="waiting",instance="a"} 7200x60
	commissaire_watched_hosts{found="healthy",instance="a"} 100x60
	commissaire_watched_hosts{found="key-changed",instance="a"} 0x60
	commissaire_watch_newest_check_seconds{instance="a"} 50x60
	commissaire_watch_newest_check_seconds{instance="b"} 55x60
	commissaire_watch_interval_seconds{instance="a"} 60x60
	commissaire_watch_interval_seconds{instance="b"} 60x60
	commissaire_source_synced_seconds{source="cmdb",instance="a"} 3000x60
	commissaire_source_refresh_seconds{source="cmdb",instance="a"} 3600x60
	commissaire_source_synced_seconds{source="by-hand",instance="a"} 9000000x60
	commissaire_cordons_left{instance="a"} 1x60
	commissaire_cordon_left_seconds{instance="a"} 20x60
	commissaire_sealing_keys_missing{instance="a"} 0x60
	commissaire_tls_certificate_expiry_timestamp_seconds{instance="a"} 2592000x60
	commissaire_audit_failures_total{write="begin",job="commissaire-server",instance="a"} 3x60
	commissaire_http_requests_total{operation="listHosts",status="200",instance="a"} 0+100x60
	commissaire_http_requests_total{operation="getHost",status="503",instance="a"} 0+1x60
	commissaire_http_requests_total{operation="readyz",status="503",instance="a"} 0+100x60
	commissaire_http_request_duration_seconds_bucket{operation="listHosts",le="0.1",instance="a"} 0+100x60
	commissaire_http_request_duration_seconds_bucket{operation="listHosts",le="10",instance="a"} 0+100x60
	commissaire_http_request_duration_seconds_bucket{operation="listHosts",le="+Inf",instance="a"} 0+100x60
`

// trouble is what comes on top of healthy when an alert is to fire.
var trouble = map[string][]string{
	"CommissaireServerDown":      {`up{job="commissaire-server",instance="b"} 0x60`},
	"CommissairePostgresDown":    {`commissaire_dependency_up{name="postgres",job="commissaire-server",instance="b"} 0x60`},
	"CommissaireTemporalDown":    {`commissaire_dependency_up{name="temporal",job="commissaire-server",instance="b"} 0x60`},
	"CommissaireWorkerDown":      {`up{job="commissaire-worker",instance="v"} 0x60`},
	"CommissaireRestarting":      {`process_start_time_seconds{job="commissaire-worker",instance="w"} 100+60x60`},
	"CommissaireVersionsMixed":   {`commissaire_build_info{job="commissaire-worker",instance="v",version="2",commit="y"} 1x60`},
	"CommissaireHostsFailed":     {`commissaire_hosts{state="failed",instance="c"} 1x60`},
	"CommissaireManyHostsFailed": {`commissaire_hosts{state="failed",instance="c"} 10x60`},
	"CommissaireOperationNotStarted": {
		`commissaire_operation_quiet_seconds{kind="restart",state="pending",instance="a"} 121x60`},
	"CommissaireOperationStuck":   {`commissaire_operation_quiet_seconds{kind="restart",state="running",instance="a"} 2401x60`},
	"CommissaireOperationWaiting": {`commissaire_operation_quiet_seconds{kind="restart",state="waiting",instance="a"} 86401x60`},
	"CommissaireHostKeyChanged":   {`commissaire_watched_hosts{found="key-changed",instance="b"} 1x60`},
	"CommissaireSourceStale": {
		`commissaire_source_synced_seconds{source="other",instance="a"} 10801x60`,
		`commissaire_source_refresh_seconds{source="other",instance="a"} 3600x60`},
	"CommissaireCordonLeft":   {`commissaire_cordon_left_seconds{instance="b"} 601x60`},
	"CommissaireAuditFailing": {`commissaire_audit_failures_total{write="end",job="commissaire-server",instance="a"} 0+1x60`},
	"CommissaireSealingKeyMissing": {
		`commissaire_sealing_keys_missing{instance="b"} 1x60`},
	"CommissaireCertificateEndsSoon": {`commissaire_tls_certificate_expiry_timestamp_seconds{instance="b"} 864000x60`},
	"CommissaireCertificateEnds":     {`commissaire_tls_certificate_expiry_timestamp_seconds{instance="b"} 3000x60`},
	"CommissaireGuessing":            {`commissaire_http_requests_total{operation="none",status="429",instance="a"} 0+20x60`},
	"CommissaireAPIErrors":           {`commissaire_http_requests_total{operation="getHost",status="500",instance="a"} 0+10x60`},
	"CommissaireAPISlow": {
		`commissaire_http_request_duration_seconds_bucket{operation="getHost",le="0.1",instance="a"} 0+1x60`,
		`commissaire_http_request_duration_seconds_bucket{operation="getHost",le="10",instance="a"} 0+2x60`,
		`commissaire_http_request_duration_seconds_bucket{operation="getHost",le="+Inf",instance="a"} 0+2x60`},
	"CommissaireVitalsUnread": {
		`commissaire_dependency_up{name="postgres",job="commissaire-server",instance="b"} 1x60`,
		`commissaire_vitals_read{of="record",job="commissaire-server",instance="b"} 0x60`},
}

// instead are alerts about what is missing: they have an installation of their own.
var instead = map[string]string{
	"CommissaireWorkerMissing": `
	commissaire_workers{instance="a"} 0x60
	commissaire_workers{instance="b"} 0x60`,
	"CommissaireWatchStalled": `
	commissaire_watch_newest_check_seconds{instance="a"} 0+60x60
	commissaire_watch_interval_seconds{instance="a"} 60x60`,
}

func rules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.UTF8Validation)
	require.Empty(t, errs)
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// TestAlerts: each alert fires over the series that mean it, and over no others.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for _, r := range rules(t) {
		t.Run(r.Alert, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, fires(t, r.Expr, healthy), "all is well")
			series, ok := instead[r.Alert]
			if !ok {
				require.NotEmpty(t, trouble[r.Alert], "no series that make it fire")
				series = healthy
				for _, s := range trouble[r.Alert] {
					series += "\t" + s + "\n"
				}
			}
			require.NotEmpty(t, fires(t, r.Expr, series))
		})
	}
	require.Len(t, rules(t), len(trouble)+len(instead))
	require.NotEmpty(t, fires(t, rules(t)[0].Expr, `other 1x60`), "no server at all")
}

// TestAlertsThatDoNotFire: what is as it should be, though it does not look like healthy.
func TestAlertsThatDoNotFire(t *testing.T) {
	t.Parallel()
	exprs := map[string]string{}
	for _, r := range rules(t) {
		exprs[r.Alert] = r.Expr
	}
	for name, c := range map[string]struct{ alert, series string }{
		"between checks every day": {"CommissaireWatchStalled", `
	commissaire_watch_newest_check_seconds{instance="a"} 86400x60
	commissaire_watch_interval_seconds{instance="a"} 86400x60`},
		"checks a little late": {"CommissaireWatchStalled", `
	commissaire_watch_newest_check_seconds{instance="a"} 800x60
	commissaire_watch_interval_seconds{instance="a"} 1x60`},
		"nobody is to check any more": {"CommissaireWatchStalled", `
	commissaire_watch_newest_check_seconds{instance="a"} 0+60x60
	commissaire_watch_interval_seconds{instance="a"} 0x60`},
		"nothing was ever checked": {"CommissaireWatchStalled", `
	commissaire_watch_interval_seconds{instance="a"} 60x60`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NotEmpty(t, exprs[c.alert])
			require.Empty(t, fires(t, exprs[c.alert], c.series))
		})
	}

	// Probes are no requests: beside them one in eleven would look like none.
	require.NotEmpty(t, fires(t, exprs["CommissaireAPIErrors"], `
	commissaire_http_requests_total{operation="readyz",status="200",instance="a"} 0+1000x60
	commissaire_http_requests_total{operation="metrics",status="200",instance="a"} 0+1000x60
	commissaire_http_requests_total{operation="getHost",status="200",instance="a"} 0+10x60
	commissaire_http_requests_total{operation="getHost",status="500",instance="a"} 0+1x60`))
}

func fires(t *testing.T, expr, series string) promql.Vector {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m\n"+strings.TrimLeft(series, "\n"))
	defer storage.Close()
	engine := promqltest.NewTestEngine(t, false, 0, 100_000)
	query, err := engine.NewInstantQuery(t.Context(), storage, nil, expr, time.Unix(0, 0).Add(minutes*time.Minute))
	require.NoError(t, err, fmt.Sprintf("%q", expr))
	defer query.Close()
	found, err := query.Exec(t.Context()).Vector()
	require.NoError(t, err)
	return found
}
