package activities_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"commissaire/activities"
	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// drained is a cluster of one node, of its name, that a rollout is at work on.
type drained struct {
	*nodeRig
	t    *testing.T
	name string
	op   fleet.Operation
}

func (r *nodeRig) drained(t *testing.T, name string, more map[string]any) *drained {
	t.Helper()
	d := &drained{nodeRig: r, t: t, name: name}
	r.checked(t, name, r.cluster(t, name, more))
	in := r.bootstraps(t, name, name)
	require.NoError(t, r.RecordFacts(t.Context(), in.OperationID, name, fleet.Facts{OS: "debian"}))
	require.NoError(t, r.kube.AddNode(t.Context(), name))
	require.NoError(t, r.kube.AddNamespace(t.Context(), name))
	registered, err := r.register(how{}, in)
	require.NoError(t, err)
	require.True(t, registered.Ready)
	_, err = r.EndHostRun(t.Context(), store.HostRunEnd{OperationID: in.OperationID, Address: name, State: fleet.HostRunSucceeded, Event: fleet.HostRegistered})
	require.NoError(t, err)
	require.NoError(t, r.EndOperation(t.Context(), in.OperationID, fleet.OperationSucceeded, ""))
	d.op, _, err = r.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindRestart, Cluster: name})
	require.NoError(t, err)
	c, err := r.Claim(t.Context(), d.op.ID, 1, time.Hour)
	require.NoError(t, err)
	require.Equal(t, []store.Assignment{{Address: name, Slot: 1, Turn: 1, Node: true}}, c.Assignments)
	return d
}

func (d *drained) step(name string) workflows.HostStep {
	return workflows.HostStep{
		HostRef: workflows.HostRef{OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: d.op.ID}, Address: d.name},
		Step:    name, Attempt: 1,
	}
}

func (d *drained) diagnose(h how, p fleet.Drain) error {
	_, err := execute(h, workflows.DiagnoseNode, d.nodes.Diagnose, workflows.DrainStep{HostStep: d.step(workflows.StepDiagnose), Policy: p})
	return err
}

func (d *drained) cordon() error {
	_, err := execute(how{}, workflows.CordonNode, d.nodes.Cordon, d.step(workflows.StepCordon))
	return err
}

func (d *drained) drain(h how, p fleet.Drain) error {
	_, err := execute(h, workflows.DrainNode, d.nodes.Drain, workflows.DrainStep{HostStep: d.step(workflows.StepDrain), Policy: p})
	return err
}

func (d *drained) ready(h how, step, left string) error {
	_, err := execute(h, workflows.AwaitNode, d.nodes.Ready, workflows.RebootStep{HostStep: d.step(step), BootID: left, Rebooted: left != ""})
	return err
}

// uncordon lets the node go. Who comes after the end of the slot is another attempt.
func (d *drained) uncordon(h how, attempt int) error {
	in := d.step(workflows.StepUncordon)
	in.Attempt = attempt
	_, err := execute(h, workflows.UncordonNode, d.nodes.Uncordon, in)
	return err
}

func (d *drained) pod(name string, change ...func(*corev1.Pod)) {
	d.t.Helper()
	p := kubetest.Pod(d.name, name, d.name)
	for _, f := range change {
		f(p)
	}
	_, err := d.kube.AddPod(d.t.Context(), p)
	require.NoError(d.t, err)
}

func unmanaged(p *corev1.Pod) { p.OwnerReferences = nil }

// budget wants so many of the pods of that name.
func (d *drained) budget(pod string, wants, healthy int32) {
	d.t.Helper()
	_, err := d.kube.AddBudget(d.t.Context(), d.name, pod, policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt32(wants)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": pod}},
	}, healthy)
	require.NoError(d.t, err)
}

func (d *drained) pods() (names []string) {
	d.t.Helper()
	list, err := d.kube.Admin().CoreV1().Pods(d.name).List(d.t.Context(), metav1.ListOptions{})
	require.NoError(d.t, err)
	for _, p := range list.Items {
		names = append(names, p.Name)
	}
	return names
}

// close cordons the node or opens it, as somebody else.
func (d *drained) close(closed bool) {
	d.t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, closed)
	_, err := d.kube.Admin().CoreV1().Nodes().Patch(d.t.Context(), d.name, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(d.t, err)
}

// is wants the node to be marked as ours, and closed.
func (d *drained) is(ours, closed bool) {
	d.t.Helper()
	n, err := d.kube.Admin().CoreV1().Nodes().Get(d.t.Context(), d.name, metav1.GetOptions{})
	require.NoError(d.t, err)
	require.Equal(d.t, ours, n.Annotations[containermgr.CordonAnnotation] != "", "marked")
	require.Equal(d.t, closed, n.Spec.Unschedulable, "closed")
}

// recorded is the last attempt of a step as the record has it, with its output.
func (d *drained) recorded(name string) (last fleet.Step, output string) {
	d.t.Helper()
	steps, err := d.Steps(d.t.Context(), d.op.ID, d.name)
	require.NoError(d.t, err)
	for _, s := range steps {
		if s.Name == name {
			last = s
		}
	}
	if last.ID == 0 {
		return last, ""
	}
	chunks, err := d.Output(d.t.Context(), last.ID, 0, 0)
	require.NoError(d.t, err)
	for _, c := range chunks {
		output += string(c.Data)
	}
	return last, output
}

func (d *drained) waiting() string {
	d.t.Helper()
	return d.run().Waiting
}

func (d *drained) run() fleet.HostRun {
	d.t.Helper()
	runs, err := d.HostRuns(d.t.Context(), d.op.ID)
	require.NoError(d.t, err)
	require.Len(d.t, runs, 1)
	return runs[0]
}

// left says whether the record has the cordon as left behind.
func (d *drained) left() bool {
	d.t.Helper()
	left, err := d.openStore(d.t).LeftCordons(d.t.Context(), 0, 100)
	require.NoError(d.t, err)
	for _, c := range left {
		if c.OperationID == d.op.ID {
			return true
		}
	}
	return false
}

// soon is the way in which Temporal runs a step that has ten seconds left, and as many
// more to say that they are over.
func soon() how { return how{deadline: time.Now().Add(2 * workflows.EndGrace)} }

func TestDrainSteps(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	for name, play := range map[string]func(*drained){
		"whole":      drainsAndRestores,
		"prior":      keepsThePriorCordon,
		"refused":    refusesWhatThePolicyForbids,
		"passing":    waitsForWhatPasses,
		"late":       givesUpByName,
		"opened":     noticesWhoOpensTheNode,
		"held":       waitsForAnotherRollout,
		"zombie":     closesNothingAfterTheRestore,
		"asleep":     closesNothingWhenItWakesUp,
		"removed":    uncordonsWithoutTheHost,
		"ended":      uncordonsAfterTheEnd,
		"untouched":  fencesWhatNeverBegan,
		"gone":       drainsANodeThatIsGone,
		"diagnosed":  diagnosesManyAtOnce,
		"registered": asksForRegisteredOnly,
		"slow":       saysWhatTakesLong,
		"token":      waitsForAToken,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var more map[string]any
			if name == "registered" {
				more = map[string]any{"active_when": "registered"}
			}
			play(r.drained(t, name, more))
		})
	}
}

// drainsAndRestores goes the whole way, each step by three workers at once and again
// later.
func drainsAndRestores(d *drained) {
	ctx, t := d.t.Context(), d.t
	thrice := func(what string, f func() error) {
		t.Helper()
		errs := make([]error, 3)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = f() })
		}
		wg.Wait()
		for _, err := range append(errs, f()) {
			require.NoError(t, err, what)
		}
	}
	d.pod("web")
	d.pod("api")
	d.pod("agent", func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "DaemonSet" })
	require.NoError(t, d.kube.SetBootID(ctx, d.name, "one"))
	thrice("diagnose", func() error { return d.diagnose(how{}, fleet.Drain{}) })
	d.is(false, false)
	thrice("cordon", d.cordon)
	d.is(true, true)
	thrice("drain", func() error { return d.drain(how{}, fleet.Drain{}) })
	require.Equal(t, []string{"agent"}, d.pods())
	_, said := d.recorded(workflows.StepDrain)
	require.Regexp(t, `pod whole/(api|web) was told to go\n`, said)

	err := d.ready(soon(), workflows.StepNodeReady, "one")
	require.Contains(t, requireRefused(t, workflows.TypeGaveUp, err), "node whole was not ready in time")
	require.NoError(t, d.kube.SetBootID(ctx, d.name, "two"))
	thrice("ready", func() error { return d.ready(how{}, workflows.StepNodeReady, "one") })
	thrice("settle", func() error { return d.ready(how{}, workflows.StepNodeSettle, "one") })
	thrice("uncordon", func() error { return d.uncordon(how{}, 1) })
	d.is(false, false)
	step, _ := d.recorded(workflows.StepUncordon)
	require.Equal(t, fleet.StepSucceeded, step.State)
	// Of three at once the first to say so may be one that found it open.
	require.Contains(t, []string{"", "the node bore no cordon of ours"}, step.Reason)
}

func keepsThePriorCordon(d *drained) {
	d.close(true)
	require.NoError(d.t, d.diagnose(how{}, fleet.Drain{}))
	_, said := d.recorded(workflows.StepDiagnose)
	require.Contains(d.t, said, "note: node prior has been cordoned by somebody else")
	require.NoError(d.t, d.cordon())
	d.is(true, true)
	require.NoError(d.t, d.uncordon(how{}, 1))
	d.is(false, true)
	step, _ := d.recorded(workflows.StepUncordon)
	require.Equal(d.t, "the node stays cordoned, by somebody else", step.Reason)
}

// refusesWhatThePolicyForbids before anything is touched, and again under the drain, for
// a pod that came in between.
func refusesWhatThePolicyForbids(d *drained) {
	for i := range 5 {
		d.pod(fmt.Sprint("lone-", i), unmanaged)
	}
	said := requireRefused(d.t, "failed", d.diagnose(how{}, fleet.Drain{}))
	require.Contains(d.t, said, "the node cannot be drained: pod refused/lone-0 has no controller")
	require.Contains(d.t, said, "; and 2 more")
	_, lines := d.recorded(workflows.StepDiagnose)
	require.Equal(d.t, 5, strings.Count(lines, "blocks: pod refused/lone-"), lines)
	d.is(false, false)

	require.NoError(d.t, d.cordon())
	said = requireRefused(d.t, "failed", d.drain(how{}, fleet.Drain{}))
	require.Contains(d.t, said, "the policy does not let these pods go: pod refused/lone-0")
	require.Len(d.t, d.pods(), 5)
	require.NoError(d.t, d.uncordon(how{}, 1))
	d.is(false, false)
}

// waitsForWhatPasses: a budget that allows nothing until a pod is ready again.
func waitsForWhatPasses(d *drained) {
	ctx, t := d.t.Context(), d.t
	for i := range 2 {
		d.pod(fmt.Sprint("web-", i), func(p *corev1.Pod) { p.Labels["app"] = "web" })
	}
	require.NoError(t, d.kube.SetPodReady(ctx, d.name, "web-1", corev1.ConditionFalse))
	d.budget("web", 1, 1)
	done := make(chan error, 1)
	go func() { done <- d.diagnose(how{}, fleet.Drain{}) }()
	eventually(t, func() bool {
		return strings.Contains(d.waiting(), "the node cannot be drained: budget passing/web allows no eviction now")
	}, "the record says what it waits for")
	require.NoError(t, d.kube.SetPodReady(ctx, d.name, "web-1", corev1.ConditionTrue))
	require.NoError(t, await(t, done))
	_, said := d.recorded(workflows.StepDiagnose)
	lines := strings.Split(said, "\n")
	slices.Sort(lines)
	require.Equal(t, slices.Compact(slices.Clone(lines)), lines, "each is said once")
	require.Contains(t, said, "blocks for now: budget passing/web")
	require.Contains(t, said, "passing/web-0") // and web-1, if it was seen ready before the budget knew
	require.Empty(t, d.waiting(), "it has passed")
}

// givesUpByName when the time is over that the steps before this attempt have left.
func givesUpByName(d *drained) {
	ctx, t := d.t.Context(), d.t
	d.pod("slow")
	require.NoError(t, d.kube.HoldPod(ctx, d.name, "slow"))
	require.NoError(t, d.cordon())
	done := make(chan error, 1)
	go func() {
		done <- d.drain(how{deadline: time.Now().Add(time.Hour), spent: time.Hour - workflows.EndGrace - 15*time.Second}, fleet.Drain{})
	}()
	require.Equal(t, "gave up waiting: the node is not empty: pod late/slow has not ended yet", requireRefused(t, workflows.TypeGaveUp, await(t, done)))
	require.NoError(t, d.uncordon(how{}, 1))
	d.is(false, false)

	require.NoError(t, d.kube.SetNodeReady(ctx, d.name, corev1.ConditionTrue, "", ""))
	d.pod("web")
	d.budget("web", 1, 1)
	said := requireRefused(t, "failed", d.diagnose(how{}, fleet.Drain{}))
	require.Contains(t, said, "budget late/web can never allow an eviction")
}

func noticesWhoOpensTheNode(d *drained) {
	d.pod("web")
	d.budget("web", 1, 1)
	require.NoError(d.t, d.cordon())
	done := make(chan error, 1)
	go func() { done <- d.drain(how{}, fleet.Drain{}) }()
	eventually(d.t, func() bool { return strings.Contains(d.waiting(), "the node is not empty: pod opened/web") }, "it waits for the budget")
	d.close(false)
	require.Contains(d.t, requireRefused(d.t, "failed", await(d.t, done)), "has been uncordoned by somebody while it was being drained")
	require.NoError(d.t, d.uncordon(how{}, 1))
	d.is(false, false)
}

// waitsForAnotherRollout to let the node go, for as long as a drain may take.
func waitsForAnotherRollout(d *drained) {
	k, err := containermgr.New(fleet.ContainerManager{Name: d.name, Type: fleet.ContainerManagerKubernetes, Options: map[string]any{
		"server_url": d.kube.URL(), "token": d.token, "certificate_ca_path": d.kube.CAFile(),
	}})
	require.NoError(d.t, err)
	d.t.Cleanup(k.Close)
	_, err = k.Cordon(d.t.Context(), d.name, "another/held", func(context.Context) error { return nil })
	require.NoError(d.t, err)
	_, err = execute(soon(), workflows.CordonNode, d.nodes.Cordon, d.step(workflows.StepCordon))
	require.Contains(d.t, requireRefused(d.t, workflows.TypeGaveUp, err), "gave up waiting: container manager held: node held has been cordoned for another/held")
	done := make(chan error, 1)
	go func() { done <- d.cordon() }()
	eventually(d.t, func() bool { return strings.Contains(d.waiting(), "node held has been cordoned for another/held") }, "the record says so")
	_, err = k.Restore(d.t.Context(), d.name, "another/held")
	require.NoError(d.t, err)
	require.NoError(d.t, await(d.t, done))
	d.is(true, true)
	require.NoError(d.t, d.uncordon(how{}, 1))
	d.is(false, false)
}

// closesNothingAfterTheRestore: a worker comes to a step that others gave up long ago.
func closesNothingAfterTheRestore(d *drained) {
	_, err := d.BeginStep(d.t.Context(), d.op.ID, d.name, workflows.StepCordon, 1)
	require.NoError(d.t, err)
	_, err = d.BeginStep(d.t.Context(), d.op.ID, d.name, workflows.StepDrain, 1)
	require.NoError(d.t, err)
	d.pod("web")
	require.NoError(d.t, d.uncordon(how{}, 1), "nobody has begun")
	requireRefused(d.t, "conflict", d.cordon())
	requireRefused(d.t, "conflict", d.drain(how{}, fleet.Drain{}))
	requireRefused(d.t, "conflict", d.ready(how{}, workflows.StepNodeReady, ""))
	d.is(false, false)
	require.Equal(d.t, []string{"web"}, d.pods())
}

// sleepy is a record whose answer reaches a worker late.
type sleepy struct {
	activities.NodeStore
	asked, wakes chan struct{}
}

func (s sleepy) CordonStands(ctx context.Context, id, address string) error {
	err := s.NodeStore.CordonStands(ctx, id, address)
	select {
	case <-s.asked:
	default:
		close(s.asked)
	}
	<-s.wakes
	return err
}

// closesNothingWhenItWakesUp: a worker falls asleep between the record's leave to cordon
// and the write, and wakes up when the node was let go.
func closesNothingWhenItWakesUp(d *drained) {
	asked, wakes := make(chan struct{}), make(chan struct{})
	zombie := &activities.Nodes{Store: func(tenant string) activities.NodeStore {
		return sleepy{d.openStore(d.t).For(tenant), asked, wakes}
	}}
	d.t.Cleanup(zombie.Close)
	done := make(chan error, 1)
	go func() {
		_, err := execute(how{}, workflows.CordonNode, zombie.Cordon, d.step(workflows.StepCordon))
		done <- err
	}()
	eventually(d.t, func() bool {
		select {
		case <-asked:
			return true
		default:
			return false
		}
	}, "the worker is about to write")
	require.NoError(d.t, d.uncordon(how{}, 1))
	step, _ := d.recorded(workflows.StepUncordon)
	require.Equal(d.t, "the node bore no cordon of ours", step.Reason)
	close(wakes)
	requireRefused(d.t, "conflict", await(d.t, done))
	d.is(false, false)
}

// uncordonsWithoutTheHost, which was removed with its cluster meanwhile.
func uncordonsWithoutTheHost(d *drained) {
	ctx := d.t.Context()
	require.NoError(d.t, d.cordon())
	_, _, err := d.DeleteHost(ctx, d.name, store.Requester{Name: "tester"})
	require.NoError(d.t, err)
	_, err = d.DeleteCluster(ctx, d.name, store.Requester{Name: "tester"})
	require.NoError(d.t, err)
	requireRefused(d.t, "not_found", d.drain(how{}, fleet.Drain{}))
	require.NoError(d.t, d.uncordon(how{}, 1))
	d.is(false, false)
	step, _ := d.recorded(workflows.StepUncordon)
	require.Equal(d.t, fleet.StepSucceeded, step.State)
}

// uncordonsAfterTheEnd what the slot has left behind, though its own attempt is on record
// as failed.
func uncordonsAfterTheEnd(d *drained) {
	ctx := d.t.Context()
	require.NoError(d.t, d.cordon())
	_, err := d.BeginStep(ctx, d.op.ID, d.name, workflows.StepUncordon, 1)
	require.NoError(d.t, err)
	require.NoError(d.t, d.EndOperation(ctx, d.op.ID, fleet.OperationFailed, "its workflow was terminated"))
	require.True(d.t, d.left())
	require.NoError(d.t, d.uncordon(how{}, workflows.AttemptOfSweep))
	require.False(d.t, d.left())
	d.is(false, false)
	step, _ := d.recorded(workflows.StepUncordon)
	require.Equal(d.t, fleet.StepSucceeded, step.State)
	require.NoError(d.t, d.uncordon(how{}, 1), "the slot comes late")
}

func fencesWhatNeverBegan(d *drained) {
	require.NoError(d.t, d.uncordon(how{}, 1))
	step, _ := d.recorded(workflows.StepUncordon)
	require.Zero(d.t, step.ID, "nothing was done")
	requireRefused(d.t, "conflict", d.cordon())
	d.is(false, false)
}

func drainsANodeThatIsGone(d *drained) {
	require.NoError(d.t, d.cordon())
	require.NoError(d.t, d.kube.Admin().CoreV1().Nodes().Delete(d.t.Context(), d.name, metav1.DeleteOptions{}))
	require.NoError(d.t, d.drain(how{}, fleet.Drain{}))
	step, _ := d.recorded(workflows.StepDrain)
	require.Equal(d.t, "the node is gone, and its pods with it", step.Reason)
	require.NoError(d.t, d.uncordon(how{}, 1))
	require.False(d.t, d.there(d.t, d.name))
	said := requireRefused(d.t, "failed", d.diagnose(how{}, fleet.Drain{}))
	require.Contains(d.t, said, "node gone is not registered; bootstrap its host")
}

func diagnosesManyAtOnce(d *drained) {
	ctx, t := d.t.Context(), d.t
	for i := range 12 {
		d.pod(fmt.Sprintf("lone-%02d", i), unmanaged)
	}
	for i := range 7 {
		d.pod(fmt.Sprintf("web-%d", i), func(p *corev1.Pod) { p.Labels["app"] = "web" })
	}
	d.budget("web", 7, 7)
	said, err := execute(how{}, workflows.DiagnoseNodes, d.nodes.DiagnoseCluster, workflows.DiagnosisRef{
		Tenant: fleet.DefaultTenant, Cluster: d.name, Addresses: []string{d.name, "nobody"},
	})
	require.NoError(t, err)
	require.Empty(t, said.Unknown)
	here := said.Hosts[d.name]
	require.Len(t, here.Findings, 10)
	require.Equal(t, 3, here.More)
	require.Equal(t, "budget diagnosed/web", here.Findings[0].Object)
	require.Len(t, here.Findings[0].Pods, 5)
	require.Contains(t, here.Findings[0].Detail, "(and 2 more pods)")
	require.Equal(t, containermgr.NodeMissing, said.Hosts["nobody"].Findings[0].Cause)
	d.is(false, false)

	_, err = d.DeleteContainerManager(ctx, d.name, true)
	require.NoError(t, err)
	said, err = execute(how{}, workflows.DiagnoseNodes, d.nodes.DiagnoseCluster, workflows.DiagnosisRef{
		Tenant: fleet.DefaultTenant, Cluster: d.name, Addresses: []string{d.name},
	})
	require.NoError(t, err)
	require.Contains(t, said.Unknown, "container manager "+d.name+" of the cluster does not exist")
	require.Equal(t, "the node cannot be drained: "+said.Unknown, requireRefused(t, "failed", d.diagnose(how{}, fleet.Drain{})))
}

// asksForRegisteredOnly where hosts are active before their nodes are Ready.
func asksForRegisteredOnly(d *drained) {
	require.NoError(d.t, d.cordon())
	require.NoError(d.t, d.kube.KillNode(d.t.Context(), d.name))
	require.NoError(d.t, d.ready(how{}, workflows.StepNodeReady, "one"))
	require.NoError(d.t, d.kube.Admin().CoreV1().Nodes().Delete(d.t.Context(), d.name, metav1.DeleteOptions{}))
	require.Contains(d.t, requireRefused(d.t, "failed", d.ready(how{}, workflows.StepNodeSettle, "one")), "is not registered")
}

// saysWhatTakesLong while it goes on, and no more when it has passed.
func saysWhatTakesLong(d *drained) {
	ctx, t := d.t.Context(), d.t
	says := func(what string, step func() error, passes func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- step() }()
		eventually(t, func() bool { return d.waiting() == what }, "the record says: %s", what)
		require.NoError(t, passes())
		require.NoError(t, await(t, done))
		require.Empty(t, d.waiting())
	}
	d.pod("pod")
	require.NoError(t, d.kube.HoldPod(ctx, d.name, "pod"))
	require.NoError(t, d.kube.SetBootID(ctx, d.name, "one"))
	require.NoError(t, d.cordon())
	says("the node is not empty: pod slow/pod has not ended yet",
		func() error { return d.drain(how{}, fleet.Drain{}) },
		func() error { return d.kube.ReleasePod(ctx, d.name, "pod") })
	_, err := d.sql.Exec(ctx, `UPDATE node SET ready = false WHERE address = $1`, d.name) // as after a register that timed out
	require.NoError(t, err)
	says("node slow has not reported since its host booted",
		func() error { return d.ready(how{}, workflows.StepNodeReady, "one") },
		func() error { return d.kube.SetBootID(ctx, d.name, "two") })
	n, err := d.HostNode(ctx, d.name)
	require.NoError(t, err)
	require.True(t, n.Ready, "the record knows it now")
	require.NoError(t, d.uncordon(how{}, 1))
}

// waitsForAToken: that of the container manager expires while the host reboots. Somebody
// gives another one, for as long as a node may take to become ready.
func waitsForAToken(d *drained) {
	const refused = "does not know us (401)"
	t := d.t
	require.NoError(t, d.cordon())
	d.login("expired")
	done := make(chan error, 1)
	late := how{deadline: time.Now().Add(2 * time.Hour), spent: time.Hour} // of the 2 min that a node may take
	said := ""
	for range 20 { // a last look may be too short for an answer
		if said = requireRefused(t, workflows.TypeGaveUp, d.ready(late, workflows.StepNodeReady, "")); strings.Contains(said, refused) {
			break
		}
	}
	require.Contains(t, said, refused)
	go func() { done <- d.ready(how{}, workflows.StepNodeReady, "") }()
	eventually(t, func() bool { return strings.Contains(d.waiting(), refused) }, "the record says so")
	d.login(d.token)
	require.NoError(t, await(t, done))
	require.Empty(t, d.waiting())
	require.NoError(t, d.uncordon(how{}, 1))
	d.is(false, false)
}

// login gives the container manager another token.
func (d *drained) login(token string) {
	d.t.Helper()
	m, err := d.OpenContainerManager(d.t.Context(), d.name, "")
	require.NoError(d.t, err)
	m.Options["token"] = token
	_, check, err := d.ReplaceContainerManager(d.t.Context(), m, func(fleet.ContainerManager) error { return nil })
	require.NoError(d.t, err)
	d.checked(d.t, d.name, check)
}

// While Kubernetes is away, steps wait for it, a slot gives up at last, and the sweep
// does not.
func TestDrainStepsWhileKubernetesIsAway(t *testing.T) {
	t.Parallel()
	r := newNodeRig(t)
	d := r.drained(t, "h1", nil)
	require.NoError(t, d.cordon())
	require.NoError(t, r.kube.StopAPIServer(syscall.SIGKILL))

	require.Contains(t, requireRefused(t, workflows.TypeGaveUp, d.diagnose(soon(), fleet.Drain{})), "gave up waiting: container manager h1: could not get node h1")
	require.Contains(t, requireRefused(t, workflows.TypeGaveUp, d.ready(soon(), workflows.StepNodeReady, "")), "node h1 was not ready in time")
	done := make(chan error, 1)
	work, stop := context.WithCancel(t.Context())
	go func() { done <- d.drain(how{ctx: work}, fleet.Drain{}) }()
	eventually(t, func() bool { return strings.HasPrefix(d.waiting(), "container manager h1: could not get node h1") }, "the record says why it waits")
	stop()
	require.Error(t, await(t, done))

	long := time.Now().Add(-workflows.UncordonFor)
	requireRetried(t, d.uncordon(how{attempt: 100}, 1))
	requireRetried(t, d.uncordon(how{attempt: workflows.UncordonTries - 1, scheduled: long}, 1))
	said := requireRefused(t, workflows.TypeGaveUp, d.uncordon(how{attempt: workflows.UncordonTries, scheduled: long}, 1))
	require.Contains(t, said, "container manager h1: could not get node h1")
	hung, err := net.Listen("tcp", strings.TrimPrefix(r.kube.URL(), "https://"))
	require.NoError(t, err)
	limit := time.Now().Add(2 * time.Second) // which it takes to say why
	late := requireRefused(t, workflows.TypeGaveUp, d.uncordon(how{attempt: workflows.UncordonTries, scheduled: long, deadline: limit}, 1))
	require.Contains(t, late, "there was no time left to ask", "it waits for no handshake")
	require.NoError(t, hung.Close())
	_, err = d.EndHostRun(t.Context(), store.HostRunEnd{
		OperationID: d.op.ID, Address: d.name, State: fleet.HostRunFailed, Event: fleet.HostRecovered, Down: true, Turn: 1,
		Reason: "step uncordon: " + said + "; it is tried again until it works",
	})
	require.NoError(t, err)
	run := d.run()
	require.Contains(t, run.Reason, "step uncordon: container manager h1: could not get node h1")
	require.Contains(t, run.Reason, "it is tried again until it works")
	host, err := d.Host(t.Context(), d.name)
	require.NoError(t, err)
	require.Equal(t, fleet.HostActive, host.State, "nothing is wrong with it")

	require.True(t, d.left())
	requireRetried(t, d.uncordon(how{attempt: workflows.UncordonTries, scheduled: long}, workflows.AttemptOfSweep))
	said2, err := execute(how{}, workflows.DiagnoseNodes, r.nodes.DiagnoseCluster, workflows.DiagnosisRef{Tenant: fleet.DefaultTenant, Cluster: "h1", Addresses: []string{"h1"}})
	require.NoError(t, err, "a dry run is of use also without it")
	require.Contains(t, said2.Unknown, "container manager h1: could not")

	require.NoError(t, r.kube.StartAPIServer(t.Context()))
	eventually(t, func() bool { return d.uncordon(how{}, workflows.AttemptOfSweep) == nil }, "it works again")
	d.is(false, false)
	require.False(t, d.left())
}
