package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
)

// Wrong input is refused by name, and leaves no trace in the database and in
// Temporal.
func TestWrongInputChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.worker()
	h := s.Fleet.Hosts()[0]
	s.bootstrap(harness.Cluster, h)
	good := s.HostBody(h)["ssh_priv_key"]
	key := func(text string) map[string]any {
		return map[string]any{"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(text))}
	}
	with := func(name string, value any) map[string]any {
		return map[string]any{"ssh_priv_key": good, name: value}
	}
	s.until(limit, "the bootstrap to be listed", func() bool { return slices.Contains(s.workflows(), "host/default/"+h.Address()) })
	before, workflows := s.data(), s.workflows()
	for _, c := range []struct {
		name, method, path string
		body               any
		status             int
		field              string // in errors, or in detail
	}{
		{"unknown field", "PUT", "host/new.example", with("colour", "red"), 400, "colour"},
		{"bad JSON", "PUT", "host/new.example", []byte(`{"ssh_priv_key": "`), 400, "ssh_priv_key"},
		{"not JSON", "PUT", "host/new.example", []byte(`key`), 400, "body"},
		{"bad base64", "PUT", "host/new.example", map[string]any{"ssh_priv_key": "%%%"}, 400, "ssh_priv_key"},
		{"no private key", "PUT", "host/new.example", key("hello"), 400, "ssh_priv_key"},
		{"a public key", "PUT", "host/new.example", key(h.HostKey()), 400, "ssh_priv_key"},
		{"key with passphrase", "PUT", "host/new.example", key(lockedKey(t)), 400, "ssh_priv_key"},
		{"no key", "PUT", "host/new.example", map[string]any{}, 400, "ssh_priv_key"},
		{"key as credentials", "PUT", hostPath(h) + "/creds", key("hello"), 400, "ssh_priv_key"},
		{"shell in the body's address", "PUT", "host", with("address", "a;reboot"), 400, "address"},
		{"option as address", "PUT", "host", with("address", "-oProxyCommand=reboot"), 400, "address"},
		{"shell in the path", "PUT", "host/" + url.PathEscape("$(reboot)"), with("cluster", harness.Cluster), 404, "address"},
		{"shell in the user", "PUT", "host/new.example", with("remote_user", "a b;reboot"), 400, "remote_user"},
		{"port out of range", "PUT", "host/new.example", with("port", 70000), 400, "port"},
		{"wrong type", "PUT", "host/new.example", with("port", "22"), 400, "port"},
		{"another address", "PUT", "host/new.example", with("address", "other.example"), 400, "address"},
		{"unknown cluster", "PUT", "host/new.example", with("cluster", "nowhere"), 409, "cluster"},
		{"restart of an unknown cluster", "PUT", "cluster/nowhere/restart", nil, 404, "cluster"},
		{"bootstrap of an unknown host", "PUT", "host/new.example/bootstrap", nil, 404, "host"},
		{"unknown member", "PUT", "cluster/" + harness.Cluster + "/hosts", map[string]any{"old": []string{h.Address()}, "new": []string{"new.example"}}, 404, "new.example"},
		{"shell in a cluster's name", "PUT", "cluster/" + url.PathEscape("a;b"), nil, 404, "name"},
		{"unknown network type", "PUT", "network/n", map[string]any{"type": "carrier_pigeon"}, 400, "type"},
		{"no host key", "PUT", hostPath(h) + "/hostkey", map[string]any{"key": "hello"}, 400, "key"},
		{"10 MB", "PUT", "host/new.example", with("remote_user", strings.Repeat("a", 10<<20)), 413, "body"},
	} {
		var r *harness.Response
		s.until(limit, "an answer to "+c.name, func() (done bool) {
			var err error
			r, err = s.Request(t.Context(), c.method, c.path, c.body)
			// Who still sends what is too much may meet the end of the connection before the answer.
			if done = err == nil; c.status != http.StatusRequestEntityTooLarge {
				require.NoError(t, err, c.name)
			}
			return done && r.Code != http.StatusServiceUnavailable // Temporal may be late
		})
		require.Equal(t, c.status, r.Code, "%s: %s", c.name, r.Body)
		p := asProblem(t, r)
		named := strings.Contains(p.Detail, c.field)
		for _, e := range p.Errors {
			named = named || e.Field == c.field
		}
		require.True(t, named, "%s: %s must be named: %s", c.name, c.field, r.Body)
		require.Equal(t, before, s.data(), c.name)
	}
	// What would have been started shows in the list before what is started now.
	s.orderRestart(harness.Cluster)
	op := s.ended("kind=restart")
	require.Equal(t, "succeeded", op.State, op.Reason)
	want := append(slices.Clone(workflows), "cluster/default/"+harness.Cluster, "cluster/default/"+harness.Cluster+"/"+h.Address())
	slices.Sort(want)
	s.until(limit, "the list of workflows", func() bool { return len(s.workflows()) >= len(want) })
	require.Equal(t, want, s.workflows())
}

// data is all of our database as text, but for the audit log, in which refused
// requests stand, and for the number that comes next: what is taken back leaves a gap
// in it.
func (s *site) data() string {
	s.t.Helper()
	var all strings.Builder
	for line := range strings.Lines(string(dump(s.t, nameOf(s.t), "--exclude-table-data=audit*"))) {
		random := strings.HasPrefix(line, `\restrict`) || strings.HasPrefix(line, `\unrestrict`) // in each dump
		if !random && !strings.Contains(line, "setval('public.record_seq'") {
			all.WriteString(line)
		}
	}
	return all.String()
}

// workflows lists the ids of all workflows that Temporal shows, sorted.
func (s *site) workflows() (ids []string) {
	s.t.Helper()
	page, err := s.Temporal.ListWorkflow(s.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{})
	require.NoError(s.t, err)
	for _, w := range page.GetExecutions() {
		ids = append(ids, w.GetExecution().GetWorkflowId())
	}
	slices.Sort(ids)
	return ids
}

func lockedKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("sesame"))
	require.NoError(t, err)
	return string(pem.EncodeToMemory(block))
}

// Nobody gets in without a password, and a request's path does not matter then.
func TestStrangersLearnNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	for _, path := range []string{"clusters", "host/a", "nowhere"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/api/v0/%s", s.API, path), nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusForbidden, response.StatusCode, path)
	}
}
