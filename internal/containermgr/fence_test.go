package containermgr_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// turn is the record of a caller: its owner's turn ends once.
type turn struct{ over atomic.Bool }

var errOver = fleet.Errorf(fleet.Conflict, "the turn is over")

func (u *turn) stands(context.Context) error {
	if u.over.Load() {
		return errOver
	}
	return nil
}

// gate holds up who comes first, until it is opened, and nobody after.
type gate struct {
	once          sync.Once
	reached, open chan struct{}
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) pass(ctx context.Context) {
	g.once.Do(func() {
		close(g.reached)
		select {
		case <-g.open:
		case <-ctx.Done():
		}
	})
}

func (g *gate) await(t *testing.T, ctx context.Context) {
	t.Helper()
	select {
	case <-g.reached:
	case <-ctx.Done():
		require.NoError(t, ctx.Err())
	}
}

// slowRoad gives a manager whose first request that is held by hold waits at the gate
// on its way to the server.
func slowRoad(t *testing.T, c *kubetest.Cluster, g *gate, held func(*http.Request) bool) *containermgr.Kubernetes {
	t.Helper()
	to, err := url.Parse(c.URL())
	require.NoError(t, err)
	authority, err := os.ReadFile(c.CAFile())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(authority))
	road := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
		if held(r) {
			g.pass(r.Context())
		}
		road.ServeHTTP(w, r)
	})
	options := byToken(t, c, accountOf(t, c))
	for option, value := range s.options(t) {
		if option != "token" {
			options[option] = value
		}
	}
	return newManager(t, options)
}

// TestNoCordonAfterRestore: one that was begun while its owner's turn lasted, and comes
// late, must not close a node that has been restored.
func TestNoCordonAfterRestore(t *testing.T) {
	t.Parallel()
	states := map[string]struct {
		before func(*space)
		closed bool
		after  containermgr.Restored
	}{
		"open":                   {before: func(*space) {}, after: containermgr.NothingToRestore},
		"closed by somebody":     {before: func(s *space) { s.others(true) }, closed: true, after: containermgr.NothingToRestore},
		"opened under our mark":  {before: func(s *space) { s.cordon(owner); s.others(false) }, after: containermgr.Uncordoned},
		"a fence that was begun": {before: func(s *space) { s.annotate(`{"owner":"op"}`) }, after: containermgr.Uncordoned},
		"such a one of a closed": {before: func(s *space) { s.others(true); s.annotate(`{"owner":"op","prior":true}`) }, closed: true, after: containermgr.KeptCordoned},
	}
	for name, state := range states {
		for _, asleep := range []string{"before it writes", "on the road"} {
			if name == "such a one of a closed" {
				continue // a Cordon finds nothing to write
			}
			t.Run(name+", asleep "+asleep, func(t *testing.T) {
				t.Parallel()
				s := newSpace(t, kubetest.Shared(t))
				state.before(s)
				u, g := &turn{}, newGate()
				stands := u.stands
				late := s.k
				if asleep == "on the road" {
					late = slowRoad(t, s.Cluster, g, func(r *http.Request) bool { return r.Method == http.MethodPatch })
				} else {
					stands = func(ctx context.Context) error {
						err := u.stands(ctx)
						g.pass(ctx)
						return err
					}
				}
				done := make(chan error, 1)
				go func() { _, err := late.Cordon(s.ctx, s.node, owner, stands); done <- err }()
				g.await(t, s.ctx)
				u.over.Store(true)
				s.restore(owner, state.after)
				s.requireState(state.closed)
				close(g.open)
				if err := <-done; !errors.Is(err, context.DeadlineExceeded) { // all this took longer than a request may
					require.ErrorIs(t, err, errOver)
				}
				s.requireState(state.closed)
			})
		}
		t.Run(name+", repeated", func(t *testing.T) {
			t.Parallel()
			s := newSpace(t, kubetest.Shared(t))
			state.before(s)
			s.restore(owner, state.after)
			s.requireState(state.closed)
			s.restore(owner, containermgr.NothingToRestore)
			s.requireState(state.closed)
		})
	}
}

// TestFenceLeavesOthersAlone: a mark of another owner is fence enough.
func TestFenceLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	s.cordon("another")
	mark := s.get().Annotations[containermgr.CordonAnnotation]
	s.restore(owner, containermgr.NothingToRestore)
	require.Equal(t, mark, s.get().Annotations[containermgr.CordonAnnotation])
	require.True(t, s.get().Spec.Unschedulable)
}

// TestPausedEviction: a pass that sleeps while the node is restored and pods come back.
func TestPausedEviction(t *testing.T) {
	t.Parallel()
	type result struct {
		pass containermgr.Pass
		err  error
	}
	t.Run("it evicts one pod at most", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		for _, name := range []string{"a", "b", "c"} {
			s.addPod(name)
		}
		s.cordon(owner)
		u, g := &turn{}, newGate()
		k := slowRoad(t, s.Cluster, g, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/eviction") })
		done := make(chan result, 1)
		go func() {
			pass, err := k.Evict(s.ctx, s.node, owner, fleet.Drain{}, containermgr.Pass{}, u.stands)
			done <- result{pass, err}
		}()
		g.await(t, s.ctx)
		u.over.Store(true)
		time.Sleep(1100 * time.Millisecond) // so old must its leave be
		close(g.open)
		r := <-done
		require.ErrorIs(t, r.err, errOver)
		require.False(t, r.pass.Done)
		require.Equal(t, []string{s.namespace + "/a"}, r.pass.Evicted)
		require.Equal(t, []string{"b", "c"}, s.staying())
	})
	t.Run("it is told also when there is nothing to evict", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		s.cordon(owner)
		u := &turn{}
		u.over.Store(true)
		_, err := s.k.Evict(s.ctx, s.node, owner, fleet.Drain{}, containermgr.Pass{}, u.stands)
		require.ErrorIs(t, err, errOver)
	})
	t.Run("a pod of the same name is another", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		s.addPod("a")
		s.cordon(owner)
		g := newGate()
		done := make(chan result, 1)
		go func() {
			pass, err := s.k.Evict(s.ctx, s.node, owner, fleet.Drain{}, containermgr.Pass{}, func(ctx context.Context) error { g.pass(ctx); return nil })
			done <- result{pass, err}
		}()
		g.await(t, s.ctx)
		require.NoError(t, s.Admin().CoreV1().Pods(s.namespace).Delete(s.ctx, "a", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
		s.restore(owner, containermgr.Uncordoned)
		require.Eventually(t, func() bool { return len(s.staying()) == 0 }, kubetest.TestTimeout, 20*time.Millisecond)
		s.addPod("a")
		close(g.open)
		r := <-done
		require.NoError(t, r.err)
		require.Empty(t, r.pass.Evicted)
		require.Equal(t, []string{"a"}, s.staying())
	})
}

// staying are the pods of the space that nobody has told to go.
func (s *space) staying() (names []string) {
	s.t.Helper()
	pods, err := s.Admin().CoreV1().Pods(s.namespace).List(s.ctx, metav1.ListOptions{})
	require.NoError(s.t, err)
	for _, p := range pods.Items {
		if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed {
			names = append(names, p.Name)
		}
	}
	return names
}
