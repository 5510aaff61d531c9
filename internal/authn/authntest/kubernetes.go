package authntest

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kubernetes is an API server, as far as bearer tokens, one guarded resource and
// asking for one's own name go. OpenShift's way to ask is there too.
type Kubernetes struct {
	Server

	mu     sync.Mutex
	tokens map[string]kubernetesUser
	absent map[string]bool // paths
}

type kubernetesUser struct {
	name    string
	may     bool
	expires time.Time
}

// NewKubernetes starts one; it ends with the test.
func NewKubernetes(t testing.TB) *Kubernetes {
	t.Helper()
	k := &Kubernetes{tokens: map[string]kubernetesUser{}, absent: map[string]bool{}}
	k.start(t, k)
	return k
}

// AddToken makes a token good for a user, who may or may not list service accounts
// and namespaces.
func (k *Kubernetes) AddToken(token, user string, may bool, expires time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens[token] = kubernetesUser{user, may, expires}
}

// Revoke makes a token no good.
func (k *Kubernetes) Revoke(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tokens, token)
}

// Without takes a path away, as on a server of another age.
func (k *Kubernetes) Without(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.absent[path] = true
}

// ServeHTTP answers in the order of a real API server: who is it, may it, is it
// there.
func (k *Kubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	token, shown := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	user, known := k.tokens[token]
	switch {
	case !shown:
		user = kubernetesUser{name: "system:anonymous"}
	case !known || !time.Now().Before(user.expires):
		kubernetesStatus(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /version", "GET /apis": // everybody may
		reply(w, http.StatusOK, map[string]any{})
		return
	case "GET /api/v1/serviceaccounts", "GET /api/v1/namespaces":
		if !user.may {
			kubernetesStatus(w, http.StatusForbidden, "Forbidden")
			return
		}
		reply(w, http.StatusOK, map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{}, "items": []any{}})
		return
	case "POST /apis/authentication.k8s.io/v1/selfsubjectreviews":
		var asked struct{ Kind, APIVersion string }
		if k.absent[r.URL.Path] {
			break
		}
		if json.NewDecoder(r.Body).Decode(&asked) != nil || asked.Kind != "SelfSubjectReview" || asked.APIVersion != "authentication.k8s.io/v1" {
			kubernetesStatus(w, http.StatusBadRequest, "BadRequest")
			return
		}
		reply(w, http.StatusCreated, map[string]any{
			"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": map[string]any{"creationTimestamp": nil},
			"status": map[string]any{"userInfo": map[string]any{"username": user.name, "groups": []string{"system:authenticated"}}},
		})
		return
	case "GET /apis/user.openshift.io/v1/users/~":
		if k.absent[r.URL.Path] {
			break
		}
		if !known {
			kubernetesStatus(w, http.StatusForbidden, "Forbidden")
			return
		}
		reply(w, http.StatusOK, map[string]any{"kind": "User", "apiVersion": "user.openshift.io/v1", "metadata": map[string]any{"name": user.name}})
		return
	}
	kubernetesStatus(w, http.StatusNotFound, "NotFound")
}

func kubernetesStatus(w http.ResponseWriter, code int, reason string) {
	reply(w, code, map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "reason": reason, "code": code,
	})
}
