package contract

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// limit is how long an operation may take: far more than it needs, since the
// machine may be busy.
const limit = 3 * time.Minute

// site is an installation.
type site struct{ *harness.Installation }

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

func newSite(ctx context.Context, name string, hosts int, env ...string) (*site, error) {
	return openSite(ctx, harness.Options{Name: name, Hosts: hosts, Env: env})
}

func openSite(ctx context.Context, o harness.Options) (*site, error) {
	o.Name = strings.Trim(unfit.ReplaceAllString(strings.ToLower(o.Name), "_"), "_")
	o.Dir, o.Binary, o.Postgres, o.Temporal = workDir, program, postgres, temporl.Addr()
	i, err := harness.New(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, tail(filepath.Join(workDir, o.Name, "server.log")))
	}
	return &site{i}, nil
}

// ownSite is an installation of one test, with a worker.
func ownSite(t *testing.T, o harness.Options) *site {
	t.Helper()
	o.Name = t.Name()
	s, err := openSite(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", tail(filepath.Join(s.Dir, "server.log")))
			t.Logf("end of the worker's log:\n%s", tail(filepath.Join(s.Dir, "worker.log")))
		}
	})
	worker, err := s.Start("worker")
	require.NoError(t, err)
	t.Cleanup(func() { harness.Kill(worker) })
	return s
}

func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// quietSite is shared by tests that need no worker. Its hosts are names only:
// nothing ever connects to them.
var quietSite = sync.OnceValues(func() (*site, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit) // of no one test, since many share it
	defer cancel()
	return newSite(ctx, "quiet", 0)
})

func quiet(t *testing.T) *site {
	t.Helper()
	s, err := quietSite()
	require.NoError(t, err)
	return s
}

// closeQuiet opens it when no test has, which costs less than to know.
func closeQuiet() {
	if s, err := quietSite(); err == nil {
		s.Close()
	}
}

// answer is what the server said.
type answer struct {
	t      *testing.T
	asked  string
	code   int
	header http.Header
	body   string
}

// change alters a request before it is sent.
type change func(*http.Request)

// anonymous sends no credentials.
func anonymous(r *http.Request) { r.Header.Del("Authorization") }

func header(name, value string) change { return func(r *http.Request) { r.Header.Set(name, value) } }

// ask makes a request as requests for Python does: a body has no content type,
// and there is none when it is empty. path is below /api/v0/ unless it starts
// with a slash.
func (s *site) ask(t *testing.T, method, path, body string, changes ...change) answer {
	t.Helper()
	var a answer
	s.until(t, "a worker to answer "+method+" "+path, func() bool {
		a = askAt(t, http.DefaultClient, s.API, method, path, body, changes...)
		// A busy one is late, and so is Temporal; nothing was done then.
		return a.code != http.StatusServiceUnavailable || !strings.Contains(a.body, "no worker answered") && !strings.Contains(a.body, "Temporal does not answer")
	})
	return a
}

func askAt(t *testing.T, client *http.Client, server, method, path, body string, changes ...change) answer {
	t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = "/api/v0/" + path
	}
	var payload io.Reader
	if body != "" {
		payload = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, server+path, payload)
	require.NoError(t, err)
	r.SetBasicAuth(harness.User, harness.Password)
	for _, c := range changes {
		c(r)
	}
	response, err := client.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return answer{t, method + " " + path + " " + body, response.StatusCode, response.Header, string(text)}
}

func (s *site) get(t *testing.T, path string, changes ...change) answer {
	t.Helper()
	return s.ask(t, http.MethodGet, path, "", changes...)
}

func (s *site) put(t *testing.T, path, body string, changes ...change) answer {
	t.Helper()
	return s.ask(t, http.MethodPut, path, body, changes...)
}

func (s *site) delete(t *testing.T, path string, changes ...change) answer {
	t.Helper()
	return s.ask(t, http.MethodDelete, path, "", changes...)
}

// status wants this status code.
func (a answer) status(code int) answer {
	a.t.Helper()
	require.Equal(a.t, code, a.code, "%s: %s", a.asked, a.body)
	return a
}

// is wants this status code and JSON.
func (a answer) is(code int, body string) {
	a.t.Helper()
	a.status(code)
	require.JSONEq(a.t, body, a.body, a.asked)
}

// into wants success and reads the JSON.
func (a answer) into(v any) {
	a.t.Helper()
	require.Equal(a.t, 2, a.code/100, "%s: %s", a.asked, a.body)
	require.NoError(a.t, json.Unmarshal([]byte(a.body), v), a.asked)
}

func (a answer) object() (o map[string]any) {
	a.t.Helper()
	a.into(&o)
	return o
}

// keys wants success with an object of exactly these members.
func (a answer) keys(names ...string) map[string]any {
	a.t.Helper()
	o := a.object()
	got := make([]string, 0, len(o))
	for name := range o {
		got = append(got, name)
	}
	require.ElementsMatch(a.t, names, got, a.asked)
	return o
}

// problem is an error document (RFC 9457).
type problem struct {
	Type, Title, Detail, Instance string
	Status                        int
	Errors                        []struct{ Field, Detail string }
	Holder                        *struct{ Operation string }
}

// problem wants an error with this status code, and the members to blame.
func (a answer) problem(code int, fields ...string) (p problem) {
	a.t.Helper()
	a.status(code)
	require.Equal(a.t, "application/problem+json", a.header.Get("Content-Type"), a.asked)
	require.NoError(a.t, json.Unmarshal([]byte(a.body), &p), a.asked)
	require.Equal(a.t, code, p.Status, a.asked)
	require.NotEmpty(a.t, p.Detail, a.asked)
	if len(fields) > 0 {
		var got []string
		for _, e := range p.Errors {
			got = append(got, e.Field)
		}
		require.ElementsMatch(a.t, fields, got, "%s: %s", a.asked, a.body)
	}
	return p
}

// newKey is a private key as ssh_priv_key has it.
func newKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(block))
}

// jsonOf writes a body.
func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// M is a JSON object.
type M map[string]any

// addName registers a host that is a name only, and gives its key. It is
// investigating until setState says otherwise.
func (s *site) addName(t *testing.T, address, cluster string) (key string) {
	t.Helper()
	key = newKey(t)
	body := M{"ssh_priv_key": key}
	if cluster != "" {
		body["cluster"] = cluster
	}
	s.put(t, "host/"+address, jsonOf(t, body)).status(http.StatusCreated)
	return key
}

// setState makes a host of the quiet site what only a bootstrap could make it.
func (s *site) setState(t *testing.T, address, state string) {
	t.Helper()
	const set = `UPDATE host SET state = $2, reason = CASE $2 WHEN 'failed' THEN 'a test says so' ELSE '' END WHERE address = $1`
	tag, err := s.DB.Exec(t.Context(), set, address, state)
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected())
}

// addHosts makes a cluster of real hosts and waits for their bootstrap.
func (s *site) addHosts(t *testing.T, cluster string, hosts ...*remotetest.Host) {
	t.Helper()
	s.put(t, "cluster/"+cluster, "").status(http.StatusCreated)
	for _, h := range hosts {
		body := s.HostBody(h)
		body["cluster"] = cluster
		s.put(t, "host/"+h.Address(), jsonOf(t, body)).status(http.StatusCreated)
	}
	for _, h := range hosts {
		s.until(t, h.Address()+" to be bootstrapped", func() bool {
			return s.get(t, "host/"+h.Address()+"/bootstrap").object()["status"] != "in_process"
		})
		require.Equal(t, "finished", s.get(t, "host/"+h.Address()+"/bootstrap").object()["status"], s.get(t, "host/"+h.Address()).body)
	}
}

func (s *site) until(t *testing.T, what string, check func() bool) {
	t.Helper()
	require.NoError(t, harness.Until(t.Context(), limit, what, func() (bool, error) { return check(), nil }))
}

// ended waits for the end of a cluster's operation and gives its record.
func (s *site) ended(t *testing.T, cluster, kind string) (record map[string]any) {
	t.Helper()
	s.until(t, "the end of "+kind+" of "+cluster, func() bool {
		record = s.get(t, "cluster/"+cluster+"/"+kind).object()
		return record["status"] != "in_process"
	})
	return record
}

// ID is that of the newest operation of a cluster.
func (s *site) operation(t *testing.T, filter string) map[string]any {
	t.Helper()
	var page struct{ Operations []map[string]any }
	s.get(t, "operations?limit=1&"+filter).into(&page)
	require.Len(t, page.Operations, 1, filter)
	return page.Operations[0]
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
