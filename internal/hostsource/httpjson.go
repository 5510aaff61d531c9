package hostsource

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"time"

	"commissaire/internal/fleet"
)

// httpJSON asks an inventory that answers a GET with a list of hosts in JSON.
type httpJSON struct {
	url          string
	headers, cas string // files, "" for none
	timeout      time.Duration
}

func newHTTP(r *reader) Source {
	s := &httpJSON{url: r.url("url").String(), headers: r.file("headers_file"), cas: r.file("ca_file"), timeout: r.timeout}
	if s.cas != "" {
		if _, err := authorities(s.cas); err != nil {
			r.fail("ca_file", "%s", err)
		}
	}
	if s.headers != "" {
		if _, err := readHeaders(s.headers); err != nil {
			r.fail("headers_file", "%s", err)
		}
	}
	return s
}

// Fetch sends one request on a connection of its own. Files are read anew, so that a token
// may be replaced while the worker runs.
func (s *httpJSON) Fetch(ctx context.Context) (map[string]fleet.SourceFacts, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, late(s.timeout))
	defer cancel()
	headers, transport, err := s.prepare()
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, &Error{Reason: "its url cannot be used"}
	}
	ask.Header = headers
	if host := headers.Get("Host"); host != "" {
		ask.Host = host
	}
	// Headers may be secret, so they go nowhere but where the settings say.
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(ask)
	if err != nil {
		return nil, notAnswered(ctx, err)
	}
	defer answer.Body.Close()
	switch code := answer.StatusCode; {
	case code >= 300 && code < 400:
		return nil, &Error{Reason: fmt.Sprintf("it answered %d, which leads elsewhere; set url to where the list is", code)}
	case code != http.StatusOK:
		return nil, &Error{Reason: fmt.Sprintf("it answered %d instead of 200", code), Passes: code >= 500 || code == http.StatusTooManyRequests}
	}
	text, err := readAll(answer.Body)
	if err != nil {
		return nil, notAnswered(ctx, err)
	}
	return parseList(text)
}

func (s *httpJSON) prepare() (http.Header, *http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if strings.HasPrefix(s.url, "http:") {
		// A proxy of the environment would read all of it. With https it is but a tunnel.
		transport.Proxy = nil
	}
	headers := http.Header{}
	var err error
	if s.headers != "" {
		if headers, err = readHeaders(s.headers); err != nil {
			return nil, nil, &Error{Reason: "headers_file " + err.Error()}
		}
	}
	if s.cas != "" {
		roots, err := authorities(s.cas)
		if err != nil {
			return nil, nil, &Error{Reason: "ca_file " + err.Error()}
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	headers.Set("Accept", "application/json")
	return headers, transport, nil
}

// late is why a fetch ended that took too long.
func late(limit time.Duration) error {
	return &Error{Reason: fmt.Sprintf("no whole answer within %s", limit), Passes: true}
}

// notAnswered says why there is no answer.
func notAnswered(ctx context.Context, err error) error {
	var known *Error
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &known):
		return known
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &cert):
		return &Error{Reason: "its certificate is not trusted (" + cert.Err.Error() + "); set ca_file to its authority"}
	}
	var inner interface{ Unwrap() error }
	if errors.As(err, &inner) { // without the URL, which may hold a secret in its query
		err = inner.Unwrap()
	}
	return &Error{Reason: "it does not answer: " + err.Error(), Passes: true}
}

// readAll reads a whole answer, or none.
func readAll(from io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, MaxAnswer+1))
	if err == nil && len(text) > MaxAnswer {
		return nil, tooLarge()
	}
	return text, err
}

func tooLarge() error {
	return &Error{Reason: fmt.Sprintf("it said more than %d MiB", MaxAnswer>>20)}
}

func authorities(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("holds no certificate in PEM form")
	}
	return pool, nil
}

// readHeaders reads headers as HTTP has them (RFC 9110 §5), one on a line.
func readHeaders(path string) (http.Header, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	text = append(bytes.TrimSpace(text), "\r\n\r\n"...)
	headers, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
	if err != nil || len(headers) == 0 { // the error would repeat a line
		return nil, errors.New("must hold headers like 'Authorization: Bearer …', one on a line")
	}
	return http.Header(headers), nil
}
