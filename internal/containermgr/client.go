package containermgr

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
)

const (
	dialTimeout = 5 * time.Second
	// callTimeout bounds one request with its whole answer.
	callTimeout = 10 * time.Second
	idleTimeout = 90 * time.Second
	// settleTime is how long a refusal must last to be believed of a server that
	// does not say whether it is ready.
	settleTime     = 3 * time.Second
	settleInterval = 200 * time.Millisecond
	// An answer that takes longer to come is not waited for to notice that the
	// connection is dead.
	pingAfter   = 5 * time.Second
	pingTimeout = 3 * time.Second
	// maxAnswer bounds an answer after decompression. A page of pods is well below.
	maxAnswer  = 4 << 20
	maxHeaders = 64 << 10

	userAgent = "commissaire"
	// fieldManager is who changed a field, in the node's managedFields.
	fieldManager = "commissaire"
)

// Kubernetes is a container manager of type kubernetes or openshift, which are the
// same API here. It is safe for concurrent use and keeps connections; Close drops
// them.
type Kubernetes struct {
	kind      fleet.ContainerManagerType
	server    string // scheme and host, for people
	blamed    blamed
	authority bool // it was given whose certificates to believe
	warnings  []string
	client    kubernetes.Interface
	transport *http.Transport
}

// New makes the client of a container manager. Nothing is sent yet. A bad option,
// or a file of the worker that cannot be read, is Invalid and names it.
func New(cm fleet.ContainerManager) (*Kubernetes, error) {
	if cm.Type != fleet.ContainerManagerKubernetes && cm.Type != fleet.ContainerManagerOpenShift {
		return nil, fleet.InvalidField("type", "must be kubernetes or openshift to have an API, not %s", cm.Type)
	}
	o, err := options.Parse(cm.Options)
	if err != nil {
		return nil, err
	}
	c, err := config(o)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(c.Host)
	if err != nil {
		return nil, err
	}
	c.UserAgent = userAgent
	c.QPS = -1                           // no queue of our own: the apiserver is fair, and says when it is too much
	c.WarningHandler = rest.NoWarnings{} // it would write to our standard error
	tlsConfig, err := rest.TLSConfigFor(c)
	if err != nil {
		return nil, badTLS(o, err)
	}
	k := &Kubernetes{kind: cm.Type, server: u.Scheme + "://" + u.Host, blamed: blamedFor(o), authority: len(c.CAData) > 0}
	k.transport = newTransport(tlsConfig, u.Hostname())
	// The log-in is added below the bound, so the bound sees what the server sent.
	authenticated, err := rest.HTTPWrappersForConfig(c, k.transport)
	if err != nil {
		return nil, err
	}
	k.client, err = kubernetes.NewForConfigAndClient(c, &http.Client{
		Transport: bounded{authenticated},
		// client-go adds the token to every request, also to one that a redirect
		// has led elsewhere.
		CheckRedirect: func(r *http.Request, _ []*http.Request) error { return &redirectError{to: r.URL.Host} },
	})
	if err != nil {
		return nil, err
	}
	if o.Insecure {
		k.warnings = append(k.warnings, "the certificate of "+k.server+" is NOT VERIFIED ("+options.Insecure+"): whoever is on the way can read the token and act as this container manager")
	}
	if u.Scheme == "http" {
		k.warnings = append(k.warnings, k.server+" is spoken to without TLS: whoever is on the way can change what is said")
	}
	return k, nil
}

var (
	_ Manager = (*Kubernetes)(nil)
	_ Drainer = (*Kubernetes)(nil)
)

// Warnings are what its user should be told each time it is put to use, in a log
// and in the answer.
func (k *Kubernetes) Warnings() []string { return k.warnings }

// Close drops its connections.
func (k *Kubernetes) Close() { k.transport.CloseIdleConnections() }

// String says what it is and where.
func (k *Kubernetes) String() string { return fmt.Sprintf("%s at %s", k.kind, k.server) }

func badTLS(o options.Options, err error) error {
	option := options.Cert
	switch {
	case !o.Kubeconfig.Empty():
		// The cause may quote the text.
		return fleet.InvalidField(options.Field(options.Kubeconfig), "has a certificate or a key that is no PEM, or they do not belong together")
	case o.Cert == "":
		option = options.CA
	}
	return fleet.InvalidField(options.Field(option), "cannot be used: %v", err)
}

// newTransport goes straight to host: no proxy of the environment, no other
// machine.
func newTransport(c *tls.Config, host string) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second, Control: guard(host)}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        c,
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: maxHeaders,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}

// guard refuses addresses where no API of a cluster is, but something that must
// not be asked in our name: link-local ones (a cloud's metadata service), and this
// machine itself unless the configuration says so in as many words. A name does
// not: whoever rules the name could point it here.
func guard(host string) func(network, address string, _ syscall.RawConn) error {
	ip := net.ParseIP(host)
	meant := host == "localhost" || (ip != nil && ip.IsLoopback())
	return func(_, address string, _ syscall.RawConn) error {
		h, _, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		to := net.ParseIP(h)
		switch {
		case to == nil, to.IsUnspecified(), to.IsMulticast(), to.IsLinkLocalUnicast(), to.IsLoopback() && !meant:
			return &addressError{host: host, address: h}
		}
		return nil
	}
}

// addressError says that a name led where we do not go.
type addressError struct{ host, address string }

func (e *addressError) Error() string { return fmt.Sprintf("%s is %s", e.host, e.address) }

// redirectError says that the server wanted to send us elsewhere.
type redirectError struct{ to string }

func (e *redirectError) Error() string { return "redirect to " + e.to }

// bounded limits what is read of an answer, and keeps client-go from trying again by
// itself up to ten times, a second or a Retry-After apart: it would outlast every
// deadline of ours, and hide a budget's refusal behind its own. Only a connection that
// was closed without an answer is tried once more. What was asked for goes into the
// call.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	c, ok := r.Context().Value(callKey{}).(*call)
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		if ok && (utilnet.IsProbableEOF(err) || utilnet.IsConnectionReset(err)) {
			if c.closed++; c.closed > 1 {
				return nil, &closedError{}
			}
		}
		return nil, err
	}
	if ok {
		c.retryAfter = retryAfter(resp.Header)
	}
	resp.Header.Del("Retry-After")
	resp.Body = &limited{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

// retryAfter reads the form in seconds, which is the one Kubernetes sends.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

var errTooLarge = errors.New("the answer is larger than " + strconv.Itoa(maxAnswer>>20) + " MB")

type limited struct {
	io.ReadCloser
	left int
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, errTooLarge
	}
	n, err := l.ReadCloser.Read(b[:min(len(b), l.left+1)])
	if l.left -= n; l.left < 0 {
		return 0, errTooLarge
	}
	if err != nil && err != io.EOF {
		err = &brokenError{err}
	}
	return n, err
}

// brokenError says that an answer began and did not end.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }

func (e *brokenError) Unwrap() error { return e.err }

// closedError says that the server closes connections in place of an answer. It has no
// cause that client-go would take for a reason to try again.
type closedError struct{}

func (*closedError) Error() string { return "the connection was closed without an answer" }

// call is what one request learns besides its answer.
type call struct {
	retryAfter time.Duration
	closed     int // connections that were closed without an answer
}

type callKey struct{}

// do makes one request of bounded time and explains its failure. what is in the
// words of "could not …".
//
// An apiserver that has just started refuses everybody for a moment, since it has
// not read its roles yet. So a refusal counts only when the server also says that
// it is ready or, where it refuses that question too, when it lasts.
func (k *Kubernetes) do(ctx context.Context, what string, f func(context.Context) error) error {
	c, err := once(ctx, f)
	for begin := time.Now(); refused(err); {
		readyErr := k.askReady(ctx)
		if readyErr != nil && !refused(readyErr) {
			return &fleet.Error{Kind: fleet.Unavailable, Detail: fmt.Sprintf("could not %s: %s is just starting", what, k), Err: errors.Join(err, readyErr)}
		}
		if c, err = once(ctx, f); readyErr == nil || time.Since(begin) > settleTime || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(settleInterval):
		}
	}
	if err == nil {
		return nil
	}
	return k.explain(ctx, what, c, err)
}

// askReady gives an error when the apiserver says that it is not ready, and when
// it refuses the question, which standard roles let everybody ask.
func (k *Kubernetes) askReady(ctx context.Context) error {
	_, err := once(ctx, func(ctx context.Context) error {
		return k.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if apierrors.IsNotFound(err) {
		return nil // a server that has no such page is not to be waited for
	}
	return err
}

func once(ctx context.Context, f func(context.Context) error) (*call, error) {
	c := &call{}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, callKey{}, c), callTimeout)
	defer cancel()
	// client-go would write what it also returns to our standard error.
	return c, f(klog.NewContext(ctx, logr.Discard()))
}
