package contract

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

// kubeAPI is as much of its API as a container manager needs. The real one is in the
// end-to-end tests, where it can be had; what clients of 2017 see must be replayed
// everywhere.
type kubeAPI struct {
	*httptest.Server

	mu    sync.Mutex
	away  bool
	nodes map[string]bool
	asked []string // what changes something
}

func newKubeAPI(t *testing.T) *kubeAPI {
	t.Helper()
	k := &kubeAPI{nodes: map[string]bool{}}
	k.Server = httptest.NewTLSServer(k)
	t.Cleanup(k.Close)
	return k
}

// options of a container manager of this Kubernetes.
func (k *kubeAPI) options(t *testing.T, more M) string {
	t.Helper()
	all := M{"server_url": k.URL, "token": "hidden-9", "insecure_skip_tls_verify": true}
	for name, value := range more {
		all[name] = value
	}
	return jsonOf(t, all)
}

var address = regexp.MustCompile(`127\.[0-9]+\.[0-9]+\.[0-9]+`)

func (k *kubeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(code int, v M) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	failure := func(code int, reason string) {
		answer(code, M{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "no", "code": code})
	}
	const nodes = "/api/v1/nodes"
	name := path.Base(r.URL.Path)
	if strings.HasPrefix(r.URL.Path, nodes) && r.Method != http.MethodGet {
		k.asked = append(k.asked, r.Method+" "+strings.TrimPrefix(r.URL.Path, nodes))
	}
	switch {
	case k.away:
		failure(http.StatusServiceUnavailable, "ServiceUnavailable")
	case r.URL.Path == "/version":
		answer(http.StatusOK, M{"gitVersion": "v1.34.0"})
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		answer(http.StatusCreated, M{"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": M{"allowed": true}})
	case r.URL.Path == nodes && r.Method == http.MethodPost:
		body, err := io.ReadAll(r.Body)
		name := string(address.Find(body)) // the body is not JSON
		switch {
		case err != nil || name == "":
			failure(http.StatusBadRequest, "BadRequest")
		case k.nodes[name]:
			failure(http.StatusConflict, "AlreadyExists")
		default:
			k.nodes[name] = true
			answer(http.StatusCreated, nodeObject(name))
		}
	case !k.nodes[name]:
		failure(http.StatusNotFound, "NotFound")
	case r.Method == http.MethodDelete:
		delete(k.nodes, name)
		answer(http.StatusOK, M{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	default:
		answer(http.StatusOK, nodeObject(name))
	}
}

func nodeObject(name string) M {
	return M{
		"kind": "Node", "apiVersion": "v1", "metadata": M{"name": name},
		"status": M{"conditions": []M{{"type": "Ready", "status": "True"}}, "anything": "else"},
	}
}

func (k *kubeAPI) is(away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = away
}

func (k *kubeAPI) has(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.nodes[name]
}

// Container managers that workers ask.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	s, k := ownSite(t, harness.Options{Hosts: 1}), newKubeAPI(t)
	host := s.Fleet.Hosts()[0].Address()
	node := func(t *testing.T) any { return s.get(t, "host/"+host+"/status").object()["container_manager"] }
	unregistered := func(t *testing.T) {
		s.until(t, "the node to be removed", func() bool {
			return s.operation(t, "kind=unregister&host="+host)["state"] == "succeeded"
		})
		require.False(t, k.has(host))
	}

	fact(t, "2-9", func(t *testing.T) {
		s.put(t, "containermanager/m9", "").problem(http.StatusBadRequest, "options.server_url") // openshift, which needs to be told where it is
		a := s.put(t, "containermanager/m9", `{"options": `+k.options(t, nil)+`}`).status(http.StatusCreated)
		require.Equal(t, []string{"name", "type", "options"}, orderOf(t, a))
		shown := s.get(t, "containermanager/m9")
		shown.is(http.StatusOK, `{"name": "m9", "type": "openshift", "options": {"server_url": "`+k.URL+`", "token": "[redacted]", "insecure_skip_tls_verify": true}}`)
		require.NotContains(t, shown.body, "hidden-9")
	})
	fact(t, "2-17", func(t *testing.T) {
		for _, kind := range []string{"openshift", "kubernetes"} {
			body := `{"type": "` + kind + `", "options": ` + k.options(t, nil) + `}`
			require.Equal(t, kind, s.put(t, "containermanager/m17-"+kind, body).status(http.StatusCreated).object()["type"])
		}
		require.Equal(t, "trivial", s.put(t, "containermanager/m17-trivial", `{"type": "trivial"}`).status(http.StatusCreated).object()["type"])
		s.put(t, "containermanager/m17", `{"type": "swarm"}`).problem(http.StatusBadRequest, "type")
	})
	fact(t, "6.2-2", func(t *testing.T) {
		s.put(t, "containermanager/x22", `{"type": "openshift", "options": `+k.options(t, M{"nonsense": 1})+`}`).problem(http.StatusBadRequest, "options.nonsense")
		s.get(t, "containermanager/x22").problem(http.StatusNotFound)
	})
	fact(t, "9-5", func(t *testing.T) {
		s.put(t, "network/x95", `{"type": "flannel_server", "options": {"address": "192.0.2.95:8080"}}`).status(http.StatusCreated)
		s.put(t, "containermanager/x95", `{"type": "openshift", "options": `+k.options(t, nil)+`}`).status(http.StatusCreated)
		s.put(t, "cluster/x95", `{"network": "x95", "container_manager": "x95"}`).is(http.StatusCreated,
			`{"name": "x95", "status": "", "network": "x95", "container_manager": "x95"}`)
	})
	fact(t, "6.2-4 3.5-6", func(t *testing.T) {
		s.put(t, "containermanager/x24", `{"type": "kubernetes", "options": `+k.options(t, nil)+`}`).status(http.StatusCreated)
		s.put(t, "cluster/x24", `{"container_manager": "x24"}`).status(http.StatusCreated)
		body := s.HostBody(s.Fleet.Hosts()[0])
		body["cluster"] = "x24"
		s.put(t, "host/"+host, jsonOf(t, body)).status(http.StatusCreated)
		s.until(t, "the host to be active", func() bool { return s.get(t, "host/"+host).object()["status"] == "active" })
		require.Equal(t, map[string]any{
			"kind": "Node", "apiVersion": "v1", "metadata": map[string]any{"name": host},
			"status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}, "anything": "else"},
		}, node(t))
		s.delete(t, "cluster/x24/hosts/"+host).is(http.StatusOK, "[]")
		unregistered(t)
		require.Equal(t, map[string]any{}, node(t))
	})
	fact(t, "3.3-8", func(t *testing.T) {
		s.put(t, "cluster/x24/hosts/"+host, "").is(http.StatusOK, `["`+host+`"]`)
		s.until(t, "the register", func() bool { return s.operation(t, "kind=register&host="+host)["state"] == "succeeded" })
		require.Equal(t, "active", s.get(t, "host/"+host).object()["status"])
		require.True(t, k.has(host))
	})
	fact(t, "3.1-11", func(t *testing.T) {
		k.is(true)
		s.delete(t, "cluster/x24").is(http.StatusOK, "[]")
		s.get(t, "cluster/x24").problem(http.StatusNotFound)
		s.until(t, "the removal to wait", func() bool {
			waiting, _ := s.operation(t, "kind=unregister&host="+host)["waiting"].(string)
			return waiting != ""
		})
		k.is(false)
		unregistered(t)
	})
	fact(t, "3.1-10 9-16", func(t *testing.T) {
		k.mu.Lock()
		defer k.mu.Unlock()
		slices.Sort(k.asked)
		require.Equal(t, []string{"DELETE /" + host, "POST "}, slices.Compact(k.asked), "never the collection")
	})
}
