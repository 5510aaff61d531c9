package httptls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// authorities are the CAs of client certificates and what they have revoked.
type authorities struct {
	pool    *x509.CertPool
	revoked map[serial]bool
}

// serial names a certificate: numbers are unique for one CA only. A CA is its
// name and key, as it may have several certificates.
type serial struct{ subject, key, number string }

func serialOf(issuer *x509.Certificate, number string) serial {
	return serial{string(issuer.RawSubject), string(issuer.RawSubjectPublicKeyInfo), number}
}

// CheckAuthorities says what is wrong with a file of CAs, which Config looks at only
// when the certificate is good.
func CheckAuthorities(path string, logger *slog.Logger) error {
	text, err := readFile(path)
	if err != nil {
		return fmt.Errorf("CAs of client certificates: %w", err)
	}
	_, err = parseAuthorities(path, text, time.Now(), logger)
	return err
}

// parseAuthorities reads CERTIFICATE and X509 CRL blocks in any order; other
// blocks are errors, so that a list that is not understood is not passed over.
func parseAuthorities(path, text string, now time.Time, logger *slog.Logger) (*authorities, error) {
	fail := func(format string, args ...any) (*authorities, error) {
		return nil, fmt.Errorf("CAs of client certificates: %s %w", path, fmt.Errorf(format, args...))
	}
	var cas []*x509.Certificate
	var lists []*x509.RevocationList
	blocks := 0
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		switch block.Type {
		case "CERTIFICATE":
			ca, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return fail("holds a certificate that cannot be read: %w", err)
			}
			cas = append(cas, ca)
		case "X509 CRL":
			list, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				return fail("holds a CRL that cannot be read: %w", err)
			}
			lists = append(lists, list)
		default:
			return fail("holds a %s; only certificates and CRLs belong there", block.Type)
		}
	}
	if len(cas) == 0 {
		return fail("holds no certificate in PEM form")
	}
	if blocks != strings.Count(text, "-----BEGIN ") { // pem passes over what it cannot read
		return fail("holds a block that is cut off or no PEM")
	}
	a := &authorities{pool: x509.NewCertPool(), revoked: map[serial]bool{}}
	for _, list := range lists {
		if err := a.revoke(list, cas); err != nil {
			return fail("holds the CRL of %s, %w", list.Issuer, err)
		}
		if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
			logger.Warn("a CRL is out of date; it goes on counting, but what was revoked since is let in",
				"file", path, "ca", list.Issuer.String(), "next_update", list.NextUpdate)
		}
	}
	for _, ca := range cas {
		if !a.revokedCA(ca, cas) {
			a.pool.AddCert(ca)
		}
	}
	return a, nil
}

// revokedCA says whether another CA of the file has revoked one. A chain ends at the
// first CA that is in the pool, so nobody would look at who signed that one.
func (a *authorities) revokedCA(ca *x509.Certificate, cas []*x509.Certificate) bool {
	return slices.ContainsFunc(cas, func(issuer *x509.Certificate) bool {
		return a.revoked[serialOf(issuer, ca.SerialNumber.String())] && ca.CheckSignatureFrom(issuer) == nil
	})
}

// revoke takes in one list. Extensions that it is critical to understand, such as
// those of partial lists, are not understood (RFC 5280, 5.2 and 5.3).
func (a *authorities) revoke(list *x509.RevocationList, cas []*x509.Certificate) error {
	for _, e := range list.Extensions {
		if e.Critical {
			return fmt.Errorf("which has the critical extension %s, as partial lists have; only whole lists are understood", e.Id)
		}
	}
	signed := false
	for _, ca := range cas {
		if string(ca.RawSubject) != string(list.RawIssuer) || list.CheckSignatureFrom(ca) != nil {
			continue
		}
		signed = true
		for _, entry := range list.RevokedCertificateEntries {
			for _, e := range entry.Extensions {
				if e.Critical {
					return fmt.Errorf("where an entry has the critical extension %s, which is not understood", e.Id)
				}
			}
			a.revoked[serialOf(ca, entry.SerialNumber.String())] = true
		}
	}
	if !signed {
		return errors.New("but no CA in the file that has signed it")
	}
	return nil
}

// errRevoked goes to the log; the client is told "bad certificate".
var errRevoked = errors.New("the client certificate, or a CA of it, is revoked")

// checkRevoked refuses a client unless there is a chain to a CA in which nothing
// is revoked.
func (a *authorities) checkRevoked(state tls.ConnectionState) error {
	for _, chain := range state.VerifiedChains {
		if !a.anyRevoked(chain) {
			return nil
		}
	}
	return errRevoked
}

func (a *authorities) anyRevoked(chain []*x509.Certificate) bool {
	for i, cert := range chain[:len(chain)-1] {
		if a.revoked[serialOf(chain[i+1], cert.SerialNumber.String())] {
			return true
		}
	}
	return false
}
