package containermgr_test

import (
	"maps"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// TestRestartOfTheServer: while it goes, is away and comes back, every step either
// works or may be repeated. An apiserver that has just started refuses everybody
// for a moment, which must not be taken for a verdict.
func TestRestartOfTheServer(t *testing.T) {
	t.Parallel()
	c := kubetest.New(t)
	s := newSpace(t, c)
	s.addPod("held", finalized)
	for i := range 3 {
		s.addPod(string(rune('a'+i)), func(p *corev1.Pod) { p.Labels["app"] = "web" })
	}
	s.budget("web", "web", atLeast(3), 3)
	s.cordon(owner)

	stop := make(chan struct{})
	var asking sync.WaitGroup
	steps := map[string]func() error{
		"cordon": func() error { _, err := s.k.Cordon(s.ctx, s.node, owner, standing); return err },
		"evict": func() error {
			_, err := s.k.Evict(s.ctx, s.node, owner, fleet.Drain{}, containermgr.Pass{}, standing)
			return err
		},
		"diagnose": func() error { _, err := s.k.Diagnose(s.ctx, s.node, owner, fleet.Drain{}, false); return err },
		"many":     func() error { _, err := s.k.DiagnoseMany(s.ctx, []string{s.node}, fleet.Drain{}); return err },
		"register": func() error { return s.k.Register(s.ctx, s.node) },
		"check":    func() error { return s.k.Check(s.ctx) },
	}
	var mu sync.Mutex
	worked, failed := map[string]int{}, map[string]int{}
	for name, step := range steps {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond): // the machine has other work, too
				}
				err := step()
				mu.Lock()
				if err == nil {
					worked[name]++
				} else if failed[name]++; fleet.KindOf(err) != fleet.Unavailable {
					t.Errorf("%s: %v", name, err)
				}
				mu.Unlock()
			}
		})
	}
	// all waits until each step has come to such an end once more.
	all := func(ends map[string]int) {
		t.Helper()
		mu.Lock()
		before := maps.Clone(ends)
		mu.Unlock()
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			for name := range steps {
				if ends[name] == before[name] {
					return false
				}
			}
			return true
		}, 3*time.Minute, 10*time.Millisecond)
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		all(worked)
		require.NoError(t, c.StopAPIServer(sig))
		all(failed)
		require.NoError(t, c.StartAPIServer(s.ctx))
	}
	all(worked)
	close(stop)
	asking.Wait()
	t.Logf("worked %v, to be repeated %v", worked, failed)
	s.restore(owner, containermgr.Uncordoned)
	s.requireState(false)
}
