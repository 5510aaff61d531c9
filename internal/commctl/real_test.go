package commctl

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"commissaire/api"
	"commissaire/internal/authn"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// noDispatcher stands where Temporal would be: nothing that is accepted begins.
type noDispatcher struct{}

func (noDispatcher) Diagnose(context.Context, string, string, []string, fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
	return nil, "no worker", nil
}
func (noDispatcher) Ready(context.Context) error                   { return nil }
func (noDispatcher) Start(context.Context, fleet.Operation)        {}
func (noDispatcher) Cancel(context.Context, fleet.Operation) error { return nil }
func (noDispatcher) Wake(context.Context, fleet.Operation)         {}

func (noDispatcher) CheckManager(context.Context, string, string, string) error { return nil }
func (noDispatcher) ReadNode(context.Context, string, string) error             { return nil }

// newRealAPI serves the real API over a database of its own; alice is its admin and
// vera a viewer.
func newRealAPI(t *testing.T) *httptest.Server {
	t.Helper()
	server, _ := newRealAPIWith(t, noDispatcher{})
	return server
}

// newRealAPIWith is newRealAPI with another dispatcher, and gives what stands behind it.
func newRealAPIWith(t *testing.T, d api.Dispatcher) (*httptest.Server, *store.Store) {
	t.Helper()
	keyFile := filepath.Join(t.TempDir(), "key")
	require.NoError(t, secret.CreateKeyFile(keyFile))
	sealer, err := secret.OpenKeyFile(keyFile)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), pgtest.New(t), sealer)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	hash, err := bcrypt.GenerateFromPassword([]byte("pw:with:colons"), bcrypt.MinCost)
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	tenant := db.For(fleet.DefaultTenant)
	users := map[string]authn.User{"alice": {Hash: string(hash)}, "vera": {Hash: string(hash), Role: fleet.RoleViewer}}
	server := httptest.NewServer(api.New(api.Deps{
		Store: tenant, Changes: db.Changes, Dispatcher: d, Logger: log, Metrics: prometheus.NewRegistry(),
		Authn: authn.NewChain(log, authn.NewBasic(authn.BasicOptions{Users: users}, log), authn.NewAPIToken(tenant)),
	}))
	t.Cleanup(server.Close)
	return server, tenant
}

// Old verbs against the real API: what a user sees.
func TestOldVerbsOnTheRealAPI(t *testing.T) {
	t.Parallel()
	server := newRealAPI(t)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).Run())
	for _, step := range []struct {
		command string
		code    int
		out     string // a prefix when it ends in …
	}{
		{"cluster list", 0, "Success\n...\n"},
		{"cluster create web", 0, "container_manager: ''\nname: web\nnetwork: default\nstatus: ''\n"},
		{"cluster create web", 0, "container_manager: ''\nname: web\nnetwork: default\nstatus: ''\n"},
		{"cluster list", 0, "- web\n"},
		{"cluster get web", 0, "container_manager: ''\nhosts:\n  available: 0\n  total: 0\n  unavailable: 0\nhostset: []\nname: web\nnetwork: default\nstatus: ok\n"},
		{"cluster get none", 0, "No object found.\n...\n"},
		{"cluster get none -o json", exitNotFound, ""},
		{"cluster upgrade status web", 0, "No object found.\n...\n"},
		{"cluster deploy start web 7.4", 0, "deployed: []\n…"},
		{"cluster deploy status web", 0, "deployed: []\n…"},
		{"cluster upgrade start none", 0, "No object found.\n...\n"},
		{`network create -t flannel_server -o {"address":"192.0.2.1:8080"} net`, 0, "name: net\noptions:\n  address: 192.0.2.1:8080\ntype: flannel_server\n"},
		{"network create net", exitUsage, ""},
		{"network get net -o table", 0, "NAME   TYPE\nnet    flannel_server\n"},
		{"network delete net none", 0, "- Success\n- No object found.\n"},
		{"container_manager create -t kubernetes -o server_url=https://192.0.2.1 -o token=hunter2 kube", 0, "name: kube\noptions:\n  server_url: https://192.0.2.1\n  token: '[redacted]'\ntype: kubernetes\n"},
		{"container_manager update kube -o max_unavailable=2 -o {\"ready_timeout\":\"1m\"}", 0, "name: kube\noptions:\n  max_unavailable: '2'\n  ready_timeout: 1m\n  server_url: https://192.0.2.1\n  token: '[redacted]'\ntype: kubernetes\n"},
		{"container_manager update kube -o {\"ready_timeout\":null}", 0, "name: kube\noptions:\n  max_unavailable: '2'\n  server_url: https://192.0.2.1\n  token: '[redacted]'\ntype: kubernetes\n"},
		{"container_manager update none -o token=x", exitNotFound, ""},
		{"container_manager list", 0, "- kube\n"},
		{"container_manager delete kube", 0, "- Success\n"},
		{"host create -c web 192.0.2.10 " + key, 0, "address: 192.0.2.10\n…"},
		{"host create -c other 192.0.2.10 " + key, exitUsage, ""},
		{"host create 192.0.2.11 -", exitUsage, ""},
		{"host get 192.0.2.10", 0, "address: 192.0.2.10\ncluster: web\ncpus: 0\nlast_check: ''\n…"},
		{"host status 192.0.2.10", 0, "container_manager: {}\nhost:\n  last_check: ''\n  status: investigating\ntype: host_only\n"},
		{"host list web", 0, "- 192.0.2.10\n"},
		{"host list -o name", 0, "192.0.2.10\n"},
		{"host unjoin 192.0.2.10 web", 0, "Success\n...\n"},
		{"host join 192.0.2.10 web", exitUsage, ""}, // 405: it is not ready
		{"host delete 192.0.2.10 192.0.2.10", 0, "- Success\n- No object found.\n"},
		{"cluster delete web", 0, "- Success\n"},
	} {
		a := appFor(t, server.URL)
		require.Equal(t, step.code, a.Run(t.Context(), strings.Fields(step.command)), "%s: %s", step.command, a.errs)
		if prefix, ok := strings.CutSuffix(step.out, "…"); ok {
			require.True(t, strings.HasPrefix(a.out.String(), prefix), "%s: %s", step.command, a.out)
			continue
		}
		require.Equal(t, step.out, a.out.String(), step.command)
	}

	a := newTestApp(t)
	a.configure(t, map[string]any{"endpoint": server.URL, "username": "vera", "password": "pw:with:colons"})
	require.Equal(t, exitUsage, a.Run(t.Context(), strings.Fields("cluster create web")))
	require.Contains(t, a.errs.String(), "commctl: error: The provided credentials were incorrect.\n  ")
	require.Contains(t, a.errs.String(), "role viewer")
}

// From user-data to a host, without a secret that could be used again.
func TestUserDataOnTheRealAPI(t *testing.T) {
	t.Parallel()
	server := newRealAPI(t)
	require.Zero(t, appFor(t, server.URL).Run(t.Context(), strings.Fields("cluster create web")))
	m := newMachine(t)
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "ed25519.pub"), []byte(strings.TrimSuffix(publicKey, " commissaire")+" root@machine\n"), 0o644))
	a := appFor(t, server.URL)
	require.Zero(t, a.Run(t.Context(), []string{"user-data", "-e", server.URL, "-c", "web", "-r", m.user, "-a", filepath.Join(m.dir, "authorized_keys")}), a.errs.String())
	payload := parseMIME(t, a.out.Bytes())[2].Text

	require.Equal(t, "Commissaire response: 201 Created\n", m.handle(t, payload))
	require.Equal(t, "Commissaire response: 201 Created\n", m.handle(t, payload), "the same machine may ask again")
	require.Regexp(t, `^ssh-ed25519 \S+`, m.read(t, "authorized_keys"))
	a = appFor(t, server.URL)
	require.Zero(t, a.Run(t.Context(), strings.Fields("host list -o table")))
	require.Contains(t, a.out.String(), "127.0.0.1   investigating   web")

	other := newMachine(t)
	require.NoError(t, os.WriteFile(filepath.Join(other.dir, "ecdsa.pub"), []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS\n"), 0o644))
	require.Contains(t, other.handle(t, strings.ReplaceAll(payload, m.dir, other.dir)), "Commissaire response: 403 Forbidden\n")

	a = appFor(t, server.URL)
	require.Equal(t, exitConflict, a.Run(t.Context(), []string{"user-data", "-e", server.URL, "-c", "none"}))
	require.Contains(t, a.errs.String(), "none")
}
