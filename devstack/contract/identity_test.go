package contract

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// keystone is as much of an OpenStack Identity service, API v3, as tells who
// somebody is: user olga with password "key stone", and the token gAAAAtoken.
func keystone(t *testing.T) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Auth struct {
				Identity struct {
					Methods  []string
					Password struct {
						User struct {
							Name, Password string
							Domain         struct{ Name string }
						}
					}
					Token struct{ ID string }
				}
			}
		}
		if r.Method != http.MethodPost || r.URL.Path != "/v3/auth/tokens" || json.NewDecoder(r.Body).Decode(&asked) != nil {
			http.Error(w, `{"error": {"code": 404}}`, http.StatusNotFound)
			return
		}
		who := asked.Auth.Identity
		user := who.Password.User
		known := slices.Equal(who.Methods, []string{"password"}) && user.Name == "olga" && user.Password == "key stone" && user.Domain.Name == "Default" ||
			slices.Equal(who.Methods, []string{"token"}) && who.Token.ID == "gAAAAtoken"
		if !known {
			http.Error(w, `{"error": {"code": 401, "title": "Unauthorized"}}`, http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Subject-Token", "gAAAAnew")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"token": {"methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z", "user": {"id": "7", "name": "olga", "domain": {"id": "default", "name": "Default"}}}}`))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// cluster is as much of a Kubernetes or OpenShift API server as tells whether a
// token is good for a resource: kube-token is.
func cluster(t *testing.T, resource string) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("Authorization") != "Bearer kube-token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodGet && r.URL.Path == resource:
			_, _ = w.Write([]byte(`{"kind": "List", "items": []}`))
		case r.Method == http.MethodPost && r.URL.Path == "/apis/authentication.k8s.io/v1/selfsubjectreviews":
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{"kind": "SelfSubjectReview", "status": {"userInfo": {"username": "system:serviceaccount:ops:deployer"}}}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}
