package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// world plays the record and the hosts for the workflows. It hands hosts out by
// the planner, as the store does, and remembers in order what the steps were
// asked to do.
type world struct {
	mu       sync.Mutex // activities run beside each other
	env      *testsuite.TestWorkflowEnvironment
	policy   fleet.Policy
	steering fleet.Steering
	hosts    []*fakeHost
	turn     int
	log      []string
	most     int              // hosts at work in slots at once
	broken   map[string]error // answer of "step host"
	takes    time.Duration    // how long a reboot takes
	held     map[string]int   // how many times a bootstrap finds its host held
	at       func(did string) // told of each step
	ended    *workflows.OperationEnd
	ends     map[string]workflows.HostEnd
	boots    map[string]int

	lefts      []string // boots that nodes were to have left
	diagnosis  workflows.Diagnosis
	registers  bool // the container manager of the host's cluster has nodes
	profile    string
	registered workflows.NodeRegistered
	verdict    workflows.ManagerVerdict
}

type fakeHost struct {
	workflows.Assignment
	canary, stages bool
	reboot         bool // an upgrade wants a reboot
	state          fleet.HostRunState
}

func hosts(names ...string) (out []*fakeHost) {
	for _, name := range names {
		out = append(out, &fakeHost{Assignment: workflows.Assignment{Address: name}, state: fleet.HostRunPending})
	}
	return out
}

func (w *world) host(address string) *fakeHost {
	for _, h := range w.hosts {
		if h.Address == address {
			return h
		}
	}
	return nil
}

func (w *world) did(step, host string) error {
	did := strings.TrimSpace(step + " " + host)
	w.log = append(w.log, did)
	if w.at != nil {
		w.at(did)
	}
	return w.broken[did]
}

func (w *world) running() (n int) {
	for _, h := range w.hosts {
		if h.state == fleet.HostRunRunning {
			n++
		}
	}
	return n
}

func (w *world) tally() fleet.Tally {
	t := fleet.Tally{Hosts: len(w.hosts)}
	for _, h := range w.hosts {
		g := &t.Rest
		if h.canary {
			g = &t.Canary
		}
		switch {
		case h.state == fleet.HostRunPending && h.stages:
			g.Unstaged++
		case h.state == fleet.HostRunPending, h.state == fleet.HostRunStaged:
			g.Ready++
		case h.state == fleet.HostRunStaging:
			g.Staging++
		case h.state == fleet.HostRunRunning:
			g.Running++
		case h.state == fleet.HostRunFailed:
			g.Failed++
			t.Failed++
		}
	}
	return t
}

func (w *world) progress() (p fleet.Progress) {
	p.Total = len(w.hosts)
	for _, h := range w.hosts {
		switch h.state {
		case fleet.HostRunSucceeded:
			p.Succeeded++
		case fleet.HostRunFailed:
			p.Failed++
		case fleet.HostRunRunning:
			p.Running++
		default:
			p.Pending++
		}
	}
	return p
}

// hand gives the hosts of a decision, at most so many.
func (w *world) hand(d fleet.Decision, most int) (given []workflows.Assignment) {
	if d.Pause {
		w.steering.Paused, w.steering.PausedBy, w.steering.Approved = true, "the policy", true
	}
	for _, h := range w.hosts {
		stage := h.state == fleet.HostRunPending && h.stages
		roll := h.state == fleet.HostRunStaged || h.state == fleet.HostRunPending && !h.stages
		switch {
		case h.canary != d.Canary || len(given) == most:
		case stage && d.Stage > 0:
			d.Stage--
			h.state, h.Stage = fleet.HostRunStaging, true
			given = append(given, h.Assignment)
		case roll && d.Start > 0:
			d.Start--
			h.state, h.Stage = fleet.HostRunRunning, false
			h.Slot, h.Turn = w.freeSlot(), w.turn
			given = append(given, h.Assignment)
		}
	}
	w.most = max(w.most, w.running())
	return given
}

func (w *world) freeSlot() int {
	var taken []int
	for _, h := range w.hosts {
		if h.state == fleet.HostRunRunning {
			taken = append(taken, h.Slot)
		}
	}
	for n := 1; ; n++ {
		if !slices.Contains(taken, n) {
			return n
		}
	}
}

func (w *world) plan(_ context.Context, in workflows.PlanInput) (workflows.Planned, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if in.Turn != w.turn+1 {
		return workflows.Planned{}, permanent(fmt.Sprintf("turn %d after turn %d", in.Turn, w.turn))
	}
	w.turn = in.Turn
	d := w.policy.Next(w.tally(), w.steering, w.env.Now())
	p := workflows.Planned{Hosts: w.hand(d, 200), Waiting: d.Waiting, Again: d.Again, End: d.End, Reason: d.Reason}
	p.Policy, p.Progress = w.hostPolicy(), w.progress()
	p.Ended = w.ended != nil
	return p, w.did("plan", "")
}

func (w *world) hostPolicy() (p workflows.HostPolicy) {
	p.Reboot, p.Drain = w.policy.RebootWhen(), w.policy.Drain
	if w.policy.HostTimeout != nil {
		p.HostTimeout = time.Duration(*w.policy.HostTimeout)
	}
	if w.policy.MinReady != nil {
		p.MinReady = time.Duration(*w.policy.MinReady)
	}
	return p
}

func (w *world) endHost(_ context.Context, end workflows.HostEnd) (out workflows.HostEnded, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[end.Address] = end
	if h := w.host(end.Address); h != nil {
		h.state, h.stages = end.State, false
	}
	if end.Next {
		d := w.policy.Next(w.tally(), w.steering, w.env.Now())
		if given := w.hand(d, 1); len(given) == 1 {
			out = workflows.HostEnded{Next: &given[0], Policy: w.hostPolicy()}
		}
	}
	return out, w.did("leave", end.Address)
}

func (w *world) endSlot(_ context.Context, end workflows.SlotEnd) (workflows.Nothing, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.host(end.Address).state = fleet.HostRunFailed
	w.ends[end.Address] = workflows.HostEnd{State: fleet.HostRunFailed, Reason: end.Reason}
	return workflows.Nothing{}, w.did("give back", end.Address)
}

// patient makes an environment wait for a machine that is busy: by itself it takes a
// workflow for stuck after a second, and the test after three without an event.
func patient(env *testsuite.TestWorkflowEnvironment) {
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	env.SetTestTimeout(time.Minute)
}

func environment(t *testing.T, w *world) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	patient(env)
	w.env, w.ends, w.boots = env, map[string]workflows.HostEnd{}, map[string]int{}
	if w.broken == nil {
		w.broken = map[string]error{}
	}
	register := func(name string, fn any) { env.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name}) }
	register(workflows.BeginOperation.Name, func(context.Context, workflows.OperationRef) (workflows.OperationBegun, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return workflows.OperationBegun{}, w.did("begin", "")
	})
	register(workflows.Plan.Name, w.plan)
	register(workflows.EndOperation.Name, func(_ context.Context, end workflows.OperationEnd) (workflows.Nothing, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.ended == nil {
			w.ended = &end
		}
		return workflows.Nothing{}, w.did("end", "")
	})
	register(workflows.BeginHost.Name, func(_ context.Context, in workflows.HostRef) (workflows.HostBegun, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.held[in.Address] > 0 {
			w.held[in.Address]--
			return workflows.HostBegun{HeldBy: "other"}, nil
		}
		return workflows.HostBegun{Registers: w.registers, Profile: w.profile}, w.did("take", in.Address)
	})
	w.registerNodes(register)
	w.registerDrain(register)
	register(workflows.EndHost.Name, w.endHost)
	register(workflows.EndSlot.Name, w.endSlot)
	onHost := func(name string) func(context.Context, workflows.HostStep) (workflows.Nothing, error) {
		return func(_ context.Context, in workflows.HostStep) (workflows.Nothing, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return workflows.Nothing{}, w.did(name, in.Address)
		}
	}
	for _, s := range []struct{ activity, step string }{
		{workflows.Investigate.Name, workflows.StepInvestigate}, {workflows.Prepare.Name, workflows.StepPrepare},
		{workflows.Stage.Name, workflows.StepStage}, {workflows.Upgrade.Name, workflows.StepUpgrade},
		{workflows.VerifyPackages.Name, workflows.StepVerifyPackages},
		{workflows.Verify.Name, workflows.StepVerify}, {workflows.Settle.Name, workflows.StepSettle},
	} {
		register(s.activity, onHost(s.step))
	}
	for _, step := range []string{workflows.Install.Name, workflows.Configure.Name, workflows.Services.Name} {
		register(step, func(_ context.Context, in workflows.ContentStep) (workflows.Nothing, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return workflows.Nothing{}, w.did(in.Step+" "+in.Profile, in.Address)
		})
	}
	register(workflows.Stop.Name, func(_ context.Context, in workflows.StopStep) (workflows.Nothing, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return workflows.Nothing{}, w.did("stop "+in.Step, in.Address)
	})
	w.registerReboot(register)
	env.RegisterWorkflow(workflows.Rollout)
	env.RegisterWorkflow(workflows.Slot)
	env.RegisterWorkflow(workflows.Bootstrap)
	return env
}

func (w *world) registerNodes(register func(string, any)) {
	register(workflows.RegisterNode.Name, func(_ context.Context, in workflows.HostStep) (workflows.NodeRegistered, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.registered, w.did(in.Step, in.Address)
	})
	register(workflows.UnregisterNode.Name, func(_ context.Context, in workflows.HostStep) (workflows.Nothing, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return workflows.Nothing{}, w.did(in.Step, in.Address)
	})
	register(workflows.ReadNodeStatus.Name, func(_ context.Context, in workflows.NodeRef) (workflows.Nothing, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return workflows.Nothing{}, w.did("read", in.Address)
	})
	register(workflows.AskManager.Name, func(_ context.Context, in workflows.ManagerRef) (workflows.ManagerVerdict, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.verdict, w.did("ask", in.Name)
	})
}

func (w *world) registerDrain(register func(string, any)) {
	did := func(in workflows.HostStep) (workflows.Nothing, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return workflows.Nothing{}, w.did(in.Step, in.Address)
	}
	drain := func(_ context.Context, in workflows.DrainStep) (workflows.Nothing, error) { return did(in.HostStep) }
	step := func(_ context.Context, in workflows.HostStep) (workflows.Nothing, error) { return did(in) }
	register(workflows.DiagnoseNode.Name, drain)
	register(workflows.CordonNode.Name, step)
	register(workflows.DrainNode.Name, drain)
	register(workflows.UncordonNode.Name, step)
	register(workflows.AwaitNode.Name, func(_ context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
		if in.Rebooted {
			w.lefts = append(w.lefts, in.BootID)
		}
		return did(in.HostStep)
	})
	register(workflows.DiagnoseNodes.Name, func(context.Context, workflows.DiagnosisRef) (workflows.Diagnosis, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.diagnosis, w.did("diagnose cluster", "")
	})
}

func (w *world) registerReboot(register func(string, any)) {
	boot := func(host string) string { return fmt.Sprintf("%s/%d", host, w.boots[host]) }
	register(workflows.Check.Name, func(_ context.Context, in workflows.ChangeStep) (workflows.Checked, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		h := w.host(in.Address)
		return workflows.Checked{BootID: boot(in.Address), Stages: h.Assignment.Stage || strings.HasPrefix(in.Address, "ostree")}, w.did(workflows.StepCheck, in.Address)
	})
	register(workflows.RebootNeeded.Name, func(_ context.Context, in workflows.ChangeStep) (workflows.RebootVerdict, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return workflows.RebootVerdict{Needed: w.host(in.Address).reboot}, w.did(workflows.StepRebootNeeded, in.Address)
	})
	register(workflows.Reboot.Name, func(_ context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if in.BootID == boot(in.Address) {
			w.boots[in.Address]++
		}
		return workflows.Nothing{}, w.did(workflows.StepReboot, in.Address)
	})
	register(workflows.AwaitBoot.Name, func(ctx context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return workflows.Nothing{}, w.did(workflows.StepWait, in.Address)
	})
}

func permanent(reason string) error {
	return temporal.NewNonRetryableApplicationError(reason, "failed", nil)
}
