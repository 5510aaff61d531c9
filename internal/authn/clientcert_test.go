package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority signs client certificates, and serves TLS to those who have one.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	server *httptest.Server
	seen   atomic.Pointer[http.Request]
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	a.server = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { a.seen.Store(r) }))
	a.server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots}
	a.server.StartTLS()
	t.Cleanup(a.server.Close)
	return a
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert, key
}

// issue makes a client certificate for an hour before and after now, with these
// common names.
func (a *authority) issue(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	subject := pkix.Name{Organization: []string{"test"}}
	for _, name := range names {
		subject.ExtraNames = append(subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name})
	}
	cert, key := a.sign(t, &x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// serverPEM is the certificate that the server shows.
func (a *authority) serverPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw}))
}

// shake gives a request as the server gets it after a handshake with a certificate.
func (a *authority) shake(t *testing.T, certs ...tls.Certificate) *http.Request {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: a.server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Certificates: certs,
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(a.server.URL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return a.seen.Load()
}

func (a *authority) shown(c tls.Certificate) show {
	return func(t *testing.T) *http.Request { return a.shake(t, c) }
}

func TestClientCertificateNames(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, test := range map[string]struct {
		cn    string // that is wanted
		names []string
		who   string // "" when refused
	}{
		"any, when none is wanted":    {"", []string{"bob"}, "bob"},
		"first of several":            {"", []string{"bob", "alice"}, "bob"},
		"one of several is the right": {"alice", []string{"bob", "alice", "carol"}, "alice"},
		"none of several":             {"dave", []string{"bob", "alice"}, ""},
		"part of the name":            {"alice", []string{"alice2"}, ""},
		"nothing is a name":           {"", []string{""}, ""},
		"not plain text":              {"", []string{"a\nb"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := map[string]any{}
			if test.cn != "" {
				options["cn"] = test.cn
			}
			who, err := build(t, "httpauthclientcert", nil, options).Authenticate(t.Context(), newAuthority(t).shakeWith(t, test.names...))
			if test.who == "" {
				require.ErrorIs(t, err, ErrDenied)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.who, who.Name)
		})
	}

	r := ca.shake(t)
	_, err := build(t, "httpauthclientcert", nil, nil).Authenticate(t.Context(), r)
	require.ErrorIs(t, err, errAbsent, "no certificate")
	r.TLS.PeerCertificates = []*x509.Certificate{ca.issue(t, "alice").Leaf}
	_, err = build(t, "httpauthclientcert", nil, nil).Authenticate(t.Context(), r)
	require.ErrorIs(t, err, errAbsent, "a certificate that nobody has verified")
}

func (a *authority) shakeWith(t *testing.T, names ...string) *http.Request {
	t.Helper()
	return a.shake(t, a.issue(t, names...))
}
