package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"commissaire/internal/containermgr"
	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// CordonStore keeps what a rollout does to the node of a host.
type CordonStore interface {
	BeginCordon(ctx context.Context, id, address string) (fleet.ContainerManager, error)
	CordonStands(ctx context.Context, id, address string) error
	NodeStands(ctx context.Context, id, address string) error
	CordonOf(ctx context.Context, id, address string) (state fleet.Cordon, ended bool, err error)
	BeginRestore(ctx context.Context, id, address string) (m fleet.ContainerManager, out bool, err error)
	CordonRestored(ctx context.Context, id, address string) error
}

const (
	// diagnoseEvery is the time between two looks at what may pass.
	diagnoseEvery = 2 * time.Second
	// standsEvery is the time between two looks at the record while a container manager
	// wants to be left alone.
	standsEvery = 2 * time.Second
	// drainEvery is the time between two passes of a drain.
	drainEvery = time.Second
	// drainQuiet is how long pods that end, or a node that comes back, are nobody's concern.
	drainQuiet = 5 * time.Second
	// sayWhy is left of an attempt to let a node go, to say why it did not work.
	sayWhy = tellTimeout + time.Second
	// restoreFor is how long one attempt asks a container manager that does not answer to
	// let a node go, with pauses.
	restoreFor   = 5 * time.Second
	restorePause = 250 * time.Millisecond
	// cannotDrain comes before what is in the way.
	cannotDrain = "the node cannot be drained: "
	// mostNamed is how many of a list a sentence names.
	mostNamed = 3
)

// nodeRun is a step of a rollout under way on the node of a host.
type nodeRun struct {
	*stepRecord
	nodes   *Nodes
	to      NodeStore
	manager whoHolds
	// holds asks the record whether the step is to go on.
	holds   func(ctx context.Context, id, address string) error
	m       fleet.ContainerManager
	k       *client
	release func() // gives the client back
	fence   error  // the record does not let the step go on, or does not answer
	last    string // what stands in the way
	refused string // that the container manager does not let us in, if that was its last answer
	known   map[string]bool
}

// whoHolds gives the container manager that a step is to ask, with its options as they are
// now.
type whoHolds func(context.Context, NodeStore) (fleet.ContainerManager, error)

// run is the frame of a rollout's steps on a node.
func (a *Nodes) run(ctx context.Context, in workflows.HostStep, manager whoHolds, do func(context.Context, *nodeRun) error) (workflows.Nothing, error) {
	to := a.Store(in.Tenant)
	s := &nodeRun{stepRecord: &stepRecord{steps: to, in: in}, nodes: a, to: to, manager: manager, release: func() {}, holds: to.CordonStands, known: map[string]bool{}}
	if done, err := s.begin(ctx); done || err != nil {
		return workflows.Nothing{}, err
	}
	work, stop := s.alive(ctx)
	err := func() error {
		defer func() { s.release() }()
		if err := s.open(work); err != nil {
			return err
		}
		s.last = fmt.Sprintf("container manager %s has not answered", s.m.Name)
		err := do(work, s)
		if err == nil {
			s.tell(work, "")
		}
		return err
	}()
	stop()
	return workflows.Nothing{}, s.end(ctx, work, err)
}

// open makes the container manager be asked as the record has it now.
func (s *nodeRun) open(ctx context.Context) error {
	m, err := s.manager(ctx, s.to)
	if err != nil {
		return err
	}
	k, release, err := s.nodes.clients.get(ctx, s.in.Tenant, m)
	if err != nil {
		return blamed(m, err)
	}
	s.release()
	s.m, s.k, s.release = m, k, release
	return nil
}

// cordoner gives the container manager at which the node is, or is about to be,
// cordoned; a Conflict when the node was let go.
func cordoner(in workflows.HostStep) whoHolds {
	return func(ctx context.Context, to NodeStore) (fleet.ContainerManager, error) {
		return to.BeginCordon(ctx, in.OperationID, in.Address)
	}
}

// owner is whom the mark on the node names.
func owner(in workflows.HostRef) string { return in.OperationID + "/" + in.Address }

// stands is the fence before each write to the node, and while there is nothing to do but
// wait: this worker may have slept, and the step be another's, or over.
func (s *nodeRun) stands(ctx context.Context) error {
	s.fence = s.holds(ctx, s.in.OperationID, s.in.Address)
	return s.fence
}

// ask repeats f while the container manager does not answer and the step has time.
func (s *nodeRun) ask(ctx context.Context, f func() error) error {
	for {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return s.late(ctx)
		case s.fence != nil:
			return s.fence
		case fleet.KindOf(err) != fleet.Unavailable:
			return blamed(s.m, err)
		}
		s.last = blamed(s.m, err).Error()
		s.tell(ctx, s.last)
		after, _ := containermgr.RetryAfter(err)
		if err := s.pause(ctx, max(after, askAgain)); err != nil {
			return err
		}
	}
}

// pause waits for so long, or until ctx ends. A container manager may want to be left
// alone for minutes, so the record is asked meanwhile whether the step is to go on.
func (s *nodeRun) pause(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		rest(ctx, min(left, standsEvery))
		if left <= standsEvery || ctx.Err() != nil {
			return nil
		}
		if err := s.stands(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// whileAway asks the record when the container manager does not answer: a host that has
// left its cluster meanwhile is not waited for.
func (s *nodeRun) whileAway(ctx context.Context, err error) error {
	if fleet.KindOf(err) == fleet.Unavailable {
		_ = s.stands(ctx) // ask sees the fence
	}
	return err
}

// late ends a step that has no time left, by what stood in the way.
func (s *nodeRun) late(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errDeadline) {
		return gaveUp("gave up waiting: %s", s.last)
	}
	return ctx.Err()
}

// rest waits for so long, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Diagnose names what would be in the way of a drain, before anything is touched. While
// all that blocks may pass it looks again, for as long as the drain may take. It only
// reads, so it may be repeated.
func (a *Nodes) Diagnose(ctx context.Context, in workflows.DrainStep) (workflows.Nothing, error) {
	holder := func(ctx context.Context, to NodeStore) (m fleet.ContainerManager, err error) {
		n, err := to.HostNode(ctx, in.Address)
		switch {
		case err != nil:
			return m, err
		case n.Manager != "" && n.Type == "":
			return m, failed(cannotDrain+"%s", noManager(n.Manager))
		case !n.Type.HasNodes():
			return m, failed("the container manager of its cluster is gone, or has changed")
		case !n.Held():
			return m, failed(cannotDrain+"%s", notHeld(in.Address, n.Manager))
		}
		return to.OpenContainerManager(ctx, n.Holder, "")
	}
	return a.run(ctx, in.HostStep, holder, func(ctx context.Context, s *nodeRun) error {
		s.holds = s.to.NodeStands
		return s.diagnose(ctx, in.Policy)
	})
}

func (s *nodeRun) diagnose(ctx context.Context, p fleet.Drain) error {
	var before []fleet.Finding // what could not pass at the last look
	for again := false; ; again = true {
		var findings []fleet.Finding
		err := s.ask(ctx, func() (err error) {
			if err := s.stands(ctx); err != nil {
				return err // a host that has left its cluster meanwhile is not waited for
			}
			findings, err = s.k.Diagnose(ctx, s.in.Address, owner(s.in.HostRef), p, again)
			return err
		})
		if err != nil {
			return err
		}
		if err := judgeMarks(ctx, s.to, findings); err != nil {
			return err
		}
		if err := s.say(ctx, s.news(findings)); err != nil {
			return err
		}
		blocking := slices.DeleteFunc(findings, func(f fleet.Finding) bool { return !f.Blocks })
		if len(blocking) == 0 {
			return nil
		}
		s.last = cannotDrain + sentences(blocking)
		lasting := slices.DeleteFunc(blocking, func(f fleet.Finding) bool { return f.Passes })
		if slices.ContainsFunc(lasting, func(f fleet.Finding) bool { return lasts(f, before) }) {
			return failed("%s", s.last)
		}
		before = lasting
		s.tell(ctx, s.last)
		rest(ctx, diagnoseEvery)
	}
}

// lasts says whether there is no use in waiting for a finding to pass. Which pods a
// budget expects is counted from those that there are, also in the moment between the
// end of one and the start of its successor, as when another node is drained. And the
// mark of somebody else is read a moment before the record that says whether it goes. So
// these are believed when they say the same twice.
func lasts(f fleet.Finding, before []fleet.Finding) bool {
	doubtful := f.Cause == containermgr.BudgetExhausted || f.Cause == containermgr.CordonHeld
	return !doubtful || slices.ContainsFunc(before, func(b fleet.Finding) bool {
		return b.Cause == f.Cause && b.Object == f.Object
	})
}

// Cordon closes the node to new pods and marks it as ours. The record has that before
// the node is touched, and is asked again before each write. Repeating it finds the mark;
// once the node was let go it changes nothing any more. A node that bears the mark of
// another rollout is waited for.
func (a *Nodes) Cordon(ctx context.Context, in workflows.HostStep) (workflows.Nothing, error) {
	return a.run(ctx, in, cordoner(in), func(ctx context.Context, s *nodeRun) error { return s.cordon(ctx) })
}

func (s *nodeRun) cordon(ctx context.Context) error {
	for {
		var mark containermgr.Cordon
		var held error
		err := s.ask(ctx, func() (err error) {
			mark, err = s.k.Cordon(ctx, s.in.Address, owner(s.in.HostRef), s.stands)
			if held = nil; containermgr.Held(err) {
				held, err = err, nil
			}
			return s.whileAway(ctx, err)
		})
		switch {
		case err != nil:
			return err
		case held == nil && mark.Prior:
			s.note = "somebody else had cordoned the node; it stays so afterwards"
			return nil
		case held == nil:
			return nil
		}
		s.last = blamed(s.m, held).Error()
		s.tell(ctx, s.last)
		rest(ctx, diagnoseEvery)
	}
}

// Drain evicts the pods of the node in passes, until none is left that has to go. Which
// are on their way is known from the pods, so it may be repeated and go on elsewhere.
// A node that was deleted meanwhile has no pods.
func (a *Nodes) Drain(ctx context.Context, in workflows.DrainStep) (workflows.Nothing, error) {
	return a.run(ctx, in.HostStep, cordoner(in.HostStep), func(ctx context.Context, s *nodeRun) error { return s.drain(ctx, in.Policy) })
}

func (s *nodeRun) drain(ctx context.Context, p fleet.Drain) error {
	begun := time.Now()
	var pass containermgr.Pass
	for {
		var lines []string
		gone := false
		err := s.ask(ctx, func() (err error) {
			pass, err = s.k.Evict(ctx, s.in.Address, owner(s.in.HostRef), p, pass, s.stands)
			for _, pod := range pass.Evicted {
				lines = append(lines, "pod "+pod+" was told to go")
			}
			lines = append(lines, s.news(append(pass.Blocked, pass.Refused...))...)
			if gone = fleet.KindOf(err) == fleet.NotFound && s.fence == nil; gone {
				return nil
			}
			return s.whileAway(ctx, err)
		})
		if said := s.say(ctx, lines); err == nil {
			err = said
		}
		switch {
		case err != nil:
			return err
		case gone:
			s.note = "the node is gone, and its pods with it"
			return nil
		case pass.Done:
			return nil
		case len(pass.Refused) > 0:
			return failed("the policy does not let these pods go: %s", sentences(pass.Refused))
		}
		s.left(ctx, pass, time.Since(begun) < drainQuiet)
		if err := s.pause(ctx, max(drainEvery, pass.RetryAfter)); err != nil {
			return err
		}
	}
}

// left notes what a pass has left on the node. That pods take a moment to end is nothing
// to tell anybody.
func (s *nodeRun) left(ctx context.Context, pass containermgr.Pass, quiet bool) {
	var left []string
	if pass.RetryAfter > 0 {
		left = append(left, fmt.Sprintf("container manager %s has too many requests and wants to be asked again in %s", s.m.Name, pass.RetryAfter))
	}
	for _, f := range pass.Blocked {
		left = append(left, f.String())
	}
	for _, pod := range pass.Left {
		left = append(left, "pod "+pod+" is still to go")
	}
	for _, pod := range slices.Concat(pass.Waiting, pass.Evicted) {
		left = append(left, "pod "+pod+" has not ended yet")
	}
	if len(left) == 0 { // they ended by themselves during the pass
		s.last = "the node is not known to be empty yet"
		return
	}
	if s.last = "the node is not empty: " + first(left); len(pass.Blocked) == 0 && pass.RetryAfter < drainQuiet && quiet {
		s.tell(ctx, "")
		return
	}
	s.tell(ctx, s.last)
}

// Ready waits for the node to be ready after its host was worked on, or looks whether it
// still is, and notes that. It only reads besides, so it may be repeated. The container
// manager has as long as a node may take to become ready, also to let us in again:
// somebody may give another token meanwhile.
func (a *Nodes) Ready(ctx context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
	return a.run(ctx, in.HostStep, cordoner(in.HostStep), func(ctx context.Context, s *nodeRun) error {
		_, spent := patience(ctx)
		ready, cancel := context.WithTimeout(ctx, max(s.k.wants.ReadyTimeout-spent, lastLook))
		defer cancel()
		for {
			err := s.ready(ready, in)
			if err == nil {
				return s.to.NodeReady(ctx, in.OperationID, in.Address)
			}
			again := fleet.KindOf(err) == fleet.Invalid && ready.Err() == nil
			if again {
				s.refused = blamed(s.m, err).Error()
				s.tell(ctx, s.refused)
				rest(ready, askAgain)
			}
			switch s.last = cmp.Or(s.refused, words(err)); {
			case ctx.Err() != nil:
				return s.late(ctx)
			case fleet.KindOf(err) == fleet.NotReady, ready.Err() != nil:
				return gaveUp("%s", s.last)
			case !again:
				return blamed(s.m, err)
			}
			if err := s.open(ctx); err != nil {
				return err
			}
		}
	})
}

func (s *nodeRun) ready(ctx context.Context, in workflows.RebootStep) error {
	slow := s.lacks(ctx)
	lacks := func(why error) {
		s.refused = ""
		slow(why)
	}
	if s.k.wants.ActiveWhen == options.Registered {
		return insist(ctx, lacks, func(ctx context.Context) error {
			there, err := s.k.Registered(ctx, in.Address)
			if err == nil && !there {
				return fleet.Errorf(fleet.NotFound, "node %s is not registered; bootstrap its host", in.Address)
			}
			return err
		})
	}
	w := containermgr.Wait{Lacks: lacks}
	if in.Rebooted {
		w.Left = in.BootID
	}
	return s.k.Ready(ctx, in.Address, w)
}

// lacks tells why a node is not ready, when that is not so for a moment only.
func (s *stepRecord) lacks(ctx context.Context) func(why error) {
	begun := time.Now()
	return func(why error) {
		if time.Since(begun) >= drainQuiet {
			s.tell(ctx, words(why))
		}
	}
}

// Uncordon makes the node as it was before Cordon, if that has begun, and from then on
// nobody can cordon it for this host run. It does not matter what became of the host run,
// the operation, the host and the cluster. One call is a few tries, which Temporal repeats:
// each part of it finds what was done before. The record says last that the node is let
// go, so whatever ends in between is done again.
func (a *Nodes) Uncordon(ctx context.Context, in workflows.HostStep) (workflows.Nothing, error) {
	stop := beat(ctx)
	defer stop()
	to := a.Store(in.Tenant)
	m, out, err := to.BeginRestore(ctx, in.OperationID, in.Address)
	switch {
	case fleet.KindOf(err) == fleet.NotFound:
		return workflows.Nothing{}, verdict(ctx, err)
	case err != nil:
		return workflows.Nothing{}, fmt.Errorf("record: %w", err)
	case !out:
		return workflows.Nothing{}, nil
	}
	s := &stepRecord{steps: to, in: in}
	if s.row, err = to.BeginStep(ctx, in.OperationID, in.Address, in.Step, in.Attempt); err != nil {
		return workflows.Nothing{}, fmt.Errorf("record: %w", err)
	}
	s.told = s.row.Reason
	did, err := a.restore(ctx, m, in.HostRef)
	if err != nil {
		return workflows.Nothing{}, s.tryAgain(ctx, m, err)
	}
	s.tell(ctx, "")
	end := store.StepEnd{StepID: s.row.ID, State: fleet.StepSucceeded, Reason: restored[did]}
	if _, err := to.EndStep(ctx, end); err != nil {
		return workflows.Nothing{}, fmt.Errorf("record: %w", err)
	}
	if err := to.CordonRestored(ctx, in.OperationID, in.Address); err != nil {
		return workflows.Nothing{}, fmt.Errorf("record: %w", err)
	}
	return workflows.Nothing{}, nil
}

// restored is what the record says of a node that was let go.
var restored = map[containermgr.Restored]string{
	containermgr.KeptCordoned:     "the node stays cordoned, by somebody else",
	containermgr.NothingToRestore: "the node bore no cordon of ours",
}

// restore asks for some seconds, while nobody answers: a try that Temporal repeats may
// be given to a worker that is dead, which only its silence shows.
func (a *Nodes) restore(ctx context.Context, m fleet.ContainerManager, in workflows.HostRef) (containermgr.Restored, error) {
	k, release, err := a.clients.get(ctx, in.Tenant, m)
	if err != nil {
		return "", err
	}
	defer release()
	// A try that Temporal ends could not say that it was the last.
	ctx, cancel := context.WithDeadline(ctx, activity.GetInfo(ctx).Deadline.Add(-sayWhy))
	defer cancel()
	for begun := time.Now(); ; {
		did, err := k.Restore(ctx, in.Address, owner(in))
		if fleet.KindOf(err) != fleet.Unavailable || time.Since(begun) > restoreFor {
			return did, err
		}
		select {
		case <-time.After(restorePause):
		case <-ctx.Done():
			return did, err
		case <-activity.GetWorkerStopChannel(ctx):
			return did, err
		}
	}
}

// tryAgain says why a node could not be let go. A slot is not held up by that for ever;
// who comes after its end goes on.
func (s *stepRecord) tryAgain(ctx context.Context, m fleet.ContainerManager, err error) error {
	why := blamed(m, err).Error()
	s.tell(ctx, why)
	info := activity.GetInfo(ctx)
	tried := time.Since(info.ScheduledTime) >= workflows.UncordonFor && info.Attempt >= workflows.UncordonTries
	if tried && s.in.Attempt < workflows.AttemptOfSweep {
		return temporal.NewNonRetryableApplicationError(why, workflows.TypeGaveUp, nil)
	}
	return errors.New(why)
}

// beat heartbeats until stop, for a step whose time is short.
func beat(ctx context.Context) (stop func()) {
	every := time.NewTicker(max(activity.GetInfo(ctx).HeartbeatTimeout/4, 50*time.Millisecond))
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer every.Stop()
		for {
			activity.RecordHeartbeat(ctx)
			select {
			case <-every.C:
			case <-over:
				return
			}
		}
	}()
	return func() {
		close(over)
		<-done
	}
}

// news gives a line for each finding that this worker has not seen before.
func (s *nodeRun) news(findings []fleet.Finding) (lines []string) {
	for _, f := range findings {
		line := "blocks: "
		switch {
		case !f.Blocks:
			line = "note: "
		case f.Passes:
			line = "blocks for now: "
		}
		line += f.String()
		if pods := slices.DeleteFunc(slices.Clone(f.Pods), func(pod string) bool { return f.Object == "pod "+pod }); len(pods) > 0 {
			line += " (it holds " + strings.Join(pods, ", ") + ")"
		}
		if line = printable(line); !s.known[line] {
			s.known[line] = true
			lines = append(lines, line)
		}
	}
	return lines
}

// sentences names the first findings.
func sentences(findings []fleet.Finding) string {
	var all []string
	for _, f := range findings {
		all = append(all, f.String())
	}
	return first(all)
}

// first gives the first of a list for a sentence.
func first(all []string) string {
	if len(all) <= mostNamed {
		return strings.Join(all, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(all[:mostNamed], "; "), len(all)-mostNamed)
}
