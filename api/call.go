package api

import (
	"context"
	"net/http"
	"net/netip"
	"regexp"

	"github.com/google/uuid"

	"commissaire/internal/authn"
)

// call is what is known about one request. The middleware fills it in as it
// learns, and the access log reads it at the end.
type call struct {
	id        string // request id
	peer      string // IP address of the TCP peer, "" when there is none
	address   string // IP address of the caller, the peer's unless proxies say more
	principal authn.Principal
	operation string    // operationId of the route, "" until one is found
	endpoint  *endpoint // of the document, nil until a route is found
	err       error     // what went wrong
	subject   string    // what it acted on or made where the path does not say, for the audit log

	// unlimited is the request's context without the deadline of limit. It ends when
	// the client goes away.
	unlimited context.Context
}

type callKey struct{}

// callOf gives the call of a request's context. Outside a request, as in a unit
// test of one handler, it is an empty one.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// RequestIDHeader carries the request id, in both directions.
const RequestIDHeader = "X-Request-Id"

// requestIDPattern is what is believed of a caller; it goes into logs and rows.
var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// identify gives every request an id and a call.
func identify(next http.Handler, proxies []netip.Prefix) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{id: r.Header.Get(RequestIDHeader), peer: addrText(peerOf(r)), address: addrText(callerOf(r, proxies))}
		if !requestIDPattern.MatchString(c.id) {
			c.id = newRequestID()
		}
		w.Header().Set(RequestIDHeader, c.id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}

func newRequestID() string {
	id, err := uuid.NewV7()
	if err != nil { // crypto/rand never fails
		panic(err)
	}
	return id.String()
}
