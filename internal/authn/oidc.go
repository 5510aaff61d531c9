package authn

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"commissaire/internal/fleet"
)

// openID is the provider of plug-in oidc: it checks ID tokens, and access tokens
// that are JWTs, which an OpenID Connect issuer has signed for us.
type openID struct {
	issuer *issuer
	config oidc.Config
	claims claims
}

// newOpenID takes the audience that a token must be made for.
func newOpenID(i *issuer, clientID string, c claims) openID {
	config := oidc.Config{ClientID: clientID, Now: func() time.Time { return i.now() }}
	for _, a := range algorithms {
		config.SupportedSigningAlgs = append(config.SupportedSigningAlgs, string(a))
	}
	return openID{issuer: i, config: config, claims: c}
}

func (openID) reads() source { return authorization }

// credential takes what looks like a JWT; other tokens are for others.
func (openID) credential(r *http.Request) []string {
	token, ok := ParseBearer(r.Header.Get("Authorization"))
	if !ok || strings.Count(token, ".") != 2 {
		return nil
	}
	return []string{token}
}

func (o openID) verify(ctx context.Context, credential []string) (identity, error) {
	payload, err := o.issuer.verifySignature(ctx, credential[0])
	if err != nil {
		return identity{}, err
	}
	// The library makes one text of all errors, so it could not tell a bad signature
	// from an issuer that is down. Hence the signature is checked before.
	token, err := oidc.NewVerifier(o.issuer.url, signed(payload), &o.config).Verify(ctx, credential[0])
	if err != nil {
		return identity{}, ErrDenied
	}
	var said map[string]any
	if err := token.Claims(&said); err != nil {
		return identity{}, ErrDenied
	}
	id, err := o.claims.read(said)
	id.until = token.Expiry
	return id, err
}

// signed is the payload of a token whose signature is checked. It is the
// oidc.KeySet that says so.
type signed []byte

func (s signed) VerifySignature(context.Context, string) ([]byte, error) { return s, nil }

// claims say where in a token to look for what.
type claims struct {
	username string                // claim that holds the name
	roles    string                // claim that holds roles, "" for none; dots lead into objects
	roleMap  map[string]fleet.Role // by value of that claim; nil when the values are our roles
}

// read gives whom a token speaks of, with the highest of its roles.
func (c claims) read(said map[string]any) (identity, error) {
	name, _ := said[c.username].(string)
	if name == "" {
		return identity{}, ErrDenied
	}
	if verified, there := said["email_verified"]; there && c.username == "email" && verified != true {
		return identity{}, ErrDenied // anybody can have said to the issuer that it is theirs
	}
	id := identity{name: name}
	for _, value := range texts(lookUp(said, c.roles)) {
		role, known := c.roleMap[value]
		if c.roleMap == nil {
			var err error
			role, err = fleet.ParseRole("role", value)
			known = err == nil
		}
		if known && (id.role == "" || role.Covers(id.role)) {
			id.role = role
		}
	}
	return id, nil
}

// lookUp finds a claim by its name, or along its dots.
func lookUp(said map[string]any, path string) any {
	if value, ok := said[path]; ok {
		return value
	}
	first, rest, dotted := strings.Cut(path, ".")
	if inner, ok := said[first].(map[string]any); ok && dotted {
		return lookUp(inner, rest)
	}
	return nil
}

// texts gives the texts of a claim that holds one or a list.
func texts(value any) []string {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
