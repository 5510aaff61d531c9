package authn

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"net/http"
	"slices"
	"time"
)

// clientCert is the plug-in for TLS client certificates. Whether a certificate
// comes from the right authority is checked in the handshake; here its common
// name is.
type clientCert struct {
	cn     string // "" for any
	grants grants
	now    func() time.Time
}

// Name is "httpauthclientcert".
func (*clientCert) Name() string { return "httpauthclientcert" }

func (*clientCert) source() source { return certificate }

// Authenticate checks the certificate of the connection. A connection may live
// longer than the certificate, so its time is checked with each request.
func (c *clientCert) Authenticate(_ context.Context, r *http.Request) (Principal, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return Principal{}, errAbsent
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if now := c.now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return Principal{}, ErrDenied
	}
	names := commonNames(leaf)
	if c.cn != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return name != c.cn })
	}
	if len(names) == 0 || !validName(names[0]) {
		return Principal{}, ErrDenied
	}
	return Principal{Name: names[0], Role: c.grants.of(names[0], "")}, nil
}

// commonNames gives all of them; Subject.CommonName is the last one only.
func commonNames(c *x509.Certificate) []string {
	var names []string
	for _, n := range c.Subject.Names {
		if name, ok := n.Value.(string); ok && n.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) && name != "" {
			names = append(names, name)
		}
	}
	return names
}
