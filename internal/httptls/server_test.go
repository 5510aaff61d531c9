package httptls_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/httptls"
)

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

// site is an HTTPS server over files, with the CA of its certificate.
type site struct {
	ca, server *issued
	files      httptls.Files
	addr       string
	log        *logs
}

func write(t *testing.T, path, text string) {
	t.Helper()
	// Renamed into place, as those do who renew certificates.
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// newSite starts a server; clientVerify is what that file holds, "" for no file.
func newSite(t *testing.T, clientVerify string) *site {
	t.Helper()
	s := &site{ca: newCA(t, "server CA", nil), log: &logs{}}
	s.server = newServer(t, s.ca)
	dir := t.TempDir()
	s.files = httptls.Files{Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.pem")}
	s.useServer(t, s.server)
	if clientVerify != "" {
		s.files.ClientVerify = filepath.Join(dir, "ca.pem")
		write(t, s.files.ClientVerify, clientVerify)
	}
	config, err := httptls.Config(s.files, slog.New(slog.NewTextHandler(s.log, nil)))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = listener.Addr().String()
	server := &http.Server{
		TLSConfig: config,
		ErrorLog:  slog.NewLogLogger(slog.NewTextHandler(s.log, nil), slog.LevelInfo),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who := ""
			if len(r.TLS.PeerCertificates) > 0 {
				who = r.TLS.PeerCertificates[0].Subject.CommonName
			}
			_, _ = io.WriteString(w, r.Proto+" "+who)
		}),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return s
}

func (s *site) useServer(t *testing.T, server *issued) {
	t.Helper()
	write(t, s.files.Cert, server.keyPEM(t)+server.certPEM())
}

// client gives a client of one connection at a time, and what it says of TLS.
func (s *site) client(t *testing.T, cert *tls.Certificate, adjust func(*tls.Config)) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.cert)
	config := &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if cert != nil {
		// Sent whatever CAs the server names, as a caller with a wrong one does.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	if adjust != nil {
		adjust(config)
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// get gives the state of the connection and what was answered.
func (s *site) get(c *http.Client) (*tls.ConnectionState, string, error) {
	response, err := c.Get("https://" + s.addr + "/")
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.TLS, string(body), err
}

func versions(low, high uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MinVersion, c.MaxVersion = low, high }
}

func TestVersionsAndCiphers(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	for name, test := range map[string]struct {
		adjust func(*tls.Config)
		want   uint16 // 0: refused
	}{
		"TLS 1.0": {versions(tls.VersionTLS10, tls.VersionTLS10), 0},
		"TLS 1.1": {versions(tls.VersionTLS10, tls.VersionTLS11), 0},
		"TLS 1.2": {versions(tls.VersionTLS10, tls.VersionTLS12), tls.VersionTLS12},
		"TLS 1.3": {nil, tls.VersionTLS13},
		"without forward secrecy": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}, 0},
		"triple DES": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA}
		}, 0},
		"CBC": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA}
		}, 0},
		"GCM": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}, tls.VersionTLS12},
	} {
		state, body, err := s.get(s.client(t, nil, test.adjust))
		if test.want == 0 {
			require.ErrorContains(t, err, "remote error: tls: ", name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, test.want, state.Version, name)
		require.Equal(t, "HTTP/2.0 ", body, name)
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t, "client CA", nil), newCA(t, "client CA", nil) // the same name, another key
	between := newCA(t, "between", ca)
	revoked, revokedCA := newClient(t, ca, nil), newCA(t, "revoked between", ca)
	revokedBetween := newClient(t, between, nil)
	revokedKnown := newCA(t, "revoked in the file", ca)
	s := newSite(t, revokedKnown.certPEM()+revokedKnown.crl(t, nil)+ca.certPEM()+ca.crl(t, nil, revoked, revokedCA, revokedKnown)+
		between.certPEM()+between.crl(t, nil, revokedBetween))

	good := newClient(t, ca, nil)
	sameNumber := newClient(t, between, func(c *x509.Certificate) { c.SerialNumber = revoked.cert.SerialNumber })
	for name, test := range map[string]struct {
		cert *tls.Certificate
		want string // what the log says of a refusal
	}{
		"good":                       {good.tls(), ""},
		"good, for any use":          {newClient(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = nil }).tls(), ""},
		"good, by a CA between":      {newClient(t, between, nil).tls(between), ""},
		"number of a revoked one":    {sameNumber.tls(between), ""},
		"none":                       {nil, "didn't provide a certificate"},
		"empty":                      {&tls.Certificate{}, "didn't provide a certificate"},
		"other CA of the same name":  {newClient(t, other, nil).tls(), "failed to verify certificate"},
		"signed by itself":           {newClient(t, nil, nil).tls(), "unknown authority"},
		"key of another certificate": {&tls.Certificate{Certificate: good.tls().Certificate, PrivateKey: newKey(t)}, "invalid signature"},
		"expired": {newClient(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).tls(),
			"expired or is not yet valid"},
		"not yet valid": {newClient(t, ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }).tls(),
			"expired or is not yet valid"},
		"for servers only": {newClient(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }).tls(),
			"incompatible key usage"},
		"revoked":                  {revoked.tls(), "revoked"},
		"revoked, by CA between":   {revokedBetween.tls(between), "revoked"},
		"its CA between revoked":   {newClient(t, revokedCA, nil).tls(revokedCA), "revoked"},
		"its CA revoked, in file":  {newClient(t, revokedKnown, nil).tls(), "unknown authority"},
		"the same, and it is sent": {newClient(t, revokedKnown, nil).tls(revokedKnown), "revoked"},
		"signed by a client's own": {newClient(t, good, nil).tls(good), "parent certificate cannot sign"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			client := s.client(t, test.cert, versions(version, version))
			before := len(s.log.String())
			_, body, err := s.get(client)
			if test.want == "" {
				require.NoError(t, err, name)
				require.Equal(t, "HTTP/2.0 ops", body, name)
				continue
			}
			require.Error(t, err, name)
			require.Eventually(t, func() bool { return bytes.Contains([]byte(s.log.String()[before:]), []byte(test.want)) },
				time.Minute, 5*time.Millisecond, "%s: %s", name, s.log)
		}
	}
}

// TestReload renews everything while a connection is in use.
func TestReload(t *testing.T) {
	t.Parallel()
	ca, next := newCA(t, "client CA", nil), newCA(t, "next CA", nil)
	s := newSite(t, ca.certPEM())
	mine := newClient(t, ca, nil)
	running, fresh := s.client(t, mine.tls(), nil), func() (*tls.ConnectionState, error) {
		state, _, err := s.get(s.client(t, mine.tls(), nil))
		return state, err
	}
	first, _, err := s.get(running)
	require.NoError(t, err)
	eventually := func(why string, ok func(state *tls.ConnectionState, err error) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return ok(fresh()) }, 2*time.Minute, 50*time.Millisecond, why)
	}
	shows := func(server *issued) func(*tls.ConnectionState, error) bool {
		return func(state *tls.ConnectionState, err error) bool {
			return err == nil && state.PeerCertificates[0].Equal(server.cert)
		}
	}
	require.Equal(t, s.server.cert.Raw, first.PeerCertificates[0].Raw)

	renewed := newServer(t, s.ca)
	s.useServer(t, renewed)
	eventually("the new certificate is shown", shows(renewed))

	write(t, s.files.Cert, "half a fi")
	require.Eventually(t, func() bool {
		_, err := fresh()
		require.NoError(t, err, "the last good files stay in use")
		return bytes.Contains([]byte(s.log.String()), []byte("cannot be used"))
	}, 2*time.Minute, 50*time.Millisecond)
	require.NoError(t, os.Remove(s.files.Cert))
	_, err = fresh()
	require.NoError(t, err)
	again := newServer(t, s.ca)
	s.useServer(t, again)
	eventually("mended files are used", shows(again))

	write(t, s.files.ClientVerify, ca.certPEM()+ca.crl(t, nil, mine))
	eventually("a revoked certificate is refused", func(_ *tls.ConnectionState, err error) bool { return err != nil })
	write(t, s.files.ClientVerify, ca.certPEM())
	eventually("and let in again", shows(again))
	write(t, s.files.ClientVerify, next.certPEM())
	eventually("a CA that is gone counts no more", func(_ *tls.ConnectionState, err error) bool { return err != nil })

	state, _, err := s.get(running)
	require.NoError(t, err)
	require.Equal(t, first.PeerCertificates[0].Raw, state.PeerCertificates[0].Raw, "the connection has gone on all the while")
}

// TestNoResumptionPastARevocation: a client that was let in holds nothing that
// lets it in again.
func TestNoResumptionPastARevocation(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "client CA", nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := newSite(t, ca.certPEM())
		client := s.client(t, newClient(t, ca, nil).tls(), versions(version, version))
		for range 3 {
			state, _, err := s.get(client)
			require.NoError(t, err)
			require.False(t, state.DidResume)
			client.CloseIdleConnections()
		}
	}
}

func TestPlainHTTPToTheTLSPort(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	response, err := http.Get("http://" + s.addr + "/")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Contains(t, string(body), "HTTP request to an HTTPS server")
}

// TestBrokenFiles: what is wrong at the start is an error that names the file.
func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t, "CA", nil), newCA(t, "other CA", nil)
	server := newServer(t, ca)
	cert, key := server.certPEM(), server.keyPEM(t)
	garbage := func(kind string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("x")}))
	}
	locked := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x")}))
	partial := func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
	}
	for name, test := range map[string]struct{ pem, verify, want string }{
		"good":                    {key + cert, ca.certPEM() + ca.crl(t, nil), ""},
		"good, the other way":     {cert + key, "", ""},
		"good, with text between": {"subject=x\n" + cert + "\nx\n" + key + "\n", "issuer\n" + ca.certPEM() + "\n", ""},
		"empty":                   {"", "", "holds no certificate"},
		"no PEM":                  {"hello", "", "holds no certificate"},
		"cut off":                 {key + cert[:200], "", "holds no certificate"},
		"no key":                  {cert, "", "holds no private key"},
		"key of another":          {cert + newServer(t, ca).keyPEM(t), "", "does not match"},
		"key with passphrase":     {cert + garbage("ENCRYPTED PRIVATE KEY"), "", "has a passphrase"},
		"old key with passphrase": {cert + locked, "", "has a passphrase"},
		"key that is none":        {cert + garbage("PRIVATE KEY"), "", "private key"},
		"certificate is none":     {garbage("CERTIFICATE") + key, "", "certificate"},
		"no CA":                   {key + cert, "hello", "holds no certificate"},
		"CA is none":              {key + cert, garbage("CERTIFICATE"), "cannot be read"},
		"a key among the CAs":     {key + cert, ca.certPEM() + key, "holds a PRIVATE KEY"},
		"CRL is none":             {key + cert, ca.certPEM() + garbage("X509 CRL"), "holds a CRL that cannot be read"},
		"CRL that is cut off":     {key + cert, ca.certPEM() + ca.crl(t, nil)[:200], "cut off"},
		"CRL of another CA":       {key + cert, ca.certPEM() + other.crl(t, nil), "no CA in the file"},
		"CRL that is partial":     {key + cert, ca.certPEM() + ca.crl(t, partial), "2.5.29.28"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, log := t.TempDir(), &logs{}
			files := httptls.Files{Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.pem")}
			write(t, files.Cert, test.pem)
			if test.verify != "" {
				files.ClientVerify = filepath.Join(dir, "ca.pem")
				write(t, files.ClientVerify, test.verify)
			}
			_, err := httptls.Config(files, slog.New(slog.NewTextHandler(log, nil)))
			if test.want == "" {
				require.NoError(t, err)
				require.Empty(t, log.String())
				return
			}
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, dir)
		})
	}
	_, err := httptls.Config(httptls.Files{Cert: "/nonexistent/s.pem", Key: "/nonexistent/s.pem"}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "TLS certificate: open /nonexistent/s.pem")
}

// TestOutOfDate: what time has overtaken is used and told.
func TestOutOfDate(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), &logs{}
	ca := newCA(t, "CA", nil)
	server := issue(t, ca, "server", newKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	files := httptls.Files{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem"), ClientVerify: filepath.Join(dir, "ca.pem")}
	write(t, files.Cert, server.certPEM())
	write(t, files.Key, server.keyPEM(t))
	write(t, files.ClientVerify, ca.certPEM()+ca.crl(t, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Minute) }))
	_, err := httptls.Config(files, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	require.Contains(t, log.String(), "the TLS certificate is not valid now")
	require.Contains(t, log.String(), "a CRL is out of date")
}
