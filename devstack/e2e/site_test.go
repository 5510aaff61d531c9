package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// limit is how long an operation may take to end where nothing has to time out:
// far more than it needs, since the machine may be busy.
const limit = 3 * time.Minute

// site is an installation as one test sees it.
type site struct {
	*harness.Installation
	t      *testing.T
	errors *bodies // every error document that was received
}

// bodies collects texts.
type bodies struct {
	mu   sync.Mutex
	text []byte
}

func (b *bodies) add(text []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(append(b.text, text...), '\n')
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// nameOf is the test's name as the name of a database and a folder.
func nameOf(t *testing.T) string { return unfit.ReplaceAllString(strings.ToLower(t.Name()), "_") }

// newSite makes an installation on the shared servers.
func newSite(t *testing.T, hosts int, env ...string) *site {
	t.Helper()
	return newSiteOn(t, harness.Options{Postgres: shared.postgres, Temporal: shared.address(), Hosts: hosts, Env: env})
}

func newSiteOn(t *testing.T, o harness.Options) *site {
	t.Helper()
	// On a busy machine a heartbeat may be late for seconds, and then two do a step; and a
	// step, or a reboot, may take long.
	o.Env = append([]string{"COMMISSAIRE_HEARTBEAT_TIMEOUT=5s", "COMMISSAIRE_STEP_TIMEOUT=3m", "COMMISSAIRE_REBOOT_TIMEOUT=3m"}, o.Env...)
	if o.Dir, o.Binary = workDir, program; o.Name == "" {
		o.Name = nameOf(t)
	}
	i, err := harness.New(t.Context(), o)
	require.NoError(t, err)
	s := &site{Installation: i, t: t, errors: &bodies{}}
	t.Cleanup(func() {
		i.Close()
		if t.Failed() {
			for _, role := range []string{"server", "worker"} {
				t.Logf("end of the log of %s:\n%s", role, tail(filepath.Join(i.Dir, role+".log")))
			}
		}
	})
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

// in is the same site in a subtest.
func (s *site) in(t *testing.T) *site {
	return &site{Installation: s.Installation, t: t, errors: s.errors}
}

// worker starts a worker, which ends with the test.
func (s *site) worker(env ...string) *exec.Cmd {
	s.t.Helper()
	w, err := s.Start("worker", env...)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { harness.Kill(w) })
	return w
}

// until waits for a condition.
func (s *site) until(limit time.Duration, what string, check func() bool) {
	s.t.Helper()
	require.NoError(s.t, harness.Until(s.t.Context(), limit, what, func() (bool, error) { return check(), nil }))
}

// ask makes a request and wants this status.
func (s *site) ask(status int, method, path string, body any) *harness.Response {
	s.t.Helper()
	r := s.answer(status, method, path, body, nil)
	require.Equal(s.t, status, r.Code, "%s %s: %s", method, path, r.Body)
	return r
}

// answer makes a request and gives the answer. While that is 503, and another status is
// wanted, the request is repeated: a worker that has just been started, Temporal or a
// container manager may be late on a busy machine, and nothing was done then.
func (s *site) answer(want int, method, path string, body any, header http.Header) (r *harness.Response) {
	s.t.Helper()
	s.until(limit, "an answer to "+method+" "+path, func() bool {
		var err error
		r, err = s.RequestWith(s.t.Context(), method, path, body, header)
		require.NoError(s.t, err)
		if r.Code >= http.StatusBadRequest {
			s.errors.add(r.Body)
		}
		return r.Code == want || r.Code != http.StatusServiceUnavailable
	})
	return r
}

// get reads a resource.
func (s *site) get(path string, into any) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal(s.ask(http.StatusOK, http.MethodGet, path, nil).Body, into))
}

// problem is an error document (RFC 9457).
type problem struct {
	Title, Detail string
	Status        int
	Errors        []struct{ Field, Detail string }
}

// refused makes a request that must end in a problem document.
func (s *site) refused(status int, method, path string, body any) problem {
	s.t.Helper()
	return asProblem(s.t, s.ask(status, method, path, body))
}

func asProblem(t *testing.T, r *harness.Response) (p problem) {
	t.Helper()
	require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"), "%s", r.Body)
	require.NoError(t, json.Unmarshal(r.Body, &p))
	require.Equal(t, r.Code, p.Status)
	require.NotEmpty(t, p.Detail)
	if r.Code == http.StatusServiceUnavailable {
		require.NotEmpty(t, r.Header.Get("Retry-After"))
	}
	return p
}

// The resources, as far as the tests look at them.
type (
	hostView struct {
		Address, Status, OS, Reason, Cluster string
		OSVersion                            string `json:"os_version"`
		BootID                               string `json:"boot_id"`
		LastCheck                            string `json:"last_check"`
		HostKey                              string `json:"host_key_fingerprint"`
		CPUs, Memory                         int
	}
	restartView struct {
		Name, Status string
		Restarted    []string
		InProcess    []string `json:"in_process"`
		StartedAt    string   `json:"started_at"`
		FinishedAt   string   `json:"finished_at"`
	}
	operationView struct {
		ID, Kind, Cluster, Host, State, Reason string
		Waiting                                string
		RequestedBy                            string `json:"requested_by"`
		RetryOf                                string `json:"retry_of"`
	}
	hostRunView struct {
		Address, State, Reason string
		BootID                 string `json:"boot_id"`
	}
	stepView struct {
		Address, Name, State, Reason string
		ExitCode                     *int  `json:"exit_code"`
		OutputSize                   int64 `json:"output_size"`
	}
)

func jsonInto(text []byte, into any) error { return json.Unmarshal(text, into) }

func hostPath(h *remotetest.Host) string { return "host/" + url.PathEscape(h.Address()) }

func (s *site) host(h *remotetest.Host) (v hostView) {
	s.t.Helper()
	s.get(hostPath(h), &v)
	return v
}

func (s *site) restart(cluster string) (v restartView) {
	s.t.Helper()
	s.get("cluster/"+cluster+"/restart", &v)
	return v
}

// latest is the newest operation that fits a filter such as "cluster=web". It waits for
// one: what follows another operation is on record only once that has ended.
func (s *site) latest(filter string) operationView {
	s.t.Helper()
	var page struct{ Operations []operationView }
	s.until(limit, "an operation with "+filter, func() bool {
		s.get("operations?limit=1&"+filter, &page)
		return len(page.Operations) == 1
	})
	return page.Operations[0]
}

func (s *site) hostRuns(id string) []hostRunView {
	s.t.Helper()
	var page struct{ Hosts []hostRunView }
	s.get("operations/"+id+"/hosts", &page)
	return page.Hosts
}

func (s *site) steps(id string) []stepView {
	s.t.Helper()
	var page struct{ Steps []stepView }
	s.get("operations/"+id+"/steps", &page)
	return page.Steps
}

// ended waits for the end of the newest operation that fits the filter.
func (s *site) ended(filter string) (op operationView) {
	s.t.Helper()
	s.until(limit, "the end of the operation with "+filter, func() bool {
		op = s.latest(filter)
		return op.State != "pending" && op.State != "running"
	})
	return op
}

// addHost registers a host in a cluster, "" for none.
func (s *site) addHost(h *remotetest.Host, cluster string) {
	s.t.Helper()
	body := s.HostBody(h)
	if body["cluster"] = cluster; cluster == "" {
		delete(body, "cluster")
	}
	s.ask(http.StatusCreated, http.MethodPut, hostPath(h), body)
}

// bootstrap makes a cluster of hosts, in this order, and waits until all are ready.
func (s *site) bootstrap(cluster string, hosts ...*remotetest.Host) {
	s.t.Helper()
	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+cluster, map[string]any{})
	for _, h := range hosts {
		s.addHost(h, cluster)
	}
	s.ready(hosts...)
}

// ready waits until the bootstrap of hosts has ended well.
func (s *site) ready(hosts ...*remotetest.Host) {
	s.t.Helper()
	for _, h := range hosts {
		op := s.ended("kind=bootstrap&host=" + url.QueryEscape(h.Address()))
		require.Equal(s.t, "succeeded", op.State, op.Reason)
		require.Equal(s.t, "disassociated", s.host(h).Status)
	}
}

// orderRestart begins a restart of a cluster.
func (s *site) orderRestart(cluster string) {
	s.t.Helper()
	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+cluster+"/restart", nil)
}

// rebooting waits until a host was told to reboot.
func (s *site) rebooting(h *remotetest.Host) {
	s.t.Helper()
	s.until(limit, h.Name()+" to be told to reboot", func() bool { return reboots(h) > 0 })
}

// reboots is how often a host was told to reboot, by its own ledger.
func reboots(h *remotetest.Host) int { return h.Count("systemctl", "reboot") }

// rebootedOnce wants that each host was told to reboot once and did.
func (s *site) rebootedOnce(hosts ...*remotetest.Host) {
	s.t.Helper()
	for _, h := range hosts {
		entries, err := h.Ledger()
		require.NoError(s.t, err)
		var boots []string
		for _, e := range entries {
			if e.What == "boot" {
				boots = append(boots, e.BootID)
			}
		}
		require.Equal(s.t, 1, reboots(h), "%s was told to reboot so often: %v", h.Name(), entries)
		require.Len(s.t, boots, 2, "%s: %v", h.Name(), entries)
		require.NotEqual(s.t, boots[0], boots[1], h.Name())
	}
}

// count is one number from the database.
func (s *site) count(sql string, args ...any) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.DB.QueryRow(s.t.Context(), sql, args...).Scan(&n))
	return n
}

// page reads a page outside the API, which needs no credentials.
func (s *site) page(path string) (code int, body string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.API+path, nil)
	require.NoError(s.t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	return response.StatusCode, string(text)
}
