package activities_test

import (
	"strings"
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
