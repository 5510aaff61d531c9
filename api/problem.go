package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"commissaire/api/docs"
	"commissaire/api/gen"
	"commissaire/internal/authn"
	"commissaire/internal/fleet"
)

// Kinds of failure that only the edge knows.
const (
	tooMany     fleet.Kind = "too_many"
	tooLarge    fleet.Kind = "too_large"
	unsupported fleet.Kind = "unsupported_encoding"
	internal    fleet.Kind = "internal"
)

// statusOf is the one place where a kind of failure gets its HTTP status.
var statusOf = map[fleet.Kind]int{
	fleet.Invalid:     http.StatusBadRequest,
	fleet.Forbidden:   http.StatusForbidden,
	fleet.NotFound:    http.StatusNotFound,
	fleet.NotReady:    http.StatusMethodNotAllowed, // the v0 contract: host not ready to join
	fleet.Conflict:    http.StatusConflict,
	tooLarge:          http.StatusRequestEntityTooLarge,
	unsupported:       http.StatusUnsupportedMediaType,
	tooMany:           http.StatusTooManyRequests,
	internal:          http.StatusInternalServerError,
	fleet.Unavailable: http.StatusServiceUnavailable,
}

// retryAfter is what a client is told to wait while a part we need is away.
const retryAfter = 5 * time.Second

// waitOf is how long a client has to wait before the same request can work, 0 when
// waiting is of no use.
func waitOf(status int, err error) time.Duration {
	var throttled *authn.Throttled
	switch {
	case status == http.StatusTooManyRequests && errors.As(err, &throttled):
		return throttled.RetryAfter
	case status == http.StatusServiceUnavailable:
		return retryAfter
	}
	return 0
}

func errForbidden() error {
	return fleet.Errorf(fleet.Forbidden, "valid credentials are needed")
}

// problemOf turns any error into a problem document. Only a *fleet.Error may
// speak to users; of everything else they learn the request id.
func problemOf(err error) gen.Problem {
	known := knownError(err)
	p := gen.Problem{
		Type:   docs.ProblemURL(string(known.Kind)),
		Title:  docs.ProblemTitle(string(known.Kind)),
		Status: statusOf[known.Kind],
		Detail: known.Detail,
	}
	for _, f := range known.Fields {
		p.Errors = append(p.Errors, gen.FieldError{Field: f.Field, Detail: f.Detail})
	}
	if known.Holder != nil {
		p.Holder = &gen.Holder{Operation: known.Holder.ID, Url: operationURL(known.Holder.ID)}
	}
	return p
}

func knownError(err error) *fleet.Error {
	var known *fleet.Error
	if errors.As(err, &known) && statusOf[known.Kind] != 0 {
		return known
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fleet.Errorf(fleet.Unavailable, "the answer took too long; try again")
	}
	var unroutable *echo.HTTPError
	if errors.As(err, &unroutable) {
		switch unroutable.Code {
		case http.StatusNotFound, http.StatusMethodNotAllowed:
			errors.As(errNoRoute(), &known)
			return known
		case http.StatusBadRequest:
			return unreadable(unroutable)
		}
	}
	return fleet.Errorf(internal, "this is a fault of the server; its log tells more under the request id")
}

// unreadable names the member that passed the document but not the Go type, as
// an integer of 40 digits does.
func unreadable(err *echo.HTTPError) *fleet.Error {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err.Internal, &mismatch) && mismatch.Field != "" {
		return fleet.InvalidField(mismatch.Field, "is out of range")
	}
	return fleet.Errorf(fleet.Invalid, "the request cannot be read")
}

// writeProblem answers with a problem document, unless the answer has begun.
func writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	c := callOf(r.Context())
	c.err = err
	if begun(w) {
		return
	}
	p := problemOf(err)
	p.RequestId = c.id
	p.Instance = instance(r)
	body, err := json.Marshal(p)
	if err != nil { // only strings and numbers in it
		panic(err)
	}
	header := w.Header()
	header.Del("Allow") // Echo's; v0 has no 405 for methods
	header.Del("Content-Encoding")
	header.Set("Content-Type", "application/problem+json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	if wait := waitOf(p.Status, c.err); wait > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

func begun(w http.ResponseWriter) bool {
	switch w := w.(type) {
	case *echo.Response:
		return w.Committed
	case *recorder:
		return w.status != 0
	}
	return false
}

// instance is the path of the request without its query, as the client wrote it.
func instance(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if len(path) > 1024 {
		return ""
	}
	return path
}

func operationURL(id string) string { return "/api/v0/operations/" + id }
