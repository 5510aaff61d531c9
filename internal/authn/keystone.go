package authn

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// keystone asks an OpenStack Identity service, API v3, for a token in the name of
// the caller (POST /v3/auth/tokens). It gives one to those it knows; the token
// itself is of no use here.
type keystone struct {
	client *http.Client
	url    *url.URL // of auth/tokens
	domain string   // whose users are called by their bare names
}

// newKeystone takes the URL of the service, of its API v3, or of the tokens.
func newKeystone(client *http.Client, service *url.URL, domain string) keystone {
	u := *service
	u.Path = strings.TrimRight(u.Path, "/")
	switch {
	case strings.HasSuffix(u.Path, "/auth/tokens"):
	case strings.HasSuffix(u.Path, "/v3"):
		u.Path += "/auth/tokens"
	default:
		u.Path += "/v3/auth/tokens"
	}
	return keystone{client: client, url: &u, domain: domain}
}

// keystoneIdentity is auth.identity of the request.
type keystoneIdentity struct {
	Methods  []string          `json:"methods"`
	Password *keystonePassword `json:"password,omitempty"`
	Token    *keystoneToken    `json:"token,omitempty"`
}

type keystonePassword struct {
	User keystoneUser `json:"user"`
}

type keystoneUser struct {
	Name     string         `json:"name"`
	Password string         `json:"password"`
	Domain   keystoneDomain `json:"domain"`
}

type keystoneDomain struct {
	Name string `json:"name"`
}

type keystoneToken struct {
	ID string `json:"id"`
}

// ask sends an identity, and gives who that is.
func (k keystone) ask(ctx context.Context, who keystoneIdentity) (identity, error) {
	var request struct {
		Auth struct {
			Identity keystoneIdentity `json:"identity"`
		} `json:"auth"`
	}
	request.Auth.Identity = who
	body, err := json.Marshal(request)
	if err != nil {
		return identity{}, err
	}
	a, err := ask(ctx, k.client, http.MethodPost, k.url.String(), http.Header{}, body)
	if err != nil {
		return identity{}, err
	}
	return k.read(a)
}

// read understands an answer: success is the header X-Subject-Token.
func (k keystone) read(a answer) (identity, error) {
	switch a.status {
	case http.StatusOK, http.StatusCreated:
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return identity{}, ErrDenied
	case http.StatusNotFound:
		// Of a token, when Keystone says it; of a wrong URL, when anybody else does.
		var said struct {
			Error struct {
				Code int `json:"code"`
			} `json:"error"`
		}
		if json.Unmarshal(a.body, &said) == nil && said.Error.Code == http.StatusNotFound {
			return identity{}, ErrDenied
		}
		return identity{}, unexpected(k.url, a.status)
	default:
		return identity{}, unexpected(k.url, a.status)
	}
	if a.header.Get("X-Subject-Token") == "" {
		return identity{}, ErrDenied
	}
	var said struct {
		Token struct {
			ExpiresAt time.Time `json:"expires_at"`
			User      struct {
				Name   string `json:"name"`
				Domain struct {
					Name string `json:"name"`
				} `json:"domain"`
			} `json:"user"`
		} `json:"token"`
	}
	if err := json.Unmarshal(a.body, &said); err != nil || said.Token.User.Name == "" {
		return identity{}, errNoIdentity
	}
	name := said.Token.User.Name
	if domain := said.Token.User.Domain.Name; domain != k.domain {
		name += "@" + domain
	}
	return identity{name: name, until: said.Token.ExpiresAt}, nil
}
