package commctl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// Time limits. A whole answer has none here, since events stream for hours.
const (
	dialTime   = 10 * time.Second
	headerTime = 60 * time.Second // until the server begins to answer
	callTime   = 2 * time.Minute  // the whole of a request of an old verb
)

// connection is how the server is reached and what is shown to it.
type connection struct {
	endpoints []*url.URL
	sign      func(*http.Request) // adds the credentials
	http      *http.Client
	current   atomic.Int64 // index of the endpoint that answered last
}

// credentials are what a request carries. A certificate is shown by TLS.
type credentials struct {
	token              string
	username, password string
	certificate        *tls.Certificate
}

func (c credentials) sign(r *http.Request) {
	switch {
	case c.token != "":
		r.Header.Set("Authorization", "Bearer "+c.token)
	case c.username != "" || c.password != "":
		r.SetBasicAuth(c.username, c.password)
	}
}

func (a *App) newConnection() (*connection, error) {
	s, err := a.readSettings()
	if err != nil {
		return nil, err
	}
	if err := a.complete(&s); err != nil {
		return nil, err
	}
	targets, err := s.Endpoint.parse()
	if err != nil {
		return nil, err
	}
	creds, err := s.credentials()
	if err != nil {
		return nil, err
	}
	config, err := s.tls(creds.certificate)
	if err != nil {
		return nil, err
	}
	return &connection{
		endpoints: targets,
		sign:      creds.sign,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				DialContext:           (&net.Dialer{Timeout: dialTime}).DialContext,
				TLSHandshakeTimeout:   dialTime,
				ResponseHeaderTimeout: headerTime,
				TLSClientConfig:       config,
				ForceAttemptHTTP2:     true,
			},
			// A redirect would take the credentials to somebody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func (s settings) credentials() (credentials, error) {
	var c credentials
	if s.ClientCert != "" {
		key := s.ClientKey
		if key == "" {
			key = s.ClientCert
		}
		pair, err := tls.LoadX509KeyPair(s.ClientCert, key)
		if err != nil {
			return c, fmt.Errorf("clientcert: %w", err)
		}
		c.certificate = &pair
	}
	if s.Kubeconfig != "" {
		fromKube, err := readKubeconfig(s.Kubeconfig)
		if err != nil {
			return c, fmt.Errorf("kubeconfig: %w", err)
		}
		if fromKube.certificate == nil {
			fromKube.certificate = c.certificate
		}
		return fromKube, nil
	}
	var err error
	if c.token, err = tidyToken(s.Token); err != nil {
		return c, err
	}
	c.username = s.Username
	if s.Password != nil {
		c.password = *s.Password
	}
	return c, nil
}

// tidyToken takes the spaces and line ends off a token that come with a copy.
func tidyToken(text string) (string, error) {
	text = strings.TrimSpace(text)
	if strings.ContainsFunc(text, unicode.IsControl) { // no header may hold it
		return "", errors.New("the token has a control character in it")
	}
	return text, nil
}

func (s settings) tls(certificate *tls.Certificate) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Insecure}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	if s.CAFile != "" {
		text, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cafile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("cafile: %s holds no certificate in PEM form", s.CAFile)
		}
	}
	return config, nil
}

// base is the server that requests are made for; the doer aims them elsewhere.
func (c *connection) base() string { return c.endpoints[0].String() }

// doer sends requests, to the next endpoint when one cannot be reached, and tells
// notice about it.
func (c *connection) doer(notice io.Writer) *doer { return &doer{connection: c, notice: notice} }

type doer struct {
	*connection
	notice io.Writer
}

// Do sends a request that was made for base. Only a failure to get any answer at
// all goes on to the next endpoint, and never twice with a POST that may have
// arrived, unless its key makes it the same act. Error: *unreachableError, or that of the context.
func (d *doer) Do(r *http.Request) (*http.Response, error) {
	dead := &unreachableError{out: d.notice}
	first := int(d.current.Load())
	for i := range d.endpoints {
		at := (first + i) % len(d.endpoints)
		if i > 0 {
			fmt.Fprintf(d.notice, "Could not connect to %s. Retrying with %s.\n", dead.tried[i-1].endpoint, d.endpoints[at])
		}
		aimed, err := d.aim(r, d.endpoints[at])
		if err != nil {
			return nil, err
		}
		watched, connected := noteConnection(aimed.Context())
		answer, err := d.http.Do(aimed.WithContext(watched))
		if err == nil {
			d.current.Store(int64(at))
			return answer, nil
		}
		if gone := r.Context().Err(); gone != nil {
			return nil, gone
		}
		arrived := connected() && !turnedAway(err)
		dead.tried = append(dead.tried, attempt{d.endpoints[at].String(), reason(err), arrived})
		if r.Method == http.MethodPost && r.Header.Get("Idempotency-Key") == "" && arrived {
			return nil, dead
		}
	}
	return nil, dead
}

// aim copies a request for another endpoint.
func (d *doer) aim(r *http.Request, to *url.URL) (*http.Request, error) {
	aimed := r.Clone(r.Context())
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		aimed.Body = body
	}
	prefix := d.endpoints[0]
	aimed.URL.Scheme, aimed.URL.Host, aimed.Host = to.Scheme, to.Host, ""
	aimed.URL.Path = to.Path + aimed.URL.Path[len(prefix.Path):]
	if aimed.URL.RawPath != "" {
		aimed.URL.RawPath = to.EscapedPath() + aimed.URL.RawPath[len(prefix.EscapedPath()):]
	}
	d.sign(aimed)
	return aimed, nil
}

// noteConnection makes a context whose requests note that they got a connection, with
// TLS when there is any. Nothing of a request goes out before that.
func noteConnection(ctx context.Context) (watched context.Context, connected func() bool) {
	var got atomic.Bool
	watched = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got.Store(true) }})
	return watched, got.Load
}

// turnedAway says whether the server has ended a connection before it read a request:
// it speaks TLS and we do not, or it refuses our certificate, which TLS 1.3 tells only
// when the client holds the handshake for done.
func turnedAway(err error) bool {
	var op *net.OpError
	return alertedInPlain(err) || errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// reason takes method and URL off an error, which say nothing new.
func reason(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}
