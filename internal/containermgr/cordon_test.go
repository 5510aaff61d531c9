package containermgr_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// others cordons or uncordons as somebody else would with kubectl, which sends
// nothing when there is nothing to change.
func (s *space) others(closed bool) {
	s.t.Helper()
	if s.get().Spec.Unschedulable == closed {
		return
	}
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, closed)
	_, err := s.Admin().CoreV1().Nodes().Patch(s.ctx, s.node, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: "kubectl-cordon"})
	require.NoError(s.t, err)
}

func (s *space) annotate(value string) {
	s.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{containermgr.CordonAnnotation: value}}})
	require.NoError(s.t, err)
	_, err = s.Admin().CoreV1().Nodes().Patch(s.ctx, s.node, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "kubectl-annotate"})
	require.NoError(s.t, err)
}

func (s *space) get() *corev1.Node {
	s.t.Helper()
	n, err := s.Admin().CoreV1().Nodes().Get(s.ctx, s.node, metav1.GetOptions{})
	require.NoError(s.t, err)
	return n
}

func (s *space) cordon(owner string) containermgr.Cordon {
	s.t.Helper()
	mark, err := s.k.Cordon(s.ctx, s.node, owner, standing)
	require.NoError(s.t, err)
	n := s.get()
	require.True(s.t, n.Spec.Unschedulable)
	require.Contains(s.t, n.Annotations, containermgr.CordonAnnotation)
	return mark
}

func (s *space) restore(owner string, want containermgr.Restored) {
	s.t.Helper()
	did, err := s.k.Restore(s.ctx, s.node, owner)
	require.NoError(s.t, err)
	require.Equal(s.t, want, did)
}

func (s *space) requireState(closed bool) {
	s.t.Helper()
	n := s.get()
	require.Equal(s.t, closed, n.Spec.Unschedulable)
	require.NotContains(s.t, n.Annotations, containermgr.CordonAnnotation)
}

func TestCordonAndRestore(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	first := s.cordon("op-1")
	require.Equal(t, "op-1", first.Owner)
	require.False(t, first.Prior)
	require.Equal(t, first, s.cordon("op-1"), "repeated")
	_, err := s.k.Cordon(s.ctx, s.node, "op-2", standing)
	require.Equal(t, fleet.Conflict, fleet.KindOf(err))
	require.ErrorContains(t, err, "op-1", "the holder is named")
	s.restore("op-2", containermgr.NothingToRestore)
	require.True(t, s.get().Spec.Unschedulable, "not op-2's to restore")
	s.restore("op-1", containermgr.Uncordoned)
	s.requireState(false)
	s.restore("op-1", containermgr.NothingToRestore)
	s.cordon("op-2")
}

func TestCordonOfOthersStays(t *testing.T) {
	t.Parallel()
	t.Run("from before", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		s.others(true)
		require.True(t, s.cordon("op").Prior)
		require.True(t, s.cordon("op").Prior)
		s.restore("op", containermgr.KeptCordoned)
		s.requireState(true)
	})
	t.Run("opened and closed under ours", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		s.cordon("op")
		s.others(false)
		s.others(true)
		s.restore("op", containermgr.KeptCordoned)
		s.requireState(true)
	})
	t.Run("opened under ours, and closed again by us", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		s.others(true)
		s.cordon("op")
		s.others(false)
		require.False(t, s.cordon("op").Prior)
		s.restore("op", containermgr.Uncordoned)
		s.requireState(false)
	})
	t.Run("no mark of ours", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		s.others(true)
		s.restore("op", containermgr.NothingToRestore)
		s.requireState(true)
	})
	t.Run("a mark that cannot be read", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t, kubetest.Shared(t))
		s.annotate("?")
		_, err := s.k.Cordon(s.ctx, s.node, "op", standing)
		require.Equal(t, fleet.Conflict, fleet.KindOf(err))
		_, err = s.k.Restore(s.ctx, s.node, "op")
		require.Equal(t, fleet.Conflict, fleet.KindOf(err))
		require.Equal(t, "?", s.get().Annotations[containermgr.CordonAnnotation])
	})
}

func TestCordonOfANodeThatGoes(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	s.cordon("op")
	s.remove()
	s.restore("op", containermgr.NothingToRestore)
	_, err := s.k.Cordon(s.ctx, s.node, "op", standing)
	require.Equal(t, fleet.NotFound, fleet.KindOf(err))
	require.NoError(t, s.k.Register(s.ctx, s.node))
	s.restore("op", containermgr.NothingToRestore)
	s.requireState(false)
}

// TestOneOwnerWins while others change the node all the time.
func TestOneOwnerWins(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	stop := make(chan struct{})
	var noise sync.WaitGroup
	noise.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{"noise":"%d"}}}`, i)
			_, _ = s.Admin().CoreV1().Nodes().Patch(s.ctx, s.node, types.MergePatchType, patch, metav1.PatchOptions{})
		}
	})
	for range 5 {
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				for {
					_, errs[i] = s.k.Cordon(s.ctx, s.node, fmt.Sprint("op-", i), standing)
					if fleet.KindOf(errs[i]) != fleet.Unavailable || s.ctx.Err() != nil {
						return // else: changed all the time, which may be repeated
					}
				}
			})
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, winner, "two owners")
				winner = i
			} else {
				require.Equal(t, fleet.Conflict, fleet.KindOf(err), err)
			}
		}
		require.NotEqual(t, -1, winner, "no owner")
		for {
			did, err := s.k.Restore(s.ctx, s.node, fmt.Sprint("op-", winner))
			if err == nil {
				require.Equal(t, containermgr.Uncordoned, did)
				break
			}
			require.Equal(t, fleet.Unavailable, fleet.KindOf(err), err)
			require.NoError(t, s.ctx.Err())
		}
	}
	close(stop)
	noise.Wait()
	s.requireState(false)
}

// TestSchedulabilityIsWhatOthersMadeIt plays random turns of ours and of somebody
// else: after a Restore the node is as the other one has left it.
func TestSchedulabilityIsWhatOthersMadeIt(t *testing.T) {
	t.Parallel()
	s := newSpace(t, kubetest.Shared(t))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	wanted := false // by the other one
	var turns []string
	for range 300 {
		turn := []string{"cordon", "restore", "others close", "others open"}[r.IntN(4)]
		turns = append(turns, turn)
		switch turn {
		case "cordon":
			s.cordon("op")
		case "restore":
			_, err := s.k.Restore(s.ctx, s.node, "op")
			require.NoError(t, err)
			require.Equal(t, wanted, s.get().Spec.Unschedulable, turns)
			turns = nil
		case "others close":
			// Closing what is closed changes nothing, so nobody can know of it.
			if !s.get().Spec.Unschedulable {
				wanted = true
			}
			s.others(true)
		case "others open":
			s.others(false)
			wanted = false
		}
	}
}
