package kubetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), TestTimeout)
	t.Cleanup(cancel)
	return ctx
}

var runs atomic.Int64

// unique gives a name that no other run of a test has on the shared control plane.
func unique(name string) string { return fmt.Sprintf("%s-%d", name, runs.Add(1)) }

func TestVersionsAreThoseOfTheModules(t *testing.T) {
	t.Parallel()
	for file, requirements := range map[string][]string{
		"go.mod":      {"k8s.io/kubernetes v" + KubernetesVersion, "go.etcd.io/etcd/server/v3 v" + EtcdVersion},
		"kwok/go.mod": {"sigs.k8s.io/kwok v" + KWOKVersion},
	} {
		b, err := os.ReadFile(filepath.Join("../../kubestack", file))
		require.NoError(t, err)
		for _, r := range requirements {
			require.Contains(t, string(b), r, "kubestack/%s and the constants of this package differ", file)
		}
	}
}

func TestVersionOfTheServer(t *testing.T) {
	t.Parallel()
	v, err := Shared(t).Admin().Discovery().ServerVersion()
	require.NoError(t, err)
	require.Equal(t, "v"+KubernetesVersion, v.GitVersion)
}

func TestEvictionHonoursBudget(t *testing.T) {
	t.Parallel()
	c, ctx := Shared(t), testContext(t)
	space := unique("budget")
	require.NoError(t, c.AddNamespace(ctx, space))
	require.NoError(t, c.AddNode(ctx, space))
	labels := map[string]string{"app": "web"}
	for _, name := range []string{"a", "b"} {
		pod := Pod(space, name, space)
		pod.Labels = labels
		_, err := c.AddPod(ctx, pod)
		require.NoError(t, err)
	}
	budget, err := c.AddBudget(ctx, space, "web", policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels},
	}, 2)
	require.NoError(t, err)
	require.EqualValues(t, 1, budget.Status.DisruptionsAllowed)

	evict := func(name string) error {
		return c.Admin().PolicyV1().Evictions(space).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: name}})
	}
	require.NoError(t, evict("a"))
	require.NoError(t, until(ctx, c.alive, func(ctx context.Context) error {
		_, err := c.Admin().CoreV1().Pods(space).Get(ctx, "a", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errNotYet
	}))
	err = evict("b")
	require.True(t, apierrors.IsTooManyRequests(err), err)
	require.True(t, apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause), err)
}

var errNotYet = errors.New("not yet")

func TestKilledNode(t *testing.T) {
	t.Parallel()
	c, ctx := Shared(t), testContext(t)
	space := unique("killed")
	require.NoError(t, c.AddNamespace(ctx, space))
	require.NoError(t, c.AddNode(ctx, space))
	pod, err := c.AddPod(ctx, Pod(space, "a", space))
	require.NoError(t, err)
	require.NoError(t, c.KillNode(ctx, space))
	require.NoError(t, c.Admin().CoreV1().Pods(space).Delete(ctx, pod.Name, metav1.DeleteOptions{}))
	// The node controller notices, and nobody takes the pod away.
	require.NoError(t, until(ctx, c.alive, func(ctx context.Context) error {
		node, err := c.Admin().CoreV1().Nodes().Get(ctx, space, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, taint := range node.Spec.Taints {
			if taint.Key == corev1.TaintNodeUnreachable {
				return nil
			}
		}
		return errNotYet
	}))
	left, err := c.Admin().CoreV1().Pods(space).Get(ctx, "a", metav1.GetOptions{})
	require.NoError(t, err)
	require.NotNil(t, left.DeletionTimestamp)
	require.NoError(t, c.ReviveNode(ctx, space))
	require.NoError(t, until(ctx, c.alive, func(ctx context.Context) error {
		_, err := c.Admin().CoreV1().Pods(space).Get(ctx, "a", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errNotYet
	}))
}

// TestReplicaSet has pods made by a controller, placed by the scheduler, and
// placed elsewhere when their node is closed.
func TestReplicaSet(t *testing.T) {
	t.Parallel()
	c, ctx := Shared(t), testContext(t)
	space := unique("replicas")
	one, two := space+"-one", space+"-two"
	require.NoError(t, c.AddNamespace(ctx, space))
	require.NoError(t, c.AddNode(ctx, one))
	require.NoError(t, c.AddNode(ctx, two))
	labels := map[string]string{"app": "web"}
	pod := Pod(space, "web", "").Spec
	pod.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
			Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{one},
		}}}, {MatchFields: []corev1.NodeSelectorRequirement{{
			Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{two},
		}}}},
	}}}
	_, err := c.Admin().AppsV1().ReplicaSets(space).Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	running := func(nodes ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			pods, err := c.Admin().CoreV1().Pods(space).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			if len(pods.Items) != 2 {
				return errNotYet
			}
			for _, p := range pods.Items {
				if !PodReady(&p) || !slices.Contains(nodes, p.Spec.NodeName) {
					return errNotYet
				}
			}
			return nil
		}
	}
	require.NoError(t, until(ctx, c.alive, running(one, two)))
	_, err = c.Admin().CoreV1().Nodes().Patch(ctx, one, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	require.NoError(t, c.Admin().CoreV1().Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	require.NoError(t, until(ctx, c.alive, func(ctx context.Context) error {
		// The scheduler may place another there before it has seen that.
		err := c.Admin().CoreV1().Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "spec.nodeName=" + one})
		if err != nil {
			return err
		}
		return running(two)(ctx)
	}))
}

func TestAccount(t *testing.T) {
	t.Parallel()
	c, ctx := Shared(t), testContext(t)
	account, err := c.AddAccount(ctx, unique("reader"), rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list"}})
	require.NoError(t, err)
	token, err := account.Token(ctx)
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: c.URL(), BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile()}})
	require.NoError(t, err)
	_, err = client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	_, err = client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	require.True(t, apierrors.IsForbidden(err), err)

	require.NoError(t, account.Expire(ctx, token))
	require.NoError(t, until(ctx, c.alive, func(ctx context.Context) error {
		_, err = client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if apierrors.IsUnauthorized(err) {
			return nil
		}
		return errNotYet
	}))
	fresh, err := account.Token(ctx)
	require.NoError(t, err)
	require.NotEqual(t, token, fresh)
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	c, ctx := Shared(t), testContext(t)
	alice := unique("alice") // a client closes its connections when its file changes
	certFile, keyFile, err := c.ClientCertificate(alice, "people")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: c.URL(), TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile(), CertFile: certFile, KeyFile: keyFile}})
	require.NoError(t, err)
	who, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, alice, who.Status.UserInfo.Username)
	require.Contains(t, who.Status.UserInfo.Groups, "people")
}

func TestRestartOfTheAPIServer(t *testing.T) {
	t.Parallel()
	c, ctx := New(t), testContext(t)
	require.NoError(t, c.AddNode(ctx, "restart-1"))
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		require.NoError(t, c.StopAPIServer(sig))
		_, err := c.Admin().CoreV1().Nodes().Get(ctx, "restart-1", metav1.GetOptions{})
		require.Error(t, err)
		require.NoError(t, c.StartAPIServer(ctx))
		_, err = c.Admin().CoreV1().Nodes().Get(ctx, "restart-1", metav1.GetOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, c.AddNode(ctx, "restart-2"), "the controllers come back by themselves")
}

// TestKilledOwner has another process start a control plane, kills that, and
// looks for what it leaves.
func TestKilledOwner(t *testing.T) {
	t.Parallel()
	if os.Getenv("KUBETEST_OWNER") != "" {
		c, err := Start(t.Context())
		require.NoError(t, err)
		_, err = os.Stdout.WriteString("DIR=" + c.dir + "\n")
		require.NoError(t, err)
		<-t.Context().Done() // never: it is killed
	}
	need(t)
	ctx := testContext(t)
	owner := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledOwner$", "-test.v")
	owner.Env = append(os.Environ(), "KUBETEST_OWNER=1")
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	dir := lineAfter(t, out, "DIR=")
	require.NotEmpty(t, processesIn(dir))
	require.NoError(t, owner.Process.Kill())
	_ = owner.Wait() // killed is what it is
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err) && len(processesIn(dir)) == 0
	}, TestTimeout, 10*time.Millisecond)
}

func lineAfter(t *testing.T, r io.Reader, prefix string) string {
	t.Helper()
	var text strings.Builder
	for b := make([]byte, 4096); ; {
		n, err := r.Read(b)
		text.Write(b[:n])
		if _, rest, ok := strings.Cut(text.String(), prefix); ok && strings.Contains(rest, "\n") {
			return strings.SplitN(rest, "\n", 2)[0]
		}
		require.NoError(t, err, text.String())
	}
}

// processesIn gives the ids of processes that work in dir.
func processesIn(dir string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is valid
	for _, link := range links {
		// A deleted folder shows with a suffix.
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir) {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}
