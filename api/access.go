package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"commissaire/internal/authn"
	"commissaire/internal/authz"
	"commissaire/internal/fleet"
)

// authenticate lets only known callers on, before any route is looked for, so
// that strangers cannot find out which paths exist.
func authenticate(next http.Handler, d Deps) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOpen(r.URL.Path) {
			c := callOf(r.Context())
			who, err := d.Authn.Authenticate(authn.WithAddress(r.Context(), c.address), r)
			switch {
			case err == nil:
			case slices.Contains(d.SelfAuths, r.URL.Path):
				who = anonymous
			default:
				writeProblem(w, r, refusal(err))
				return
			}
			c.principal = who
		}
		next.ServeHTTP(w, r)
	})
}

// anonymous is who asks on a path of self-auths without credentials that hold.
// An operator cannot read any.
var anonymous = authn.Principal{Name: "anonymous", Method: "self-auths", Role: fleet.RoleOperator}

// isOpen says whether a path needs no credentials. The document says the same
// with `security: []`, and a test compares.
func isOpen(path string) bool {
	switch strings.TrimSuffix(path, "/") {
	case "", "/healthz", "/livez", "/readyz", "/version", "/metrics", "/openapi.yaml", "/docs":
		return true
	}
	return strings.HasPrefix(path, "/docs/")
}

// refusal tells a caller who is not known no more than whether to wait.
func refusal(err error) error {
	var wait *authn.Throttled
	if errors.As(err, &wait) {
		return &fleet.Error{Kind: tooMany, Detail: "too many requests with wrong credentials; wait before you try again", Err: wait}
	}
	if errors.Is(err, authn.ErrUnavailable) {
		return &fleet.Error{Kind: fleet.Unavailable, Detail: "your credentials cannot be checked now, since what knows them does not answer; try again later", Err: err}
	}
	return errForbidden()
}

// authorize lets callers on whose role, and whose token, allow the operation.
func (d Deps) authorize(next echo.HandlerFunc) echo.HandlerFunc {
	var pages http.CrossOriginProtection
	return func(c echo.Context) error {
		r := c.Request()
		call := callOf(r.Context())
		if call.endpoint == nil {
			return next(c)
		}
		err := authz.Check(call.principal, call.operation)
		if err == nil && pages.Check(r) != nil {
			// A browser shows the client certificate of its user wherever a page sends it.
			err = fleet.Errorf(fleet.Forbidden, "a page of another site may change nothing here; if it is a page of this one, let the proxy before it pass on the header Host as it is")
		}
		if err != nil {
			d.auditRefusal(r)
			return err
		}
		return next(c)
	}
}
