package profile

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"strings"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// The members of settings and options that an error may blame.
const (
	mirrorField     = "registry_mirror"
	etcdField       = "etcd.server_url"
	etcdCertField   = "etcd.certificate_path"
	etcdCAField     = "etcd.certificate_ca_path"
	remoteField     = "network.options.address"
	serverField     = "options.server_url"
	caField         = "options.certificate_ca_path"
	certField       = "options.certificate_path"
	tokenField      = "options.kubelet_bootstrap_token"
	kubeletField    = "options.kubelet"
	clusterDNSField = "options.cluster_dns"
)

// checkPlain refuses what would not stand in a quoted value of a file: quotes, spaces,
// and what a shell or systemd would expand.
func checkPlain(field, s string) error {
	if s == "" {
		return fleet.InvalidField(field, "is missing")
	}
	if len(s) > 1000 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'`$\\", r) }) {
		return fleet.InvalidField(field, "has characters that cannot stand in a file of settings, or too many")
	}
	return nil
}

// parseURL reads an address of http or https that may be written into a file.
func parseURL(field, s string) (*url.URL, error) {
	if err := checkPlain(field, s); err != nil {
		return nil, err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, fleet.InvalidField(field, "must be an address such as https://192.0.2.1:2379")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fleet.InvalidField(field, "must be an address without a user, a query or a fragment")
	}
	return u, nil
}

// checkCA refuses what is not one or more certificates in PEM.
func checkCA(field string, b []byte) error {
	n := 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); block.Type != "CERTIFICATE" || err != nil {
			return fleet.InvalidField(field, "has a part that is no certificate")
		}
		n++
	}
	if n == 0 {
		return fleet.InvalidField(field, "has no certificate in PEM form")
	}
	return nil
}

// checkPair refuses a certificate without its key, or with another one's.
func checkPair(field string, cert []byte, key secret.Text) error {
	if _, err := tls.X509KeyPair(cert, key.Reveal()); err != nil {
		return fleet.InvalidField(field, "is no certificate in PEM form, or its key is missing or another one's")
	}
	return nil
}

// checkToken refuses what no HTTP header can carry (RFC 6750 §2.1).
func checkToken(field string, token secret.Text) error {
	if strings.ContainsFunc(string(token.Reveal()), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fleet.InvalidField(field, "has characters that a token cannot have")
	}
	return nil
}
