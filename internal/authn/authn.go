// Package authn answers who asks. Each way to prove that is a plug-in behind
// Authenticator; a Chain tries them in the configured order and the first
// success wins. With none configured everybody is refused.
package authn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"commissaire/internal/fleet"
)

// Principal is who asks. What a role may do is not decided here.
type Principal struct {
	Name       string // for RequestedBy and the logs
	Method     string // name of the plug-in that vouches for it
	Role       fleet.Role
	Operations []string // operationIds that an API token is limited to, none: no limit
	TokenID    string   // of the API token or join token that was shown, "" without one
}

// ErrDenied says that the request does not prove who asks. It tells nobody why:
// a wrong password and an unknown user look the same.
var ErrDenied = errors.New("no valid credentials")

// ErrUnavailable says that the credentials could not be checked, since a plug-in that
// might know them does not work now.
var ErrUnavailable = errors.New("credentials cannot be checked now")

// errAbsent is the ErrDenied of a request that shows nothing the plug-in reads,
// so that nothing can have been guessed at.
var errAbsent = fmt.Errorf("%w: none of this kind", ErrDenied)

// Authenticator is one way to prove who asks.
type Authenticator interface {
	// Name is the name the configuration uses.
	Name() string
	// Authenticate gives the principal, or ErrDenied. Any other error means that
	// the plug-in itself does not work; it is logged and counts as a refusal.
	// The error never holds a credential.
	Authenticate(ctx context.Context, r *http.Request) (Principal, error)
}

// rememberer is an Authenticator that can tell quickly that a request is good,
// because it found out a moment ago.
type rememberer interface {
	remembers(r *http.Request) bool
}

// Chain tries plug-ins in order; the first success wins. It slows down those who
// guess, see limiter.
type Chain struct {
	plugins []Authenticator
	limiter *limiter
	logger  *slog.Logger
}

// NewChain makes a Chain. Without plug-ins it refuses everybody, and says so now
// so that the operator need not find out by a 403.
func NewChain(logger *slog.Logger, plugins ...Authenticator) *Chain {
	if len(plugins) == 0 {
		logger.Warn("no authentication plug-in is configured: every request is refused")
	}
	return &Chain{plugins: plugins, limiter: newLimiter(), logger: logger}
}

// Authenticate gives the principal of the first plug-in that knows the caller, or
// ErrDenied, as *Throttled when the caller was refused too often, or ErrUnavailable.
func (c *Chain) Authenticate(ctx context.Context, r *http.Request) (Principal, error) {
	claim, shown := claimOf(r)
	if shown == certificate || c.remembers(r, shown) {
		who, _, err := c.try(ctx, r, c.plugins, shown)
		return who, err
	}
	a, err := c.limiter.begin(ctx, addressOf(ctx, r), claim)
	if err != nil {
		// What the request proves by other means stands, whatever it guesses at; but that
		// may be a guess, too.
		rest := r.Clone(ctx)
		rest.Header.Del(string(shown))
		if who, other := c.Authenticate(ctx, rest); other == nil {
			return who, nil
		}
		if throttled := (*Throttled)(nil); errors.As(err, &throttled) {
			return Principal{}, throttled
		}
		return Principal{}, ErrDenied
	}
	found := undecided
	defer func() { a.end(found) }()
	who, found, err := c.try(ctx, r, c.plugins, shown)
	return who, err
}

// try asks plug-ins in order. It gives what their answers say about the claim that
// the request shows beside the result: it may be refused for its claim and let in
// for another reason.
func (c *Chain) try(ctx context.Context, r *http.Request, plugins []Authenticator, shown source) (Principal, outcome, error) {
	var refused, broken bool
	for _, p := range plugins {
		who, err := p.Authenticate(ctx, r)
		switch {
		case err == nil:
			who.Method = p.Name()
			switch {
			case sourceOf(p) == shown:
				return who, succeeded, nil
			case refused:
				return who, claimFailed, nil
			}
			return who, undecided, nil
		case errors.Is(err, errAbsent):
		case errors.Is(err, ErrDenied):
			refused = refused || sourceOf(p) != certificate
		default:
			broken = broken || sourceOf(p) == shown
			if ctx.Err() == nil {
				c.logger.WarnContext(ctx, "an authentication plug-in does not work, it refuses the caller", "plugin", p.Name(), "error", err)
			}
		}
	}
	switch {
	case refused && broken:
		// The plug-in that is broken might have let the caller in, so others at the
		// address must not suffer; but guessing goes no faster meanwhile.
		return Principal{}, claimFailed, ErrUnavailable
	case broken:
		return Principal{}, undecided, ErrUnavailable
	case refused:
		return Principal{}, failed, ErrDenied
	}
	return Principal{}, undecided, ErrDenied
}

// remembers says whether a plug-in knows already that what a request shows is good.
func (c *Chain) remembers(r *http.Request, shown source) bool {
	return slices.ContainsFunc(c.plugins, func(p Authenticator) bool {
		m, ok := p.(rememberer)
		return ok && sourceOf(p) == shown && m.remembers(r)
	})
}
