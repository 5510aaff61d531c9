package containermgr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
)

const (
	// maxRetryAfter is the longest wait that a server can ask for.
	maxRetryAfter = 5 * time.Minute
	// defaultRetryAfter is used when it asks for none.
	defaultRetryAfter = time.Second
	// maxQuote bounds what is repeated of a server's words, in bytes.
	maxQuote = 500
	// anonymous is whom Kubernetes takes those for who do not log in.
	anonymous = "system:anonymous"
)

// throttled is the cause of an Unavailable error over too many requests.
type throttled struct {
	after time.Duration
	err   error
}

func (e *throttled) Error() string { return e.err.Error() }

func (e *throttled) Unwrap() error { return e.err }

// RetryAfter says how long the server asked us to wait, when it did.
func RetryAfter(err error) (time.Duration, bool) {
	var t *throttled
	if errors.As(err, &t) {
		return t.after, true
	}
	return 0, false
}

// refused says that the server does not know us, or does not let us.
func refused(err error) bool { return apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) }

// missing says that the manager itself says that an object is not there. A 404 of
// something that is no Kubernetes says nothing about objects.
func missing(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// explain says what happened and what to do.
func (k *Kubernetes) explain(ctx context.Context, what string, c *call, err error) error {
	fail := func(kind fleet.Kind, format string, args ...any) *fleet.Error {
		return &fleet.Error{Kind: kind, Detail: fmt.Sprintf("could not %s: %s ", what, k) + fmt.Sprintf(format, args...), Err: err}
	}
	blame := func(option, format string, args ...any) error {
		e := fail(fleet.Invalid, format, args...)
		e.Fields = []fleet.FieldError{{Field: options.Field(option), Detail: "the container manager " + fmt.Sprintf(format, args...)}}
		return e
	}
	var (
		redirect    *redirectError
		address     *addressError
		unknown     x509.UnknownAuthorityError
		name        x509.HostnameError
		certificate *tls.CertificateVerificationError
		operation   *net.OpError
		api         apierrors.APIStatus
		broken      *brokenError
		closed      *closedError
		transport   *url.Error
		network     net.Error
	)
	switch {
	case ctx.Err() != nil:
		return &fleet.Error{Kind: fleet.Unavailable, Detail: fmt.Sprintf("could not %s: there was no time left to ask %s", what, k), Err: errors.Join(ctx.Err(), err)}
	case errors.As(err, &redirect):
		return blame(k.blamed.address, "answers with a redirect to %s, which is not followed; give the address of the API itself", redirect.to)
	case errors.As(err, &address):
		return blame(k.blamed.address, "is at %s, where no container manager may be; give an address that is not of this machine or its link", address.address)
	case errors.As(err, &unknown) && k.authority:
		return blame(k.blamed.authority, "has a certificate of another authority than the one in %s; give that of its API", k.blamed.authority)
	case errors.As(err, &unknown):
		return blame(k.blamed.authority, "has a certificate of an authority that is not known here; give the authority's certificate in %s", k.blamed.authority)
	case errors.As(err, &name):
		return blame(k.blamed.address, "has a certificate for other names: %s", quote(name.Error()))
	case errors.As(err, &certificate):
		return blame(k.blamed.address, "has a certificate that is not good: %s", quote(certificate.Err.Error()))
	case errors.Is(err, http.ErrSchemeMismatch):
		return blame(k.blamed.address, "does not speak TLS there; is it the right port?")
	case errors.As(err, &operation) && operation.Op == "remote error": // an alert of TLS
		return blame(k.blamed.login, "does not take our certificate, or wants one: %s", quote(operation.Err.Error()))
	case errors.Is(err, errTooLarge):
		return blame(k.blamed.address, "sends more than %d MB; is it a Kubernetes API?", maxAnswer>>20)
	case errors.As(err, &api):
		return k.explainStatus(c, err, api.Status(), fail, blame)
	case errors.As(err, &closed):
		return fail(fleet.Unavailable, "takes the connection and closes it without an answer; is it the right port, and does the API behind it run?")
	case errors.As(err, &operation) && operation.Op == "dial":
		return fail(fleet.Unavailable, "cannot be reached: %s", away(operation))
	case errors.Is(err, context.DeadlineExceeded):
		return fail(fleet.Unavailable, "did not answer within %s", callTimeout)
	case errors.As(err, &broken):
		return fail(fleet.Unavailable, "broke off its answer")
	case errors.As(err, &transport), errors.As(err, &network):
		return fail(fleet.Unavailable, "cannot be reached; check its address and the network between the worker and it")
	default:
		return blame(k.blamed.address, "sends something that is not understood; is it a Kubernetes API?")
	}
}

// away says why there is no connection.
func away(dial *net.OpError) string {
	var lookup *net.DNSError
	switch {
	case errors.As(dial, &lookup) && lookup.IsNotFound:
		return "no address is known for its name; check the name, and the DNS of the worker"
	case errors.As(dial, &lookup):
		return "its name could not be looked up; check the DNS of the worker"
	case errors.Is(dial, syscall.ECONNREFUSED):
		return "it refuses connections; check the port, and whether the API runs"
	case dial.Timeout():
		return fmt.Sprintf("nothing there answered within %s; check its address, and firewalls between the worker and it", dialTimeout)
	}
	return "check its address and the network between the worker and it"
}

func (k *Kubernetes) explainStatus(c *call, err error, s metav1.Status, fail func(fleet.Kind, string, ...any) *fleet.Error, blame func(string, string, ...any) error) error {
	words := quote(s.Message)
	if apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
		// Not Kubernetes' words but some page, which is not ours to show.
		words = http.StatusText(int(s.Code))
	}
	switch {
	case apierrors.IsUnauthorized(err):
		return blame(k.blamed.login, "does not know us (401): the token or the certificate is wrong, expired or withdrawn; give a new one")
	case apierrors.IsForbidden(err) && strings.Contains(s.Message, anonymous):
		return blame(k.blamed.login, "takes us for nobody (403 for %s); give a token, or a certificate that it knows", anonymous)
	case apierrors.IsForbidden(err):
		// The words name the account and the right that it lacks.
		return blame(k.blamed.login, "does not let us (403): %s", words)
	case missing(err):
		return fail(fleet.NotFound, "says: %s", words)
	case apierrors.IsTooManyRequests(err):
		e := fail(fleet.Unavailable, "has too many requests")
		after := c.retryAfter
		if after == 0 {
			after = defaultRetryAfter
		}
		e.Err = &throttled{after: after, err: err}
		return e
	case s.Code >= 500, s.Code == http.StatusRequestTimeout, apierrors.IsResourceExpired(err):
		return fail(fleet.Unavailable, "failed (%d): %s", s.Code, words)
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		return fail(fleet.Conflict, "says: %s", words)
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse):
		return blame(k.blamed.address, "answers %d where Kubernetes would not; is it a Kubernetes API?", s.Code)
	default:
		return fail(fleet.Invalid, "refused it (%d): %s", s.Code, words)
	}
}

// quote makes a server's words fit for a line of ours.
func quote(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxQuote {
		s = strings.ToValidUTF8(s[:maxQuote], "") + "…"
	}
	return s
}
