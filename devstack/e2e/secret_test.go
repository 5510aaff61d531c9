package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
)

// A private key and a password go through everything that happens to a host,
// good and bad, and are then looked for wherever anything is written down. In
// each kind of place a control string must be found by the same search.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	random := make([]byte, 8)
	_, err := rand.Read(random)
	require.NoError(t, err)
	control := "control" + hex.EncodeToString(random)
	s := newSiteOn(t, harness.Options{Name: control, Postgres: shared.postgres, Temporal: shared.address(), Hosts: 2,
		Env: []string{"COMMISSAIRE_LOG_LEVEL=debug"}})
	key, wrongKey := s.Fleet.ClientKey(), newKey(t)
	var secrets, controls needles
	secrets.addKey(t, "the key", key)
	secrets.addKey(t, "the wrong key", wrongKey)
	secrets.add("the password", []byte(harness.Password))
	controls.add("the control string", []byte(control))

	p := places{}
	watch := watchProcesses(t)
	s.liveThrough(control, wrongKey, p)
	s.sendBadRequests(control, key)
	for what, text := range s.useTokens(control, control[len("control"):]) {
		secrets.add(what, []byte(text))
	}
	ours, hosts := watch()

	p.add("processes of ours", ours)
	p.add("processes of hosts", hosts)
	p.add("error documents", s.errors.text)
	_, metrics := s.page("/metrics")
	p.add("metrics", []byte(metrics))
	controls.put("a metric", []byte("commissaire_http_requests_total"))
	for _, role := range []string{"server", "worker"} {
		p.addFile(t, "log of the "+role, filepath.Join(s.Dir, role+".log"))
	}
	p.addFile(t, "log of Postgres", filepath.Join(shared.options.Dir, "postgres.log"))
	controls.put("a line of Postgres", []byte("database system is ready"))
	p.addFile(t, "log of Temporal", shared.log.Name())
	p.add("our database", dump(t, control))
	p.add("Temporal's database", dump(t, "temporal"))
	p.add("Temporal's visibility database", dump(t, "temporal_visibility"))
	p.add("workflow histories", s.histories())
	p.addFolders(t, "state of the hosts at the end", s)

	for where, text := range p {
		require.NotEmpty(t, controls.in(text), "%s: the control string must be found there, or the search proves nothing", where)
		require.Empty(t, secrets.in(text), "%s holds a secret", where)
		t.Logf("%s: %d KiB", where, len(text)>>10)
	}
}

// liveThrough does everything that handles a key: bootstraps that succeed and
// fail, the death of a worker in the middle of a step, a restart.
func (s *site) liveThrough(cluster, wrongKey string, p places) {
	t := s.t
	t.Helper()
	a, b := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1]
	doomed := s.worker()
	s.bootstrap(cluster, a)
	s.ask(http.StatusOK, http.MethodGet, hostPath(a)+"/creds", nil) // the one place that gives the key away, and logs who asked

	// The login is refused.
	body := s.HostBody(b)
	body["cluster"], body["ssh_priv_key"] = cluster, base64.StdEncoding.EncodeToString([]byte(wrongKey))
	s.ask(http.StatusCreated, http.MethodPut, hostPath(b), body)
	failed := s.ended("host=" + b.Address())
	require.Equal(t, "failed", failed.State)
	require.Contains(t, failed.Reason, "auth-refused")
	delete(body, "cluster")
	delete(body, "port")
	body["ssh_priv_key"] = s.HostBody(b)["ssh_priv_key"]
	s.ask(http.StatusCreated, http.MethodPut, hostPath(b)+"/creds", body)

	// A worker dies while a command runs.
	uname := s.gate(b, "uname", "-a")
	s.ask(http.StatusCreated, http.MethodPut, hostPath(b)+"/bootstrap", nil)
	uname.reached()
	harness.Kill(doomed)
	p.addFolders(t, "state of the hosts while a command runs", s)
	s.worker()
	uname.open()
	s.ready(b)

	// The host key changes.
	require.NoError(t, a.NewHostKey(t.Context()))
	s.ask(http.StatusCreated, http.MethodPut, hostPath(a)+"/bootstrap", nil)
	require.Contains(t, s.ended("host="+a.Address()).Reason, "host-key-changed")
	s.ask(http.StatusCreated, http.MethodPut, hostPath(a)+"/hostkey", map[string]any{"key": a.HostKey()})
	s.ask(http.StatusCreated, http.MethodPut, hostPath(a)+"/bootstrap", nil)
	s.ready(a)

	s.orderRestart(cluster)
	op := s.ended("cluster=" + cluster)
	require.Equal(t, "succeeded", op.State, op.Reason)
}

// grantsAll is as much of a Kubernetes API as a check of a container manager asks for.
func grantsAll(t *testing.T) string {
	t.Helper()
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/version" {
			_, _ = io.WriteString(w, `{"major":"1","minor":"34","gitVersion":"v1.34.4"}`)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}`)
	}))
	t.Cleanup(api.Close)
	return api.URL
}

// useTokens makes tokens and a container manager, uses them well and badly, and gives
// what of them is secret.
func (s *site) useTokens(cluster, random string) map[string]string {
	t := s.t
	t.Helper()
	made := func(path string, body any) string {
		var answer struct{ Token string }
		require.NoError(t, json.Unmarshal(s.ask(http.StatusCreated, http.MethodPost, path, body).Body, &answer))
		return answer.Token
	}
	api, join := made("tokens", map[string]any{"name": "ci"}), made("jointokens", map[string]any{"cluster": cluster})
	manager := "manager" + random
	server := grantsAll(t)
	s.ask(http.StatusCreated, http.MethodPut, "containermanager/kube", map[string]any{
		"type": "kubernetes", "options": map[string]any{"server_url": server, "insecure_skip_tls_verify": true, "token": manager},
	})
	s.ask(http.StatusConflict, http.MethodPut, "containermanager/kube", map[string]any{
		"type": "openshift", "options": map[string]any{"server_url": server, "insecure_skip_tls_verify": true, "token": manager},
	})
	require.NotContains(t, string(s.ask(http.StatusOK, http.MethodGet, "containermanager/kube", nil).Body), manager)
	for _, token := range []string{api, join, api + "x", join[:len(join)-1]} {
		for _, path := range []string{"/api/v0/hosts", "/api/v0/audit", "/api/v0/tokens/" + token, "/api/v0/host?token=" + token} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.API+path, nil)
			require.NoError(t, err)
			r.Header.Set("Authorization", "Bearer "+token)
			response, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			text, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			if response.StatusCode >= http.StatusBadRequest {
				// The path comes back to whoever sent it, as in every problem document.
				s.errors.add(bytes.ReplaceAll(text, []byte(token), nil))
			}
		}
	}
	secretOf := func(token string) string { return token[strings.LastIndexByte(token[:len("cmst_")+17], '_')+1:] }
	return map[string]string{"the secret of an API token": secretOf(api), "the secret of a join token": secretOf(join), "the container manager's token": manager}
}

// sendBadRequests puts the key and the password where they do not belong.
func (s *site) sendBadRequests(cluster, key string) {
	t := s.t
	t.Helper()
	key64 := base64.StdEncoding.EncodeToString([]byte(key))
	broken := []byte(strings.Replace(key, "PRIVATE", "PRIVAT", 1))
	for _, body := range []any{
		map[string]any{"ssh_priv_key": key64, "ssh_priv_kye": key64},
		map[string]any{"ssh_priv_key": key},
		map[string]any{"ssh_priv_key": key64 + "!"},
		map[string]any{"ssh_priv_key": base64.StdEncoding.EncodeToString(broken)},
		map[string]any{"ssh_priv_key": []string{key64}},
		map[string]any{"ssh_priv_key": map[string]any{"key": key}},
		map[string]any{"ssh_priv_key": key64, "remote_user": key},
		map[string]any{"ssh_priv_key": key64, "remote_user": harness.Password},
		map[string]any{"ssh_priv_key": key64, "cluster": key},
		map[string]any{"ssh_priv_key": key64, "cluster": key64},
		map[string]any{"ssh_priv_key": key64, "address": key64},
		map[string]any{"ssh_priv_key": key64, "port": key64},
		map[string]any{key64: 1},
		map[string]any{key: key},
		[]byte(`{"ssh_priv_key":"` + key64),
		[]byte(`{"ssh_priv_key":"` + key64 + `"} ` + key),
		[]byte(`{"ssh_priv_key":"` + key + `"}`),
		[]byte(key),
		[]byte(`"` + key64 + `"`),
	} {
		s.refusedAnyhow(http.MethodPut, "host/new.example", body)
		s.refusedAnyhow(http.MethodPut, "host", body)
		s.refusedAnyhow(http.MethodPut, hostPath(s.Fleet.Hosts()[0])+"/creds", body)
	}
	s.refusedAnyhow(http.MethodPut, hostPath(s.Fleet.Hosts()[0])+"/hostkey", map[string]any{"key": key})
	s.refusedAnyhow(http.MethodPut, "cluster/"+cluster, map[string]any{"network": key})
	s.refusedAnyhow(http.MethodPut, "cluster/"+cluster, map[string]any{"name": key64})
	s.refusedAnyhow(http.MethodPut, "cluster/"+cluster+"/hosts", map[string]any{"old": []string{key64}, "new": []string{key}})
	s.refusedAnyhow(http.MethodPut, "network/n", map[string]any{"type": key})
	for _, name := range []string{"host", "kind", "state", "cursor", "limit"} {
		s.refusedAnyhow(http.MethodGet, "operations?"+name+"="+url.QueryEscape(key), nil)
	}

	for _, header := range []func(*http.Request){
		func(r *http.Request) { r.SetBasicAuth("nobody", harness.Password) },
		func(r *http.Request) { r.SetBasicAuth(harness.User, harness.Password+key64) },
		func(r *http.Request) { r.SetBasicAuth(harness.Password, "x") },
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key64) },
		func(r *http.Request) { r.Header.Set("X-Request-Id", key64) },
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.API+"/api/v0/cluster/"+cluster+"/nothing", nil)
		require.NoError(t, err)
		r.SetBasicAuth(harness.User, harness.Password)
		header(r)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		var text bytes.Buffer
		_, err = text.ReadFrom(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.GreaterOrEqual(t, response.StatusCode, 400)
		s.errors.add(text.Bytes())
		for name, values := range response.Header {
			s.errors.add([]byte(name + ": " + strings.Join(values, ", ")))
		}
	}
}

// refusedAnyhow makes a request that must be the caller's mistake.
func (s *site) refusedAnyhow(method, path string, body any) {
	s.t.Helper()
	r := s.answer(http.StatusBadRequest, method, path, body, nil)
	require.Equal(s.t, 4, r.Code/100, "%s %s %v: %d %s", method, path, body, r.Code, r.Body)
	asProblem(s.t, r)
}

func newKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	require.NoError(t, err)
	return string(pem.EncodeToMemory(block))
}

// watchProcesses notes the arguments and the environment of every process on
// this machine until the returned function is called, which gives those of our
// processes and those of the hosts'.
func watchProcesses(t *testing.T) (stop func() (ours, hosts []byte)) {
	ctx, cancel := context.WithCancel(t.Context())
	seen := map[string]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			files, _ := filepath.Glob("/proc/[0-9]*")
			for _, dir := range files {
				arguments, err := os.ReadFile(dir + "/cmdline")
				if err != nil {
					continue // gone already
				}
				environment, err := os.ReadFile(dir + "/environ")
				if err == nil {
					seen[string(arguments)+"\n"+string(environment)] = true
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() (ours, hosts []byte) {
		cancel()
		<-done
		for text := range seen {
			if strings.Contains(text, "FLEET_HOST=") {
				hosts = append(hosts, text...)
			} else {
				ours = append(ours, text...)
			}
		}
		return ours, hosts
	}
}
