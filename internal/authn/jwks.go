package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	// keysEvery is how often an unknown key makes us read the keys of an issuer again,
	// at most: anybody can write a key id into a token.
	keysEvery = 10 * time.Second
	// keysFor is how long keys are used without looking whether the issuer still
	// stands by them.
	keysFor = 10 * time.Minute
)

// algorithms are those that a token may be signed with: with a private key of the
// issuer, so neither "none" nor the HMAC family, whose key would be known here.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// issuer finds out where an OpenID Connect issuer keeps its keys, and keeps them.
// It begins when it is needed first, so we start while the issuer is down.
type issuer struct {
	client *http.Client
	url    string // as the tokens name it
	now    func() time.Time

	slot    chan struct{} // held by who reads the keys
	mu      sync.Mutex
	jwksURL *url.URL // nil until it is found out
	keys    []jose.JSONWebKey
	tried   time.Time // when the keys were read last, or could not be
	err     error     // of that
}

func newIssuer(client *http.Client, url string) *issuer {
	return &issuer{client: client, url: url, now: time.Now, slot: make(chan struct{}, 1)}
}

// verifySignature gives the payload of a token that the issuer has signed, and
// ErrDenied for any other. Another error means that the keys cannot be had.
func (i *issuer) verifySignature(ctx context.Context, token string) ([]byte, error) {
	jws, err := jose.ParseSigned(token, algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, ErrDenied
	}
	i.renew(ctx)
	id := jws.Signatures[0].Header.KeyID
	keys := i.known(id)
	payload, err := verifyWith(jws, keys)
	if err == nil || (id != "" && len(keys) > 0) {
		return payload, err
	}
	if err := i.refresh(ctx); err != nil {
		return nil, err
	}
	return verifyWith(jws, i.known(id))
}

func verifyWith(jws *jose.JSONWebSignature, keys []jose.JSONWebKey) ([]byte, error) {
	for _, key := range keys {
		if payload, err := jws.Verify(&key); err == nil {
			return payload, nil
		}
	}
	return nil, ErrDenied
}

// known gives the keys that may have signed a token; one that names no key may be
// signed by any.
func (i *issuer) known(id string) []jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	var keys []jose.JSONWebKey
	for _, key := range i.keys {
		if id == "" || key.KeyID == id {
			keys = append(keys, key)
		}
	}
	return keys
}

// refresh reads the keys, unless that was done or failed a moment ago. All who need
// keys wait for one reader.
func (i *issuer) refresh(ctx context.Context) error {
	select {
	case i.slot <- struct{}{}:
		defer func() { <-i.slot }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if i.triedWithin(keysEvery) {
		return i.err // written by holders of the slot only
	}
	return i.load(ctx)
}

// renew reads keys again that are old. Nobody waits for it but who does it, and
// while the issuer is down the old ones go on being good.
func (i *issuer) renew(ctx context.Context) {
	if len(i.known("")) == 0 || i.triedWithin(keysFor) {
		return
	}
	select {
	case i.slot <- struct{}{}:
		defer func() { <-i.slot }()
		if !i.triedWithin(keysFor) {
			_ = i.load(ctx)
		}
	default:
	}
}

func (i *issuer) triedWithin(d time.Duration) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now().Sub(i.tried) < d
}

// load reads the keys. The caller holds the slot.
func (i *issuer) load(ctx context.Context) error {
	keys, jwksURL, err := i.fetch(ctx, i.jwksURL)
	if errors.Is(err, context.Canceled) {
		return err // the caller went away, which says nothing about the issuer
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tried, i.err = i.now(), err
	if err == nil {
		i.keys, i.jwksURL = keys, jwksURL
	}
	return err
}

// fetch reads the keys, and before the first time where they are.
func (i *issuer) fetch(ctx context.Context, jwksURL *url.URL) ([]jose.JSONWebKey, *url.URL, error) {
	if jwksURL == nil {
		var err error
		if jwksURL, err = i.discover(ctx); err != nil {
			return nil, nil, err
		}
	}
	a, err := ask(ctx, i.client, http.MethodGet, jwksURL.String(), http.Header{}, nil)
	if err != nil {
		return nil, nil, err
	}
	if a.status != http.StatusOK {
		return nil, nil, unexpected(jwksURL, a.status)
	}
	keys, err := readKeys(a.body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", jwksURL.Redacted(), err)
	}
	return keys, jwksURL, nil
}

// discover reads the metadata of the issuer (OpenID Connect Discovery 1.0), which
// must be that of this issuer.
func (i *issuer) discover(ctx context.Context) (*url.URL, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), i.url)
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", i.url, shortened{err})
	}
	var metadata struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&metadata); err != nil {
		return nil, fmt.Errorf("discover %s: %w", i.url, err)
	}
	u, err := url.Parse(metadata.JWKS)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("discover %s: jwks_uri is no URL", i.url)
	}
	return u, nil
}

// readKeys takes the keys out of a JSON Web Key Set that can check one of the
// algorithms; a key of a kind that is not known is no error (RFC 7517, 5).
func readKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("not a JSON Web Key Set")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it can be used")
	}
	return keys, nil
}

// shortened is an error whose text may quote what somebody else wrote at length.
type shortened struct{ error }

func (s shortened) Error() string {
	text := s.error.Error()
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return text
}

func (s shortened) Unwrap() error { return s.error }
