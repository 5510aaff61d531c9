package authn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2"

	"commissaire/internal/fleet"
)

// What is asked of others is bounded.
const (
	maxAnswer      = 1 << 20  // of the body of an answer, in bytes
	maxAnswerHead  = 64 << 10 // of its header
	maxConnections = 64       // to one host at once
	maxRemembered  = 4096     // good credentials that are kept, as MACs
	maxName        = 256      // of the name of a principal, in bytes
)

// defaultTimeout bounds all that is asked about one request.
const defaultTimeout = 5 * time.Second

// provider is somebody outside who knows the callers.
type provider interface {
	// reads says where credential looks.
	reads() source
	// credential takes what the provider checks from a request, nil when there is
	// nothing.
	credential(r *http.Request) []string
	// verify asks the provider, and gives ErrDenied when it does not know the
	// credential. Any other error means that it does not work.
	verify(ctx context.Context, credential []string) (identity, error)
}

// identity is what a provider says about a caller.
type identity struct {
	name  string
	role  fleet.Role // "" when the provider does not say
	until time.Time  // the credential is no good afterwards; zero when it is not said
}

// outside is a plug-in that asks a provider. Good answers are believed for
// VerifiedFor, bad ones not at all.
type outside struct {
	name     string
	provider provider
	grants   grants
	timeout  time.Duration
	now      func() time.Time
	key      [sha256.Size]byte // of this process, for the MACs in verified
	verified *lru.Cache[[sha256.Size]byte, vouched]
}

// vouched remembers a good answer.
type vouched struct {
	who   Principal
	until time.Time
}

func newOutside(name string, p provider, g grants, timeout time.Duration) *outside {
	cache, err := lru.New[[sha256.Size]byte, vouched](maxRemembered)
	if err != nil {
		panic(err) // only a size that is not positive
	}
	return &outside{name: name, provider: p, grants: g, timeout: timeout, now: time.Now, key: newKey(), verified: cache}
}

// Name is the name of the plug-in.
func (o *outside) Name() string { return o.name }

func (o *outside) source() source { return o.provider.reads() }

// Authenticate asks the provider unless it did a moment ago.
func (o *outside) Authenticate(ctx context.Context, r *http.Request) (Principal, error) {
	credential := o.provider.credential(r)
	if credential == nil {
		return Principal{}, errAbsent
	}
	m := macOf(o.key, credential...)
	if who, ok := o.remembered(m); ok {
		return who, nil
	}
	asked := o.now()
	asking, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	id, err := o.provider.verify(asking, credential)
	switch {
	case errors.Is(err, ErrDenied):
		return Principal{}, ErrDenied
	case err != nil && asking.Err() != nil && ctx.Err() == nil:
		return Principal{}, fmt.Errorf("no answer within %s", o.timeout)
	case err != nil:
		return Principal{}, err
	case !validName(id.name):
		return Principal{}, errors.New("the provider knows the caller under a name that is empty, too long or not plain text")
	}
	who := Principal{Name: id.name, Role: o.grants.of(id.name, id.role)}
	until := asked.Add(VerifiedFor)
	if !id.until.IsZero() && id.until.Before(until) {
		until = id.until
	}
	if !o.now().Before(until) {
		return Principal{}, ErrDenied
	}
	o.verified.Add(m, vouched{who: who, until: until})
	return who, nil
}

// remembers says whether Authenticate can tell without asking that the request is
// good.
func (o *outside) remembers(r *http.Request) bool {
	credential := o.provider.credential(r)
	if credential == nil {
		return false
	}
	_, ok := o.remembered(macOf(o.key, credential...))
	return ok
}

func (o *outside) remembered(m [sha256.Size]byte) (Principal, bool) {
	v, ok := o.verified.Get(m)
	if !ok || !o.now().Before(v.until) {
		return Principal{}, false
	}
	return v.who, true
}

// validName says whether the name of a principal can be shown and stored.
func validName(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// newClient makes an HTTP client for one provider. It follows no redirects, since
// what it sends is secret, and bounds all that it reads.
func newClient(roots *x509.CertPool) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	t.MaxResponseHeaderBytes = maxAnswerHead
	t.MaxConnsPerHost = maxConnections
	t.DisableCompression = true // a small answer cannot become a large one
	return &http.Client{
		Transport:     boundedAnswers{t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// boundedAnswers lets nobody read more than maxAnswer of a body.
type boundedAnswers struct{ http.RoundTripper }

func (b boundedAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}

// answer is what a provider said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends one request. The context bounds all of it.
func ask(ctx context.Context, client *http.Client, method, url string, header http.Header, body []byte) (answer, error) {
	resp, err := send(ctx, client, method, url, header, body)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: text}, nil
}

// probe gives the status of a GET whose body may be long and says nothing.
func probe(ctx context.Context, client *http.Client, url string, header http.Header) (status int, err error) {
	resp, err := send(ctx, client, http.MethodGet, url, header, nil)
	if err != nil {
		return 0, err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // a short one is read, so that the connection can be used again
	return resp.StatusCode, resp.Body.Close()
}

func send(ctx context.Context, client *http.Client, method, url string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return client.Do(req)
}

// unexpected is the error of an answer that means neither yes nor no.
func unexpected(url *url.URL, status int) error {
	return fmt.Errorf("%s answers %d %s", url.Redacted(), status, http.StatusText(status))
}

// errNoIdentity is the error of an answer that means yes but does not say who.
var errNoIdentity = errors.New("the answer is a success but not of the form that the protocol asks for")
