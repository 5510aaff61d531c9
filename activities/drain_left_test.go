package activities_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// TestADiagnosisOfAHostThatLeaves ends at once, and not when the drain may take no longer.
func TestADiagnosisOfAHostThatLeaves(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	begin := func(name string) (*drained, chan error) {
		d := r.drained(t, name, nil)
		for _, pod := range []string{"a", "b"} {
			d.pod(pod, func(p *corev1.Pod) { p.Labels["app"] = "web" })
		}
		require.NoError(t, d.kube.SetPodReady(t.Context(), name, "b", corev1.ConditionFalse))
		d.budget("web", 1, 1)
		done := make(chan error, 1)
		go func() { done <- d.diagnose(how{deadline: time.Now().Add(time.Hour)}, fleet.Drain{}) }()
		eventually(t, func() bool { return strings.Contains(d.waiting(), "budget "+name+"/web") }, "it waits for the budget")
		return d, done
	}
	deleted, over := begin("deleted")
	_, _, err := deleted.DeleteHost(t.Context(), "deleted", store.Requester{})
	require.NoError(t, err)
	require.Contains(t, requireRefused(t, "conflict", await(t, over)), "the host was removed from the inventory")

	away, over := begin("away")
	require.NoError(t, r.kube.StopAPIServer(syscall.SIGKILL))
	eventually(t, func() bool { return strings.Contains(away.waiting(), "container manager away: ") }, "it waits for Kubernetes")
	_, err = away.RemoveMember(t.Context(), "away", "away", store.Requester{})
	require.NoError(t, err)
	require.Contains(t, requireRefused(t, "conflict", await(t, over)), `the host left cluster "away"`)
}

// TestADrainOfAHostThatLeaves: a drain ends when its host has left, also while nothing
// can be evicted: its pods take long to end, or Kubernetes does not answer.
func TestADrainOfAHostThatLeaves(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	begin := func(name string) (*drained, chan error) {
		d := r.drained(t, name, nil)
		d.pod("slow")
		require.NoError(t, d.kube.HoldPod(t.Context(), name, "slow"))
		require.NoError(t, d.cordon())
		done := make(chan error, 1)
		go func() { done <- d.drain(how{deadline: time.Now().Add(time.Hour)}, fleet.Drain{}) }()
		eventually(t, func() bool {
			_, said := d.recorded("drain")
			return strings.Contains(said, "pod "+name+"/slow was told to go")
		}, "nothing is left to be evicted")
		return d, done
	}
	deleted, over := begin("deleted")
	_, _, err := deleted.DeleteHost(t.Context(), "deleted", store.Requester{})
	require.NoError(t, err)
	require.Contains(t, requireRefused(t, "conflict", await(t, over)), "the host was removed from the inventory")
	require.NoError(t, deleted.uncordon(how{}, 1))
	deleted.is(false, false)

	away, over := begin("away")
	require.NoError(t, r.kube.StopAPIServer(syscall.SIGKILL))
	eventually(t, func() bool { return strings.Contains(away.waiting(), "container manager away: ") }, "it waits for Kubernetes")
	_, err = away.DeleteCluster(t.Context(), "away", store.Requester{})
	require.NoError(t, err)
	require.Contains(t, requireRefused(t, "conflict", await(t, over)), `cluster "away" was deleted`)
}

// throttle stands before Kubernetes, and once it is on answers what it is for by a wish to
// be asked again in five minutes.
type throttle struct {
	*httptest.Server
	on    atomic.Bool
	asked atomic.Int64 // requests since
}

func (r *nodeRig) throttle(t *testing.T, what func(*http.Request) bool) (s *throttle, options map[string]any) {
	t.Helper()
	to, err := url.Parse(r.kube.URL())
	require.NoError(t, err)
	ca, err := os.ReadFile(r.kube.CAFile())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	pass := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }, Transport: transport}
	s = &throttle{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.on.Load() {
			s.asked.Add(1)
			if what(r) {
				w.Header().Set("Retry-After", "300")
				http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
				return
			}
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	return s, map[string]any{"server_url": s.URL, "certificate_ca_path": path}
}

// TestAHostThatLeavesWhileThrottled is not kept for as long as Kubernetes wants to be left
// alone, and Kubernetes is.
func TestAHostThatLeavesWhileThrottled(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	all := func(*http.Request) bool { return true }
	evictions := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/eviction") }
	how := how{deadline: time.Now().Add(time.Hour)}
	for name, c := range map[string]struct {
		what    func(*http.Request) bool
		waiting string
		step    func(*drained) error
	}{
		"evicts":    {evictions, "wants to be asked again in 5m0s", func(d *drained) error { return d.drain(how, fleet.Drain{}) }},
		"drains":    {all, "container manager drains: ", func(d *drained) error { return d.drain(how, fleet.Drain{}) }},
		"diagnoses": {all, "container manager diagnoses: ", func(d *drained) error { return d.diagnose(how, fleet.Drain{}) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, options := r.throttle(t, c.what)
			d := r.drained(t, name, options)
			d.pod("web")
			require.NoError(t, d.cordon())
			s.on.Store(true)
			done := make(chan error, 1)
			go func() { done <- c.step(d) }()
			eventually(t, func() bool { return strings.Contains(d.waiting(), c.waiting) }, "the record says what it waits for")
			asked := s.asked.Load()
			_, _, err := d.DeleteHost(t.Context(), name, store.Requester{})
			require.NoError(t, err)
			require.Contains(t, requireRefused(t, "conflict", await(t, done)), "the host was removed from the inventory")
			require.Equal(t, asked, s.asked.Load())
			s.on.Store(false)
			require.NoError(t, d.uncordon(how, 1))
			d.is(false, false)
		})
	}
}
