package containermgr_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// TestOddEvictions: answers of the Eviction API that take another component to
// provoke, or luck.
func TestOddEvictions(t *testing.T) {
	t.Parallel()
	status := func(code int32, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) []byte {
		b, err := json.Marshal(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: code, Reason: reason, Message: message, Details: &metav1.StatusDetails{Name: "a", Kind: "pods", Causes: causes},
		})
		require.NoError(t, err)
		return b
	}
	for name, c := range map[string]struct {
		code       int
		retryAfter string
		body       []byte
		kind       fleet.Kind // of the error of the pass
		cause      string
		wait       time.Duration
		asked      int // of two pods
		left       int // of them
	}{
		"throttled":                {code: 429, retryAfter: "7", body: []byte("Too many requests"), wait: 7 * time.Second, asked: 1, left: 2},
		"throttled without a time": {code: 429, body: []byte("Too many requests"), wait: time.Second, asked: 1, left: 2},
		"a budget being computed": {
			code: 429, retryAfter: "10", cause: containermgr.BudgetExhausted, asked: 2,
			body: status(429, metav1.StatusReasonTooManyRequests, "no", metav1.StatusCause{Type: "DisruptionBudget", Message: "web is still being processed"}),
		},
		"namespace on its way out": {
			code: 403, cause: containermgr.NamespaceTerminating, asked: 2,
			body: status(403, metav1.StatusReasonForbidden, "no", metav1.StatusCause{Type: corev1.NamespaceTerminatingCause}),
		},
		"a webhook says no":    {code: 400, cause: containermgr.EvictionRefused, body: status(400, "", "admission webhook \"x\" denied the request"), asked: 2},
		"a webhook is down":    {code: 500, cause: containermgr.EvictionRefused, body: status(500, metav1.StatusReasonInternalError, "failed calling webhook"), asked: 2},
		"another pod by now":   {code: 409, body: status(409, metav1.StatusReasonConflict, "the UID in the precondition does not match"), asked: 2, left: 2},
		"gone by now":          {code: 404, body: status(404, metav1.StatusReasonNotFound, "pods \"a\" not found"), asked: 2},
		"token expired by now": {code: 401, body: status(401, metav1.StatusReasonUnauthorized, "Unauthorized"), kind: fleet.Invalid, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan string, 100)
			s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch {
				case strings.HasSuffix(r.URL.Path, "/readyz"):
				case strings.Contains(r.URL.Path, "/nodes/"):
					_ = json.NewEncoder(w).Encode(cordonedNode())
				case strings.HasSuffix(r.URL.Path, "/pods"):
					list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
					for _, name := range []string{"a", "b"} {
						pod := kubetest.Pod("default", name, "x")
						pod.UID = types.UID(name)
						list.Items = append(list.Items, *pod)
					}
					_ = json.NewEncoder(w).Encode(list)
				default:
					asked <- r.URL.Path
					if c.retryAfter != "" {
						w.Header().Set("Retry-After", c.retryAfter)
					}
					w.WriteHeader(c.code)
					_, _ = w.Write(c.body)
				}
			})
			pass, err := newManager(t, s.options(t)).Evict(t.Context(), "x", "op", fleet.Drain{}, containermgr.Pass{}, standing)
			require.LessOrEqual(t, len(asked), 2*c.asked, "it is the caller who waits; client-go asks ten times")
			require.Equal(t, c.kind, fleet.KindOf(err), err)
			require.False(t, pass.Done)
			require.Empty(t, pass.Evicted)
			require.Equal(t, c.wait, pass.RetryAfter)
			require.Len(t, pass.Left, c.left)
			pods := map[string]bool{}
			for len(asked) > 0 {
				pods[<-asked] = true
			}
			require.Len(t, pods, c.asked)
			if c.cause == "" {
				require.Empty(t, pass.Blocked)
				return
			}
			require.Len(t, pass.Blocked, 2)
			require.Equal(t, c.cause, pass.Blocked[0].Cause)
			require.Equal(t, "pod default/a", pass.Blocked[0].Object)
			require.True(t, pass.Blocked[0].Passes)
		})
	}
}

// cordonedNode is one of the name x that the owner op has cordoned.
func cordonedNode() corev1.Node {
	return corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{
		Name: "x", Annotations: map[string]string{containermgr.CordonAnnotation: `{"owner":"op"}`},
	}, Spec: corev1.NodeSpec{Unschedulable: true}}
}

// TestBlockedPodsRest between two questions: a drain that waits for a budget makes a pass
// every second, for every node.
func TestBlockedPodsRest(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := newStub(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.Contains(r.URL.Path, "/nodes/"):
			_ = json.NewEncoder(w).Encode(cordonedNode())
		case strings.HasSuffix(r.URL.Path, "/pods"):
			list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
			for _, name := range []string{"a", "b", "c"} {
				pod := kubetest.Pod("default", name, "x")
				pod.UID = types.UID(name)
				list.Items = append(list.Items, *pod)
			}
			_ = json.NewEncoder(w).Encode(list)
		default:
			asked.Add(1)
			w.WriteHeader(http.StatusTooManyRequests)
			_ = json.NewEncoder(w).Encode(metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: 429, Reason: metav1.StatusReasonTooManyRequests,
				Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: "no"}}},
			})
		}
	})
	k := newManager(t, s.options(t))
	var pass containermgr.Pass
	passes, stood, begin := 0, 0, time.Now()
	for ; asked.Load() < 4*3; passes++ {
		var err error
		pass, err = k.Evict(t.Context(), "x", "op", fleet.Drain{}, pass, func(context.Context) error { stood++; return nil })
		require.NoError(t, err)
		require.False(t, pass.Done)
		require.Len(t, pass.Blocked, 3, "also those that were not asked about")
		time.Sleep(20 * time.Millisecond)
	}
	require.GreaterOrEqual(t, time.Since(begin), 7*time.Second, "1 s, 2 s and 4 s")
	require.LessOrEqual(t, stood, passes+int(asked.Load()), "once a pass, and at most once more for each pod that is asked about")
}
