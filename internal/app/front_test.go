package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"commissaire/internal/authn"
	"commissaire/internal/config"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

func TestPluginSpecs(t *testing.T) {
	t.Parallel()
	c := config.Defaults()
	require.Empty(t, pluginSpecs(c))
	c.UsersFile = "u.json"
	c.AuthenticationPlugins = []config.Plugin{{Name: "httpauthclientcert", Options: map[string]any{"cn": "x"}}}
	require.Equal(t, []authn.Spec{
		{Name: "httpbasicauth", Options: map[string]any{"filepath": "u.json"}},
		{Name: "httpauthclientcert", Options: map[string]any{"cn": "x"}},
	}, pluginSpecs(c), "users-file comes first")
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for listen, warned := range map[string]bool{"127.0.0.1": false, "127.8.0.1": false, "::1": false, "localhost": false, "": true, "0.0.0.0": true, "::": true, "192.0.2.1": true, "api.example": true} {
		var log bytes.Buffer
		c := config.Defaults()
		c.ListenInterface = listen
		_, err := newFront(t.Context(), c, nil, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.Equal(t, warned, bytes.Contains(log.Bytes(), []byte("plain HTTP")), listen)
	}
	var log bytes.Buffer
	c := config.Defaults()
	c.AuthenticationPlugins = []config.Plugin{{Name: "commissaire_http.authentication.httpauthclientcert"}}
	_, err := newFront(t.Context(), c, nil, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	require.Contains(t, log.String(), "set tls-clientverifyfile")
}

// TestMissingUsers: the server starts without them and refuses everybody until they
// are there (contract §4); only the check of the configuration fails.
func TestMissingUsers(t *testing.T) {
	t.Parallel()
	c := config.Defaults()
	c.UsersFile = filepath.Join(t.TempDir(), "users.json")
	c.SealingKeyFile = filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(c.SealingKeyFile))
	log := slog.New(slog.DiscardHandler)
	_, err := newFront(t.Context(), c, nil, log)
	require.NoError(t, err)
	require.ErrorContains(t, CheckConfig(t.Context(), c, log), "users-file: users of "+c.UsersFile)
}

// served is a server that a test has started.
type served struct {
	config *config.Config
	url    string
	log    *logs
	stop   func() error // asks it to end and waits for that
}

// logs is where a server writes while a test reads.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// address gives where the log says that the server listens, "" as long as it does not.
func (l *logs) address() string {
	for d := json.NewDecoder(bytes.NewReader([]byte(l.String()))); ; {
		var line struct{ Msg, Address string }
		if d.Decode(&line) != nil {
			return ""
		}
		if line.Msg == "API is served" {
			return line.Address
		}
	}
}

// serveAPI runs the whole server over a Postgres of its own. There is no Temporal,
// which reading does not need.
func serveAPI(t *testing.T, adjust func(c *config.Config)) served {
	t.Helper()
	c := config.Defaults()
	c.DatabaseURL, c.SealingKeyFile = pgtest.New(t), filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(c.SealingKeyFile))
	c.TemporalAddress, c.ListenInterface, c.ListenPort = "127.0.0.1:1", "127.0.0.1", 0
	adjust(c)
	require.NoError(t, c.Validate())
	s := served{config: c, log: &logs{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- RunServer(ctx, c, slog.New(slog.NewJSONHandler(s.log, nil))) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { require.NoError(t, s.stop()) })
	require.Eventually(t, func() bool { return s.log.address() != "" || len(ended) > 0 }, 2*time.Minute, 10*time.Millisecond)
	require.Empty(t, ended, s.log)
	scheme := "http://"
	if c.TLSPEMFile != "" {
		scheme = "https://"
	}
	s.url = scheme + s.log.address()
	return s
}

// TestClientCertificateOverTLS: who shows a certificate with the right name is let
// in, who shows another is refused by the API, and who shows none does not get to it.
func TestClientCertificateOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := certify(t, nil, "CA")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	server := certify(t, ca, "server")
	s := serveAPI(t, func(c *config.Config) {
		c.TLSPEMFile = write("server.pem", server.pem(t))
		c.TLSClientVerifyFile = write("ca.pem", ca.pem(t))
		c.AuthenticationPlugins = []config.Plugin{{Name: "httpauthclientcert", Options: map[string]any{"cn": "ops"}}}
	})
	get := func(cert *certified) (int, error) {
		roots := x509.NewCertPool()
		roots.AddCert(ca.cert)
		c := &tls.Config{RootCAs: roots}
		if cert != nil {
			c.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.cert.Raw}, PrivateKey: cert.key}}
		}
		transport := &http.Transport{TLSClientConfig: c}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
		response, err := client.Get(s.url + "/api/v0/hosts")
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return response.StatusCode, err
	}
	status, err := get(certify(t, ca, "ops"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	status, err = get(certify(t, ca, "somebody"))
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, status)
	_, err = get(nil)
	require.ErrorContains(t, err, "tls: ")
	require.NotContains(t, s.log.String(), "plain HTTP")
}

// TestEventsOverHTTP2: a stream over TLS tells what happens while it happens, and
// ends when the server does.
func TestEventsOverHTTP2(t *testing.T) {
	t.Parallel()
	ca, dir := certify(t, nil, "CA"), t.TempDir()
	s := serveAPI(t, func(c *config.Config) {
		c.TLSPEMFile, c.UsersFile = filepath.Join(dir, "server.pem"), usersFile(t)
		c.ShutdownTimeout = 2 * time.Minute // less than a stream lasts, and more than a busy machine takes to end one
		require.NoError(t, os.WriteFile(c.TLSPEMFile, []byte(certify(t, ca, "server").pem(t)), 0o600))
	})
	sealer, err := secret.OpenKeyFile(s.config.SealingKeyFile)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), s.config.DatabaseURL, sealer)
	require.NoError(t, err)
	defer db.Close()
	tenant := db.For(fleet.DefaultTenant)
	_, op, err := tenant.PutHost(t.Context(), store.HostPut{Address: "h", Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))}})
	require.NoError(t, err)

	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v0/operations/"+op.ID+"/events", nil)
	require.NoError(t, err)
	r.SetBasicAuth("a", "pw")
	response, err := (&http.Client{Transport: transport}).Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, "HTTP/2.0 200 OK", response.Proto+" "+response.Status)
	lines := bufio.NewScanner(response.Body)
	until := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		require.Fail(t, "the stream ended", "no %q: %v", text, lines.Err())
	}
	until(`"pending"`)
	require.NoError(t, tenant.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "because"))
	until(`"failed"`)
	_, second, err := tenant.PutHost(t.Context(), store.HostPut{Address: "i", Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))}})
	require.NoError(t, err)
	r, err = http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v0/operations/"+second.ID+"/events", nil)
	require.NoError(t, err)
	r.SetBasicAuth("a", "pw")
	open, err := (&http.Client{Transport: transport}).Do(r)
	require.NoError(t, err)
	defer open.Body.Close()
	began := time.Now()
	require.NoError(t, s.stop())
	require.Less(t, time.Since(began), s.config.ShutdownTimeout, "the open stream was ended, not waited for")
}

// TestSettingsReachTheAPI: users-file, self-auths and trusted-proxies.
func TestSettingsReachTheAPI(t *testing.T) {
	t.Parallel()
	s := serveAPI(t, func(c *config.Config) {
		c.UsersFile = usersFile(t)
		c.SelfAuths = []string{"/api/v0/networks"}
		c.TrustedProxies = []string{"127.0.0.1"}
	})
	get := func(path, user string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
		require.NoError(t, err)
		r.Header.Set("X-Forwarded-For", "192.0.2.77")
		if user != "" {
			r.SetBasicAuth(user, "pw")
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err)
		return response.StatusCode
	}
	require.Equal(t, http.StatusOK, get("/api/v0/hosts", "a"))
	require.Equal(t, http.StatusForbidden, get("/api/v0/hosts", "b"))
	require.Equal(t, http.StatusForbidden, get("/api/v0/hosts", ""))
	require.Equal(t, http.StatusOK, get("/api/v0/networks", ""))
	require.Equal(t, http.StatusForbidden, get("/api/v0/networks/", ""))
	require.Contains(t, s.log.String(), "192.0.2.77", "the address behind the proxy is logged")
}

// usersFile holds the user a with the password pw.
func usersFile(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "users.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"a": {"hash": "`+string(hash)+`"}}`), 0o600))
	return path
}

// certified is a certificate and its key.
type certified struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// certify makes a certificate for 127.0.0.1, for servers and clients, signed by
// ca; without one it is a CA.
func certify(t *testing.T, ca *certified, cn string) *certified {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := template, key
	if ca == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &certified{cert, key}
}

// pem gives the certificate, and its key unless it is a CA.
func (c *certified) pem(t *testing.T) string {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
	if !c.cert.IsCA {
		der, err := x509.MarshalPKCS8PrivateKey(c.key)
		require.NoError(t, err)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	return string(text)
}
