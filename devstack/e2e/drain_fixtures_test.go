package e2e

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"commissaire/devstack/harness"
	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// fixture is one thing that drains stumble over, or would if they were not careful.
// "$node" and "$ns" stand for the node and the namespace.
type fixture struct {
	name    string
	hosts   int            // 1 when 0
	manager map[string]any // options of a container manager of its own
	lay     func(*field)   // what is there before
	policy  map[string]any // of the restart
	finds   []fleet.Finding
	during  func(*field) // what happens while it runs
	ends    string       // state of the operation
	reason  string       // part of the host's
	boots   int          // of the host
	closed  bool         // the node, afterwards
	gone    bool         // the node, afterwards
	left    []string     // pods that are still on the node
	moved   []string     // pods that no longer are
}

func drain(members map[string]any) map[string]any { return map[string]any{"drain": members} }

// blocking is a finding that no waiting helps against, passing one that may end, and
// known one that is only worth knowing.
func blocking(cause, object string) fleet.Finding {
	return fleet.Finding{Cause: cause, Object: object, Blocks: true}
}

func passing(cause, object string) fleet.Finding {
	return fleet.Finding{Cause: cause, Object: object, Blocks: true, Passes: true}
}

func known(cause, object string) fleet.Finding {
	return fleet.Finding{Cause: cause, Object: object}
}

// The longest ones come first.
var fixtures = []fixture{
	{
		name: "a pod that should have been gone for long",
		lay: func(f *field) {
			f.held("old")
			require.NoError(f.t, f.kube.Admin().CoreV1().Pods(f.name).Delete(f.t.Context(), "old", metav1.DeleteOptions{}))
			f.until(limit, "the pod to be late", func() bool {
				findings := f.dryRun(nil).Hosts[0].Findings
				return len(findings) > 0 && findings[0].Cause == containermgr.Terminating
			})
		},
		finds:  []fleet.Finding{passing(containermgr.Terminating, "pod $ns/old")},
		during: func(f *field) { f.waits("pod $ns/old"); f.release("old") },
		ends:   "succeeded", boots: 1, moved: []string{"old"},
	},
	{
		// Nobody can open the node then, so it stays as it is until somebody says that he
		// will do it himself.
		name: "a token that expires in the drain", manager: map[string]any{},
		lay: func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			require.NoError(f.t, f.owner.Expire(f.t.Context(), f.nodeSite.token))
			f.waits("container manager $ns: could not get node $node")
			plan := f.dryRun(nil)
			require.Contains(f.t, strings.Join(plan.Blocks, " "), "container manager "+f.name, "a dry run names whom it cannot ask")
			p := f.refused(http.StatusConflict, http.MethodDelete, "containermanager/"+f.name, nil)
			require.Contains(f.t, p.Detail, f.op.ID)
			f.ask(http.StatusOK, http.MethodDelete, "containermanager/"+f.name+"?force=true", nil)
			f.ends(f.op)
			n, _ := f.watch.Node(f.node())
			require.Equal(f.t, f.op.ID+"/"+f.node(), n.Owner(), "the mark says whose it was")
			f.unmark()
		},
		ends: "failed", reason: "does not know us (401)",
	},
	{
		name: "two rollouts that share a budget", hosts: 2, manager: map[string]any{"max_unavailable": 1},
		lay: func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			other := f.restart(1, nil)
			f.until(limit, "the other rollout to wait", func() bool {
				f.get("operations/"+other.ID, &other)
				return strings.Contains(other.Waiting, "container manager "+f.name)
			})
			f.release("slow")
			require.Equal(f.t, "succeeded", f.ends(f.op).State)
			other = f.ends(other)
			require.Equal(f.t, "succeeded", other.State, other.Reason)
		},
		ends: "succeeded", boots: 1, moved: []string{"slow"},
	},
	{
		name:  "a node that somebody has cordoned",
		lay:   func(f *field) { require.NoError(f.t, f.watch.Cordon(f.t.Context(), f.node())) },
		finds: []fleet.Finding{known(containermgr.CordonedByOther, "node $node")},
		ends:  "succeeded", boots: 1, closed: true,
	},
	{
		name:  "a budget that can never allow it",
		lay:   func(f *field) { f.pod("db"); f.budget("db", "db", 1, 1) },
		finds: []fleet.Finding{blocking(containermgr.BudgetExhausted, "budget $ns/db")},
		ends:  "failed", reason: "step diagnose: the node cannot be drained: budget $ns/db can never allow an eviction", left: []string{"db"},
	},
	{
		name: "a budget that is used up for now",
		lay: func(f *field) {
			pod := f.app(2, "1")[0]
			require.NoError(f.t, f.kube.HoldPod(f.t.Context(), f.name, pod))
			require.NoError(f.t, f.kube.SetPodReady(f.t.Context(), f.name, pod, corev1.ConditionFalse))
			f.until(limit, "the budget to be used up", func() bool {
				b, err := f.kube.Admin().PolicyV1().PodDisruptionBudgets(f.name).Get(f.t.Context(), "web", metav1.GetOptions{})
				return err == nil && b.Status.DisruptionsAllowed == 0
			})
		},
		finds: []fleet.Finding{passing(containermgr.BudgetExhausted, "budget $ns/web")},
		during: func(f *field) {
			f.waits("budget $ns/web")
			for _, p := range f.watch.PodsOn(f.node()) {
				f.release(p.Name)
				require.NoError(f.t, f.kube.SetPodReady(f.t.Context(), f.name, p.Name, corev1.ConditionTrue))
			}
		},
		ends: "succeeded", boots: 1,
	},
	{
		name:  "a budget that lets one go after the other",
		lay:   func(f *field) { f.app(3, "2") },
		finds: []fleet.Finding{known(containermgr.BudgetExhausted, "budget $ns/web")},
		ends:  "succeeded", boots: 1,
	},
	{
		name:  "a pod with two budgets",
		lay:   func(f *field) { f.pod("db"); f.budget("one", "db", 0, 1); f.budget("two", "db", 0, 1) },
		finds: []fleet.Finding{blocking(containermgr.BudgetsOverlap, "pod $ns/db")},
		ends:  "failed", reason: "pod $ns/db is matched by the budgets one and two", left: []string{"db"},
	},
	{
		name:  "a pod with a finalizer",
		lay:   func(f *field) { f.pod("db", func(p *corev1.Pod) { p.Finalizers = []string{"test/hold"} }) },
		finds: []fleet.Finding{blocking(containermgr.Finalizer, "pod $ns/db")},
		ends:  "failed", reason: "pod $ns/db has the finalizer test/hold", left: []string{"db"},
	},
	{
		name:  "a pod without a controller",
		lay:   func(f *field) { f.pod("alone", withoutController) },
		finds: []fleet.Finding{blocking(containermgr.Unmanaged, "pod $ns/alone")},
		ends:  "failed", reason: "pod $ns/alone has no controller", left: []string{"alone"},
	},
	{
		name: "a pod without a controller, by force", policy: drain(map[string]any{"force": true}),
		lay:  func(f *field) { f.pod("alone", withoutController) },
		ends: "succeeded", boots: 1, moved: []string{"alone"},
	},
	{
		name: "a pod without a controller that is skipped", policy: drain(map[string]any{"skip": "keep=yes"}),
		lay:  func(f *field) { f.pod("alone", withoutController, withLabel("keep", "yes")) },
		ends: "succeeded", boots: 1, left: []string{"alone"},
	},
	{
		name:  "data in an emptyDir",
		lay:   func(f *field) { f.pod("cache", withEmptyDir) },
		finds: []fleet.Finding{blocking(containermgr.EmptyDir, "pod $ns/cache")},
		ends:  "failed", reason: "pod $ns/cache keeps data in the emptyDir volume scratch", left: []string{"cache"},
	},
	{
		name: "data in an emptyDir that may be lost", policy: drain(map[string]any{"delete_emptydir_data": true}),
		lay:  func(f *field) { f.pod("cache", withEmptyDir) },
		ends: "succeeded", boots: 1, moved: []string{"cache"},
	},
	{
		name: "a daemon set",
		lay:  func(f *field) { f.daemon() },
		ends: "succeeded", boots: 1,
	},
	{
		name: "a daemon set that is not ignored", policy: drain(map[string]any{"ignore_daemon_sets": false}),
		lay:   func(f *field) { f.daemon() },
		finds: []fleet.Finding{blocking(containermgr.DaemonSetPod, "pod $ns/log-")},
		ends:  "failed", reason: "belongs to the daemon set log",
	},
	{
		name: "a stopped instance", policy: drain(map[string]any{"timeout": "15s"}),
		lay:   func(f *field) { f.pod("web"); require.NoError(f.t, f.kube.KillNode(f.t.Context(), f.node())) },
		finds: []fleet.Finding{passing(containermgr.NodeNotReady, "node $node")},
		ends:  "failed", reason: "step diagnose: gave up waiting: the node cannot be drained: node $node", left: []string{"web"},
	},
	{
		name:  "a stopped instance that comes back",
		lay:   func(f *field) { f.pod("web"); require.NoError(f.t, f.kube.KillNode(f.t.Context(), f.node())) },
		finds: []fleet.Finding{passing(containermgr.NodeNotReady, "node $node")},
		during: func(f *field) {
			f.waits("node $node")
			require.NoError(f.t, f.kube.ReviveNode(f.t.Context(), f.node()))
		},
		ends: "succeeded", boots: 1, moved: []string{"web"},
	},
	{
		name: "a pod that may take too long", policy: drain(map[string]any{"timeout": "1m"}),
		lay:   func(f *field) { f.pod("slow", withGrace(3600)) },
		finds: []fleet.Finding{blocking(containermgr.GracePeriod, "pod $ns/slow")},
		ends:  "failed", reason: "pod $ns/slow may take 1h0m0s to end", left: []string{"slow"},
	},
	{
		name: "a pod that is given less time", policy: drain(map[string]any{"timeout": "1m", "grace_period": "1s"}),
		lay:  func(f *field) { f.pod("slow", withGrace(3600)) },
		ends: "succeeded", boots: 1, moved: []string{"slow"},
	},
	{
		name:  "a volume that only the node has",
		lay:   func(f *field) { f.localVolume("data"); f.pod("db", withClaim) },
		finds: []fleet.Finding{known(containermgr.LocalVolume, "pod $ns/db")},
		ends:  "succeeded", boots: 1, moved: []string{"db"},
	},
	{
		name: "a namespace on its way out",
		lay: func(f *field) {
			f.held("last", withGrace(300)) // on a busy machine it would be late by the time of the dry run
			require.NoError(f.t, f.kube.Admin().CoreV1().Namespaces().Delete(f.t.Context(), f.name, metav1.DeleteOptions{}))
			f.until(limit, "the pod to be told", func() bool {
				pods := f.watch.PodsOn(f.node())
				return len(pods) == 1 && pods[0].Ending
			})
		},
		during: func(f *field) {
			f.until(limit, "the cordon", func() bool { n, _ := f.watch.Node(f.node()); return n.Mark != "" })
			f.release("last")
		},
		ends: "succeeded", boots: 1, moved: []string{"last"},
	},
	{
		name: "a node that is cordoned for another of ours",
		lay: func(f *field) {
			require.NoError(f.t, f.watch.Patch(f.t.Context(), f.node(), `{"metadata":{"annotations":{"commissaire/cordon":"{\"owner\":\"another/x\"}"}},"spec":{"unschedulable":true}}`))
		},
		finds: []fleet.Finding{passing(containermgr.CordonHeld, "node $node")},
		during: func(f *field) {
			f.waits("node $node")
			f.unmark()
		},
		ends: "succeeded", boots: 1,
	},
	{
		name: "a node that somebody opens in the drain",
		lay:  func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			require.NoError(f.t, f.watch.Uncordon(f.t.Context(), f.node()))
		},
		ends: "failed", reason: "step drain: ", left: []string{"slow"},
	},
	{
		name: "a pod that does not go", policy: drain(map[string]any{"timeout": "15s"}),
		lay:  func(f *field) { f.held("slow") },
		ends: "failed", reason: "$ns/slow", left: []string{"slow"},
	},
	{
		name: "a host that takes too long", policy: map[string]any{"host_timeout": "10s"},
		lay:  func(f *field) { f.held("slow") },
		ends: "failed", reason: "host_timeout", left: []string{"slow"},
	},
	{
		name: "a drain that is not wanted", policy: drain(map[string]any{"disabled": true}),
		lay:  func(f *field) { f.pod("alone", withoutController) },
		ends: "succeeded", boots: 1, left: []string{"alone"},
	},
	{
		name:  "a node that is not there",
		lay:   func(f *field) { f.deleteNode() },
		finds: []fleet.Finding{blocking(containermgr.NodeMissing, "node $node")},
		ends:  "failed", reason: "node $node is not registered", gone: true,
	},
	{
		name:   "a node that is deleted in the drain",
		lay:    func(f *field) { f.held("slow") },
		during: func(f *field) { f.draining("slow"); f.deleteNode(); f.release("slow") },
		ends:   "succeeded", boots: 1,
	},
	{
		name: "cancelled in the drain",
		lay:  func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			f.ask(http.StatusOK, http.MethodPost, "operations/"+f.op.ID+"/cancel", nil)
			f.release("slow")
		},
		ends: "cancelled", boots: 1,
	},
	{
		name: "cancelled by force in the drain",
		lay:  func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			f.ask(http.StatusOK, http.MethodPost, "operations/"+f.op.ID+"/cancel", map[string]any{"force": true})
		},
		ends: "cancelled", left: []string{"slow"},
	},
	{
		name: "a host that is deleted in the drain",
		lay:  func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			f.ask(http.StatusOK, http.MethodDelete, hostPath(f.hosts[0]), nil)
			f.release("slow")
		},
		gone: true,
	},
	{
		name: "a cluster that is deleted in the drain",
		lay:  func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			f.ask(http.StatusOK, http.MethodDelete, "cluster/"+f.name, nil)
			f.release("slow")
		},
		gone: true,
	},
	{
		name: "workflows that are terminated in the drain",
		lay:  func(f *field) { f.held("slow") },
		during: func(f *field) {
			f.draining("slow")
			rollout := "cluster/default/" + f.name
			now, err := f.Temporal.DescribeWorkflowExecution(f.t.Context(), rollout, "")
			require.NoError(f.t, err)
			require.Len(f.t, now.GetPendingChildren(), 1)
			require.NoError(f.t, f.Temporal.TerminateWorkflow(f.t.Context(), rollout, "", "a test"))
			// Which has been cancelled with its parent, and may have ended by now.
			err = f.Temporal.TerminateWorkflow(f.t.Context(), now.GetPendingChildren()[0].GetWorkflowId(), "", "a test")
			if gone := new(serviceerror.NotFound); !errors.As(err, &gone) {
				require.NoError(f.t, err)
			}
			// An operation younger than a minute is left alone; the test does not wait for that.
			_, err = f.DB.Exec(f.t.Context(), `UPDATE operation SET started = started - interval '2 minutes' WHERE id::text = $1`, f.op.ID)
			require.NoError(f.t, err)
		},
		ends: "failed", left: []string{"slow"},
	},
}

// unmark opens the node by hand, and takes the mark away.
func (f *field) unmark() {
	f.t.Helper()
	require.NoError(f.t, f.watch.Patch(f.t.Context(), f.node(), `{"metadata":{"annotations":{"commissaire/cordon":null}},"spec":{"unschedulable":null}}`))
}

func (f *field) deleteNode() {
	f.t.Helper()
	require.NoError(f.t, f.kube.Admin().CoreV1().Nodes().Delete(f.t.Context(), f.node(), metav1.DeleteOptions{}))
	f.until(limit, "the node to be gone", func() bool { _, there := f.watch.Node(f.node()); return !there })
}

// Everything that drains are known to stumble over is named beforehand, and comes to
// its right end; and at every instant budgets are kept, and cordons are ours.
func TestDrains(t *testing.T) {
	t.Parallel()
	hosts := 0
	for _, x := range fixtures {
		hosts += max(1, x.hosts)
	}
	d := newDrains(t, kubetest.Shared(t), hosts)
	t.Run("fixtures", func(t *testing.T) {
		for _, x := range fixtures {
			t.Run(x.name, func(t *testing.T) {
				t.Parallel()
				d.play(t, x)
			})
		}
	})
	d.judged()
}

// play takes one fixture through its dry run and its restart.
func (d *drains) play(t *testing.T, x fixture) {
	f := d.enter(t, strings.Trim(unfit.ReplaceAllString(strings.ToLower(x.name), "-"), "-"), max(1, x.hosts), x.manager)
	if x.lay != nil {
		x.lay(f)
	}
	before, _ := f.watch.Node(f.node())
	var plan planView
	f.until(limit, "the container manager to answer in time", func() bool {
		plan = f.dryRun(x.policy)
		return !strings.Contains(strings.Join(plan.Blocks, " "), "is not known: container manager")
	})
	f.diagnosed(plan, x)
	after, _ := f.watch.Node(f.node())
	after.Lost = before.Lost // which the node controller decides when it gets to it
	require.Equal(t, before, after, "a dry run changes nothing")
	f.op = f.restart(0, x.policy)
	d.limited(f.op, 1)
	if x.during != nil {
		x.during(f)
	}
	op := f.ends(f.op)
	if x.gone {
		f.until(limit, "the node to be gone", func() bool { _, there := f.watch.Node(f.node()); return !there })
	} else {
		f.restored(x.closed)
	}
	if x.ends != "" {
		require.Equal(t, x.ends, op.State, op.Reason)
	}
	if x.reason != "" {
		require.Contains(t, f.hostRuns(op.ID)[0].Reason, f.fill(x.reason))
	}
	if x.ends != "" || x.gone && x.boots > 0 {
		require.Equal(t, x.boots, boots(f.hosts[0]))
	}
	if x.ends == "succeeded" || x.ends == "failed" && strings.Contains(x.reason, "diagnose") {
		require.Equal(t, "active", f.host(f.hosts[0]).Status)
	}
	for _, name := range x.left {
		require.True(t, f.has(name), name)
	}
	for _, name := range x.moved {
		require.False(t, f.has(name), name)
	}
	if x.ends == "failed" && len(x.finds) > 0 {
		n, _ := f.watch.Node(f.node())
		n.Lost = before.Lost
		require.Equal(t, before, n, "it was not touched")
	}
}

// diagnosed wants the dry run to name exactly what the fixture has.
func (f *field) diagnosed(plan planView, x fixture) {
	f.t.Helper()
	left := slices.Clone(plan.Hosts[0].Findings)
	for _, want := range x.finds {
		at := slices.IndexFunc(left, func(got fleet.Finding) bool {
			return got.Cause == want.Cause && strings.HasPrefix(got.Object, f.fill(want.Object)) && got.Blocks == want.Blocks && (!want.Blocks || got.Passes == want.Passes)
		})
		require.GreaterOrEqual(f.t, at, 0, "%+v is not among %+v", want, plan.Hosts[0].Findings)
		require.NotEmpty(f.t, left[at].Detail)
		left = slices.Delete(left, at, at+1)
		if want.Blocks && !want.Passes {
			require.Contains(f.t, strings.Join(plan.Blocks, " "), "could not be drained")
		}
	}
	for _, other := range left {
		require.False(f.t, other.Blocks, "it names more than there is: %+v", other)
	}
}

// What happens to workers in the drain of a host happens to all hosts, so it has a site
// of its own.
func TestWorkerIsKilledInADrain(t *testing.T) {
	t.Parallel()
	d := newDrains(t, kubetest.Shared(t), 1)
	f := d.enter(t, "killed-in-a-drain", 1, nil)
	f.held("slow")
	f.op = f.restart(0, nil)
	d.limited(f.op, 1)
	f.draining("slow")
	harness.Kill(d.first)
	f.worker()
	f.release("slow")
	op := f.ends(f.op)
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, 1, boots(f.hosts[0]))
	f.restored(false)
	d.judged()
}

// An apiserver that is away in the middle of a drain is waited for.
func TestAPIServerRestartsInADrain(t *testing.T) {
	t.Parallel()
	d := newDrains(t, kubetest.New(t), 1)
	f := d.enter(t, "restarts-in-a-drain", 1, nil)
	f.held("slow")
	f.op = f.restart(0, nil)
	d.limited(f.op, 1)
	f.draining("slow")
	require.NoError(t, f.kube.StopAPIServer(syscall.SIGKILL))
	f.waits("container manager kube")
	require.NoError(t, f.kube.StartAPIServer(t.Context()))
	f.release("slow")
	op := f.ends(f.op)
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, 1, boots(f.hosts[0]))
	f.restored(false)
	d.judged()
}

// A rollout that is paused in a drain brings that host to its end, and begins no other.
func TestPauseInADrain(t *testing.T) {
	t.Parallel()
	d := newDrains(t, kubetest.Shared(t), 2)
	f := d.enter(t, "paused-in-a-drain", 1, nil)
	second := d.free[0]
	f.addHost(second, f.name)
	f.becomes(second, "active")
	f.held("slow")
	f.op = f.restart(0, map[string]any{"order": map[string]any{"by": "joined"}})
	d.limited(f.op, 1)
	f.draining("slow")
	f.ask(http.StatusOK, http.MethodPost, "operations/"+f.op.ID+"/pause", nil)
	f.release("slow")
	f.until(limit, "the host at work to end", func() bool { return f.hostRuns(f.op.ID)[0].State == "succeeded" })
	f.restored(false)
	// Who gets its slot was decided when it ended.
	require.Equal(t, "pending", f.hostRuns(f.op.ID)[1].State)
	n, _ := f.watch.Node(second.Address())
	require.Empty(t, n.Mark)
	f.ask(http.StatusOK, http.MethodPost, "operations/"+f.op.ID+"/resume", nil)
	op := f.ends(f.op)
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, 1, boots(second))
	d.judged()
}
