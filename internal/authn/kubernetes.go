package authn

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// kubernetes is the provider of kubernetesbearertokenauth and
// openshiftbearertokenauth. It uses the token of the caller for a request that the
// caller must be allowed to make, and needs no rights of its own.
type kubernetes struct {
	client *http.Client
	kind   string   // "kubernetes" or "openshift"
	gate   *url.URL // what a caller must be allowed to get
}

// The paths that tell callers their own names: selfSubjectReview on Kubernetes 1.28
// and later, thisUser on OpenShift.
const (
	selfSubjectReview = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	thisUser          = "/apis/user.openshift.io/v1/users/~"
)

// newKubernetes takes the URL of the API server, and a resource of its core API or
// a path that begins with /api or /apis.
func newKubernetes(client *http.Client, server *url.URL, resource string) kubernetes {
	resource = "/" + strings.TrimLeft(resource, "/")
	if resource != "/api" && !strings.HasPrefix(resource, "/api/") && !strings.HasPrefix(resource, "/apis") {
		resource = "/api/v1" + resource
	}
	gate := *server
	gate.Path = strings.TrimRight(gate.Path, "/") + resource
	gate.RawQuery = "limit=1" // of a list; nobody reads it
	return kubernetes{client: client, kind: "kubernetes", gate: &gate}
}

// newOpenShift takes the URL that a caller must be allowed to get, or that of the
// server, whose every user may get itself.
func newOpenShift(client *http.Client, endpoint *url.URL) kubernetes {
	gate := *endpoint
	if strings.Trim(gate.Path, "/") == "" {
		gate.Path = thisUser
	}
	return kubernetes{client: client, kind: "openshift", gate: &gate}
}

func (kubernetes) reads() source { return authorization }

// credential leaves tokens of our own alone: they go to nobody else.
func (kubernetes) credential(r *http.Request) []string {
	token, ok := ParseBearer(r.Header.Get("Authorization"))
	if !ok || looksLikeToken(token) {
		return nil
	}
	return []string{token}
}

func (k kubernetes) verify(ctx context.Context, credential []string) (identity, error) {
	token := credential[0]
	switch status, err := probe(ctx, k.client, k.gate.String(), bearer(token)); {
	case err != nil:
		return identity{}, err
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return identity{}, ErrDenied
	case status != http.StatusOK:
		return identity{}, unexpected(k.gate, status)
	}
	name, err := k.nameOf(ctx, token)
	if err != nil {
		return identity{}, err
	}
	if name == "system:anonymous" {
		return identity{}, ErrDenied // the gate is open to everybody
	}
	return identity{name: name}, nil
}

// nameOf asks the server how it calls the caller. When it cannot tell, the name is
// made of the token.
func (k kubernetes) nameOf(ctx context.Context, token string) (string, error) {
	review := []byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	name, err := k.told(ctx, http.MethodPost, selfSubjectReview, token, review, readReview)
	if err == nil && name == "" && k.kind == "openshift" {
		name, err = k.told(ctx, http.MethodGet, thisUser, token, nil, readUser)
	}
	if err == nil && name == "" {
		digest := sha256.Sum256([]byte(token))
		name = k.kind + ":" + hex.EncodeToString(digest[:6])
	}
	return name, err
}

// told gives the name that one path tells, "" when the server has no such path or
// does not let the caller have it.
func (k kubernetes) told(ctx context.Context, method, path, token string, body []byte, read func([]byte) (string, error)) (string, error) {
	u := url.URL{Scheme: k.gate.Scheme, Host: k.gate.Host, Path: path}
	a, err := ask(ctx, k.client, method, u.String(), bearer(token), body)
	if err != nil {
		return "", err
	}
	switch a.status {
	case http.StatusOK, http.StatusCreated:
		return read(a.body)
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return "", nil
	case http.StatusUnauthorized:
		return "", ErrDenied // it has expired since
	}
	return "", unexpected(&u, a.status)
}

// readReview gives the name that a SelfSubjectReview holds.
func readReview(body []byte) (string, error) {
	var review struct {
		Status struct {
			UserInfo struct {
				Username string `json:"username"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	if err := json.Unmarshal(body, &review); err != nil || review.Status.UserInfo.Username == "" {
		return "", errNoIdentity
	}
	return review.Status.UserInfo.Username, nil
}

// readUser gives the name that a User of OpenShift has.
func readUser(body []byte) (string, error) {
	var user struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &user); err != nil || user.Metadata.Name == "" {
		return "", errNoIdentity
	}
	return user.Metadata.Name, nil
}

func bearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}
