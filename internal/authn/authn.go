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

// Chain tries plug-ins in order; the first success wins.
type Chain struct {
	plugins []Authenticator
	logger  *slog.Logger
}

// NewChain makes a Chain. Without plug-ins it refuses everybody, and says so now
// so that the operator need not find out by a 403.
func NewChain(logger *slog.Logger, plugins ...Authenticator) *Chain {
	if len(plugins) == 0 {
		logger.Warn("no authentication plug-in is configured: every request is refused")
	}
	return &Chain{plugins: plugins, logger: logger}
}

// Authenticate gives the principal of the first plug-in that knows the caller,
// or ErrDenied.
func (c *Chain) Authenticate(ctx context.Context, r *http.Request) (Principal, error) {
	for _, p := range c.plugins {
		who, err := p.Authenticate(ctx, r)
		if err == nil {
			who.Method = p.Name()
			return who, nil
		}
		if !errors.Is(err, ErrDenied) && ctx.Err() == nil {
			c.logger.WarnContext(ctx, "an authentication plug-in does not work, it refuses the caller", "plugin", p.Name(), "error", err)
		}
	}
	return Principal{}, ErrDenied
}
