package fleet

import (
	"fmt"
	"time"
)

// The planner decides which hosts of an operation are worked on next. It is pure:
// what it knows stands in its arguments. The store asks it in the transaction in
// which it hands out slots, so that no two workers can hand out the same one, and
// a pause holds from the moment it is on disk.

// Tally is what has happened so far in an operation, as the record has it. Counts
// that say "or more" may stop at a number above MaxSlots.
type Tally struct {
	Hosts  int // of the operation
	Canary Group
	Rest   Group
	Failed int // ended badly, canaries too
	Down   int // of those, failed while they were away; each keeps its slot
	// Lost is how many ended well and are neither active nor disassociated in the
	// inventory any more; each uses up one.
	Lost int
	// CanariesLost is how many of those are canaries that are not in a bootstrap.
	CanariesLost int
	// Shared is the budget of the container manager, nil when it has none.
	Shared *Shared
}

// Shared is how many nodes of a container manager may be away at once, counted over all
// rollouts and clusters.
type Shared struct {
	Manager string
	Limit   int
	// Others are the nodes away that this operation does not count itself.
	Others int
	// AtWork is how many of those other operations are at work on, and may soon be back.
	AtWork int
}

// Group counts the canaries, or all other hosts.
type Group struct {
	Unstaged int // to be staged before any host of the group is taken away, or more
	Staging  int
	Ready    int // may take a slot, or more
	Running  int // have a slot
	// Away is how many hosts without a slot (unstaged, staging or ready) are neither
	// active nor disassociated in the inventory: away already, so each uses up one.
	Away int
	// Mending is how many of those, and of the lost ones, are in a bootstrap, and may soon
	// be back.
	Mending int
	Failed  int
}

func (g Group) busy() int   { return g.Staging + g.Running }
func (g Group) waits() int  { return g.Unstaged + g.Staging + g.Ready }
func (g Group) ended() bool { return g.waits()+g.Running == 0 }

// Steering is what people decided about an operation.
type Steering struct {
	Paused    bool
	PausedBy  string
	Approved  bool // the gate after the canaries has been passed
	Cancelled bool
	// CanariesDone is when the last canary ended; zero while there is none that did.
	CanariesDone time.Time
}

// Decision is what comes next.
type Decision struct {
	// Canary says which group Stage, Start and StartAway are about.
	Canary bool
	// Stage is how many hosts may begin to stage now.
	Stage int
	// Start is how many hosts may take a slot now. StartAway of them must be hosts
	// that are away in the inventory.
	Start, StartAway int
	// Pause asks for a pause: the canaries are done, and the policy wants somebody
	// to look. It comes once, since Steering has it afterwards.
	Pause bool
	// Waiting says what the operation waits for besides the hosts at work, one
	// sentence for people; "" for nothing else.
	Waiting string
	// Again is when to ask again at the latest; zero: when something happens.
	Again time.Time
	// End is the end of the operation, "" while it goes on; Reason says why, for
	// any end but a good one.
	End    OperationState
	Reason string
}

// lookAtShared is how often a rollout looks whether others have given back what they
// have of the budget that they share.
const lookAtShared = 5 * time.Second

// lookAtMending is how often a rollout that only waits for bootstraps looks again:
// nothing tells it when one has ended.
const lookAtMending = 5 * time.Second

// ReasonHostFailed is why an operation fails that tolerates no failure.
const ReasonHostFailed = "a host failed"

// Next decides what comes next. It hands out nothing while there is a reason to
// wait, and it ends the operation only when no host is at work.
func (p Policy) Next(t Tally, s Steering, now time.Time) Decision {
	busy := t.Canary.busy() + t.Rest.busy()
	if state, reason := p.stop(t, s); state != "" {
		if busy > 0 {
			return Decision{Waiting: fmt.Sprintf("ends when the hosts at work have ended: %s", reason)}
		}
		return Decision{End: state, Reason: reason}
	}
	if t.Canary.ended() && t.Rest.ended() {
		if t.Failed > 0 {
			return Decision{End: OperationFailed, Reason: fmt.Sprintf("%s failed, which max_failures allows", ofHosts(t.Failed, t.Hosts))}
		}
		return Decision{End: OperationSucceeded}
	}
	if s.Paused {
		return Decision{Waiting: "paused by " + s.PausedBy}
	}
	d := Decision{Canary: !t.Canary.ended()}
	group := t.Rest
	if d.Canary {
		group = t.Canary
	} else if wait := p.gate(s, now); wait.Waiting != "" {
		return wait
	}
	if wait := p.closed(now); wait.Waiting != "" {
		return wait
	}
	if group.Unstaged > 0 || group.Staging > 0 {
		// All hosts stage before the first one is taken away: a version that cannot be
		// had is found out while every host still works.
		d.Stage = max(0, min(group.Unstaged, MaxStaging-group.Staging))
		return d
	}
	d.Start, d.StartAway = p.free(t, group)
	if t.Shared != nil {
		alone := t
		alone.Shared = nil
		if more, _ := p.free(alone, group); more > d.Start {
			return d.shared(t, busy, now)
		}
	}
	if mending := t.Canary.Mending + t.Rest.Mending; d.Start == 0 && busy == 0 && mending > 0 {
		return Decision{Canary: d.Canary, Waiting: fmt.Sprintf("hosts that are away, %d of them in a bootstrap, use up max_unavailable (%d)", mending, p.Slots(t.Hosts)), Again: now.Add(lookAtMending)}
	}
	if d.Start == 0 && busy == 0 {
		return Decision{End: OperationFailed, Reason: fmt.Sprintf(
			"%s failed while away and %s in the inventory (failed, or in a bootstrap), which uses up max_unavailable (%d); mend them, or raise it, then retry",
			ofHosts(t.Down, t.Hosts), are(t.Canary.Away+t.Rest.Away+t.Lost), p.Slots(t.Hosts))}
	}
	return d
}

// shared is a decision for fewer hosts than the policy allows, since the container
// manager has no more to give. Nothing tells a rollout when others give back, so it looks
// again.
func (d Decision) shared(t Tally, busy int, now time.Time) Decision {
	mending := t.Canary.Mending + t.Rest.Mending
	away := t.Shared.Others + t.away()
	budget := fmt.Sprintf("container manager %s lets %d of its nodes be away at once", t.Shared.Manager, t.Shared.Limit)
	if d.Start == 0 && busy == 0 && t.Shared.AtWork+mending == 0 {
		return Decision{End: OperationFailed, Reason: fmt.Sprintf(
			"%s, and %s already (failed); mend them, or raise its max_unavailable, then retry", budget, are(away))}
	}
	d.Waiting = fmt.Sprintf("%s; %s, %d in other operations", budget, are(away), t.Shared.AtWork)
	d.Again = now.Add(lookAtShared)
	return d
}

// stop says why no other host may be started, and how the operation will end.
func (p Policy) stop(t Tally, s Steering) (OperationState, string) {
	allowed := p.FailuresAllowed(t.Hosts)
	switch {
	case s.Cancelled:
		return OperationCancelled, "cancelled"
	case t.Canary.Failed > 0:
		return OperationFailed, "a canary failed"
	case t.CanariesLost > 0 && t.Canary.waits()+t.Rest.waits() > 0:
		return OperationFailed, "a canary was lost after its turn"
	case t.Failed > allowed && allowed == 0:
		return OperationFailed, ReasonHostFailed
	case t.Failed > allowed:
		return OperationFailed, fmt.Sprintf("%s failed, more than max_failures (%d)", ofHosts(t.Failed, t.Hosts), allowed)
	}
	return "", ""
}

// Hold says why no host may begin now that was handed out before, "" when it may.
func (p Policy) Hold(t Tally, s Steering, now time.Time) string {
	if _, why := p.stop(t, s); why != "" {
		return why
	}
	if s.Paused {
		return "paused by " + s.PausedBy
	}
	return p.closed(now).Waiting
}

// closed holds everybody back outside the maintenance window.
func (p Policy) closed(now time.Time) Decision {
	if p.Window == nil {
		return Decision{}
	}
	open, change := p.Window.Next(now)
	if open {
		return Decision{}
	}
	return Decision{Waiting: "the maintenance window opens at " + change.Format(time.RFC3339), Again: change.UTC()}
}

// gate holds the others back after the canaries.
func (p Policy) gate(s Steering, now time.Time) Decision {
	if p.Canary == nil || s.Approved {
		return Decision{}
	}
	if over := s.CanariesDone.Add(time.Duration(p.Canary.Soak)); now.Before(over) {
		return Decision{Waiting: "the canaries are watched until " + over.UTC().Format(time.RFC3339), Again: over}
	}
	switch p.Canary.Then {
	case ThenApprove:
		return Decision{Waiting: "the canaries are done; waits for approval"}
	case ThenPause:
		return Decision{Pause: true, Waiting: "the canaries are done; paused"}
	}
	return Decision{}
}

// free gives how many hosts of a group may take a slot now, and how many of them
// must be hosts that are away already.
func (p Policy) free(t Tally, group Group) (start, away int) {
	running := t.Canary.Running + t.Rest.Running
	slots := p.Slots(t.Hosts)
	// Hosts that are down or away keep slots from hosts that still work. In v0 they do
	// not: one at a time, and nothing else counts.
	working := slots - running
	if p.MaxUnavailable != nil {
		working = slots - t.away()
	}
	if t.Shared != nil {
		slots = min(slots, t.Shared.Limit-t.Shared.Others)
		working = min(working, t.Shared.Limit-t.Shared.Others-t.away())
	}
	start, working = max(0, min(slots-running, group.Ready)), max(0, working)
	if start <= working {
		return start, 0
	}
	away = min(start-working, group.Away)
	return working + away, away
}

// away is how many hosts of the operation are away, by whatever cause.
func (t Tally) away() int {
	return t.Canary.Running + t.Rest.Running + t.Down + t.Lost + t.Canary.Away + t.Rest.Away
}

func ofHosts(n, of int) string {
	if of == 1 {
		return fmt.Sprintf("%d of 1 host", n)
	}
	return fmt.Sprintf("%d of %d hosts", n, of)
}

func are(n int) string {
	if n == 1 {
		return "1 is away"
	}
	return fmt.Sprintf("%d are away", n)
}
