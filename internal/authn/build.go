package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"commissaire/internal/fleet"
	"commissaire/internal/nearest"
)

// Spec is one entry of authentication-plugins: its name and its options.
type Spec struct {
	Name    string
	Options map[string]any // names with "-" and "_" are the same; nil is as if it were not there
}

// Tokens checks API and join tokens, as *store.Store of a tenant does.
type Tokens interface {
	// VerifyToken gives for whom a token speaks and notes its use; a
	// fleet.NotFound error when it is unknown, expired or revoked.
	VerifyToken(ctx context.Context, id string, digest [sha256.Size]byte) (fleet.Token, error)
	// VerifyJoinToken does the same for join tokens. A used one is given too:
	// whether it may be used again is decided where the host is added.
	VerifyJoinToken(ctx context.Context, id string, digest [sha256.Size]byte) (fleet.JoinToken, error)
}

// oldPackage is where the plug-ins were; their names may be written with it.
const oldPackage = "commissaire_http.authentication."

// Build makes the chain in the order of specs. An unknown plug-in and an unknown
// or bad option are errors that name both. Plug-in apitoken comes last when it is
// not listed, unless tokens is nil. Without any spec everybody is refused. Nobody is
// asked anything yet.
func Build(ctx context.Context, specs []Spec, tokens Tokens, logger *slog.Logger) (*Chain, error) {
	var plugins []Authenticator
	var errs []error
	for i, s := range specs {
		p, err := buildOne(ctx, s, tokens, logger)
		if err != nil {
			errs = append(errs, fmt.Errorf("authentication plug-in %d, %s: %w", i+1, s.Name, err))
			continue
		}
		plugins = append(plugins, p)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	listed := slices.ContainsFunc(plugins, func(p Authenticator) bool { _, ok := p.(*APIToken); return ok })
	if len(plugins) > 0 && !listed && tokens != nil {
		plugins = append(plugins, NewAPIToken(tokens))
	}
	return NewChain(logger, plugins...), nil
}

func buildOne(ctx context.Context, s Spec, tokens Tokens, logger *slog.Logger) (Authenticator, error) {
	p, err := find(s.Name)
	if err != nil {
		return nil, err
	}
	if p.Name == "apitoken" && tokens == nil {
		return nil, errors.New("there is nothing here that keeps tokens")
	}
	o := newOptions(s.Options, p.Options)
	g := grants{role: o.roleOr("role", p.role), names: o.roles("roles")}
	a := p.build(plan{name: p.Name, options: o, grants: g, tokens: tokens, logger: logger})
	if err := o.err(); err != nil {
		return nil, err
	}
	for name := range o.values {
		if u, ok := o.values[name].(string); ok && inClear(u) {
			logger.WarnContext(ctx, "an authentication plug-in sends credentials in clear text; use https", "plugin", p.Name, "option", name)
		}
	}
	return a, nil
}

// find gives the plug-in of a name or alias.
func find(name string) (Plugin, error) {
	short := strings.TrimPrefix(name, oldPackage)
	var names []string
	for _, p := range Plugins() {
		if p.Name == short || slices.Contains(p.Aliases, short) {
			return p, nil
		}
		names = append(append(names, p.Name), p.Aliases...)
	}
	return Plugin{}, fmt.Errorf("there is no such plug-in%s; there are %s", nearest.Hint(short, names), strings.Join(names, ", "))
}
