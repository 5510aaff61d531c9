package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
	"commissaire/internal/fleet"
	"commissaire/internal/httptls"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// page gives /metrics of a server.
func (s served) page(t *testing.T) string {
	t.Helper()
	response, err := http.Get(s.url + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	return string(text)
}

// TestVitalsOfAServer: whoever reads /metrics sees what is away and what there is.
func TestVitalsOfAServer(t *testing.T) {
	t.Parallel()
	s := serveAPI(t, func(c *config.Config) { putHost(t, c, "h1") }) // there is no Temporal
	lines := []string{
		`commissaire_dependency_up{name="postgres"} 1`,
		`commissaire_dependency_up{name="temporal"} 0`,
		`commissaire_vitals_read{of="record"} 1`,
		`commissaire_vitals_read{of="workers"} 0`,
		`commissaire_hosts{state="investigating"} 1`,
		`commissaire_hosts{state="failed"} 0`,
		`commissaire_operations_unfinished{kind="bootstrap",state="pending"} 1`,
		`commissaire_operation_quiet_seconds{kind="bootstrap",state="pending"} `,
		`commissaire_cordons_left 0`,
		`commissaire_cordon_left_seconds 0`,
		`commissaire_sealing_keys_missing 0`,
		`commissaire_build_info{commit=`,
	}
	var page string
	require.EventuallyWithT(t, func(c *assert.CollectT) { // what was not read in time is read again
		page = s.page(t)
		for _, line := range lines {
			assert.Contains(c, page, "\n"+line)
		}
	}, 2*time.Minute, 50*time.Millisecond)
	require.NotContains(t, page, "\ncommissaire_workers ", "nobody knows")
	require.NotContains(t, page, "\ncommissaire_tls_certificate_expiry", "it speaks plain HTTP")
}

// putHost puts a host on record, with a secret that the key file of c seals.
func putHost(t *testing.T, c *config.Config, address string) {
	t.Helper()
	sealer, err := secret.OpenKeyFile(c.SealingKeyFile)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), c.DatabaseURL, sealer)
	require.NoError(t, err)
	defer db.Close()
	_, _, err = db.For(fleet.DefaultTenant).PutHost(t.Context(), store.HostPut{Address: address, Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))}})
	require.NoError(t, err)
}

// refused starts a server, and gives why it does not begin. One that could not ask a busy
// database for its keys in time begins, and another one tries.
func refused(t *testing.T, c *config.Config) (err error) {
	t.Helper()
	own := *c
	own.TemporalAddress, own.ListenInterface, own.ListenPort = "127.0.0.1:1", "127.0.0.1", 0
	for err == nil && t.Context().Err() == nil {
		ctx, cancel := context.WithCancel(t.Context())
		err = RunServer(ctx, &own, slog.New(slog.NewTextHandler(atWord{"could not check that the key file", cancel}, nil)))
		cancel()
	}
	return err
}

// atWord is a log that does something when it is told something.
type atWord struct {
	word string
	do   func()
}

func (w atWord) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(w.word)) {
		w.do()
	}
	return len(line), nil
}

func gather(t *testing.T, v *vitals) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(v)
	families, err := registry.Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			found[name] = m.GetGauge().GetValue()
		}
	}
	return found
}

func TestVitals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testVitals) // its seconds pass only where the test says so
}

func testVitals(t *testing.T) {
	ca := certify(t, nil, "CA")
	server := certify(t, ca, "server")
	path := filepath.Join(t.TempDir(), "server.pem")
	require.NoError(t, os.WriteFile(path, []byte(server.pem(t)), 0o600))
	tls, err := httptls.Config(httptls.Files{Cert: path, Key: path}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	looked := 0
	var broken error
	v := &vitals{
		record: func(ctx context.Context) (store.Vitals, error) {
			_, limited := ctx.Deadline()
			require.True(t, limited)
			looked++
			return store.Vitals{
				Hosts:      map[fleet.HostState]int{fleet.HostFailed: 3},
				Unfinished: []store.Unfinished{{Kind: fleet.KindUpgrade, State: "running", Count: 2, Quiet: time.Minute}},
				Cordons:    4, CordonAge: time.Hour, NoKeys: []uint32{7},
			}, broken
		},
		workers: func(context.Context) (int, error) { return 5, broken },
		sources: []fleet.Source{{Name: "cmdb", Refresh: time.Hour}, {Name: "by-hand"}},
		ages: func(_ context.Context, sources []string) (map[string]time.Duration, error) {
			require.Equal(t, []string{"cmdb"}, sources)
			return map[string]time.Duration{"cmdb": time.Minute}, broken
		},
		tls: tls,
		log: slog.New(slog.DiscardHandler),
	}
	want := map[string]float64{
		"commissaire_hosts failed": 3, "commissaire_hosts active": 0, "commissaire_hosts investigating": 0, "commissaire_hosts bootstrapping": 0, "commissaire_hosts disassociated": 0,
		"commissaire_operations_unfinished upgrade running": 2, "commissaire_operation_quiet_seconds upgrade running": 60,
		"commissaire_cordons_left": 4, "commissaire_cordon_left_seconds": 3600, "commissaire_sealing_keys_missing": 1,
		"commissaire_source_synced_seconds cmdb": 60, "commissaire_source_refresh_seconds cmdb": 3600,
		"commissaire_workers": 5, "commissaire_vitals_read record": 1, "commissaire_vitals_read workers": 1,
		"commissaire_tls_certificate_expiry_timestamp_seconds": float64(server.cert.NotAfter.Unix()),
	}
	require.Equal(t, want, gather(t, v))
	broken = errors.New("down")
	require.Equal(t, want, gather(t, v), "within seconds nobody asks again")
	require.Equal(t, 1, looked)

	time.Sleep(vitalsFor) // by the clock of synctest, which is what is tested
	require.Equal(t, map[string]float64{
		"commissaire_vitals_read record": 0, "commissaire_vitals_read workers": 0, "commissaire_source_refresh_seconds cmdb": 3600,
		"commissaire_tls_certificate_expiry_timestamp_seconds": float64(server.cert.NotAfter.Unix()),
	}, gather(t, v))
	gather(t, v)
	require.Equal(t, 2, looked, "what is down is not asked more often")
}

// TestOtherKeyFile: neither process begins with a key file that is not that of the
// database, and says so in words that name it.
func TestOtherKeyFile(t *testing.T) {
	t.Parallel()
	c := config.Defaults()
	c.DatabaseURL, c.SealingKeyFile = pgtest.New(t), filepath.Join(t.TempDir(), "seal.key")
	c.TemporalAddress, c.ListenInterface, c.ListenPort = "127.0.0.1:1", "127.0.0.1", 0
	require.NoError(t, secret.CreateKeyFile(c.SealingKeyFile))
	putHost(t, c, "h1")
	c.SealingKeyFile = filepath.Join(t.TempDir(), "other.key")
	require.NoError(t, secret.CreateKeyFile(c.SealingKeyFile))
	require.ErrorContains(t, refused(t, c), "key file "+c.SealingKeyFile+" does not have; restore the key file that belongs to this database")

	// A database that does not answer is no reason.
	log := &logs{}
	db, err := store.Open(t.Context(), "postgres://127.0.0.1:1/x", nil)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, checkKeys(t.Context(), db, "seal.key", slog.New(slog.NewTextHandler(log, nil))))
	require.Contains(t, log.String(), "could not check")
}
