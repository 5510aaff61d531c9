package fleet

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Every property is tried with so many random cases.
const cases = "10000"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("rapid.checks", cases); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// simulated is a host of a simulated operation.
type simulated struct {
	canary, stages bool
	away           bool // failed or in a bootstrap before its turn
	mending        bool // in a bootstrap
	held           bool // by another operation, for now
	state          HostRunState
	down           bool // failed while away
	lost           bool // ended well, and is not there any more
	begun          int  // how often it got a slot
	staged         int  // how often it began to stage
	over           time.Time
}

// rollout plays the record: it carries out what the planner decides, with hosts
// that take their time and fail at random.
type rollout struct {
	policy   Policy
	steering Steering
	now      time.Time
	hosts    []*simulated
	started  []int // in order
	others   *others
}

// others are the nodes of other clusters that share a container manager's budget.
type others struct {
	limit   int
	waiting int // may be taken away in time
	atWork  int
	failed  int
}

func (r *rollout) tally() Tally {
	t := Tally{Hosts: len(r.hosts)}
	if o := r.others; o != nil {
		t.Shared = &Shared{Manager: "k", Limit: o.limit, Others: o.atWork + o.failed, AtWork: o.atWork}
	}
	for _, h := range r.hosts {
		g := &t.Rest
		if h.canary {
			g = &t.Canary
		}
		if h.away && (h.state == HostRunPending || h.state == HostRunStaging || h.state == HostRunStaged) {
			g.Away++
			if h.mending {
				g.Mending++
			}
		}
		if h.lost {
			t.Lost++
			switch {
			case h.mending:
				g.Mending++
			case g == &t.Canary:
				t.CanariesLost++
			}
		}
		switch {
		case h.state == HostRunPending && h.stages:
			g.Unstaged++
		case h.state == HostRunPending, h.state == HostRunStaged:
			g.Ready++
		case h.state == HostRunStaging:
			g.Staging++
		case h.state == HostRunRunning:
			g.Running++
		case h.state == HostRunFailed:
			g.Failed++
			t.Failed++
			if h.down {
				t.Down++
			}
		}
	}
	return t
}

// carryOut hands out what was decided, in order, as the store does.
func (r *rollout) carryOut(d Decision) {
	if d.Pause {
		r.steering.Paused, r.steering.PausedBy, r.steering.Approved = true, "the policy", true
	}
	stage, start, away := d.Stage, d.Start, d.StartAway
	for i, h := range r.hosts {
		if h.canary != d.Canary || h.held {
			continue
		}
		switch {
		case stage > 0 && h.state == HostRunPending && h.stages:
			h.state, stage = HostRunStaging, stage-1
			h.staged++
		case h.state == HostRunStaged, h.state == HostRunPending && !h.stages:
			if start == 0 || !h.away && start <= away {
				continue
			}
			start--
			if h.away {
				away = max(0, away-1)
			}
			h.state = HostRunRunning
			h.begun++
			r.started = append(r.started, i)
		}
	}
}

func (r *rollout) working() (out []*simulated) {
	for _, h := range r.hosts {
		if h.state == HostRunStaging || h.state == HostRunRunning {
			out = append(out, h)
		}
	}
	return out
}

// policies draws any policy that an operator may write.
func policies(t *rapid.T) Policy {
	var p Policy
	amount := func(name string, least int) *Amount {
		if rapid.Bool().Draw(t, name+" percent") {
			return Percent(rapid.IntRange(max(least, 0), 100).Draw(t, name))
		}
		return Count(rapid.IntRange(least, 12).Draw(t, name))
	}
	if rapid.Bool().Draw(t, "max_unavailable given") {
		p.MaxUnavailable = amount("max_unavailable", 1)
	}
	if rapid.Bool().Draw(t, "max_failures given") {
		p.MaxFailures = amount("max_failures", 0)
	}
	if rapid.Bool().Draw(t, "canary given") {
		p.Canary = &Canary{Hosts: amount("canaries", 1), Then: rapid.SampledFrom([]CanaryThen{"", ThenContinue, ThenPause, ThenApprove}).Draw(t, "then"), Soak: Duration(rapid.IntRange(0, 600).Draw(t, "soak")) * Duration(time.Second)}
	}
	if rapid.IntRange(0, 3).Draw(t, "window given") == 0 {
		p.Window = &Window{Start: "22:00", End: "04:00", TimeZone: "Europe/Berlin"}
	}
	return p
}

func newRollout(t *rapid.T) *rollout {
	r := &rollout{policy: policies(t), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	n := rapid.IntRange(0, 25).Draw(t, "hosts")
	canaries := 0
	if r.policy.Canary != nil {
		canaries = min(n, r.policy.Canary.Hosts.Ceil(n))
	}
	for i := range n {
		r.hosts = append(r.hosts, &simulated{
			canary: i < canaries, state: HostRunPending,
			stages: rapid.IntRange(0, 3).Draw(t, "stages") == 0,
			away:   rapid.IntRange(0, 7).Draw(t, "away") == 0,
			held:   rapid.IntRange(0, 9).Draw(t, "held") == 0,
		})
		h := r.hosts[i]
		h.mending = h.away && rapid.Bool().Draw(t, "mending")
	}
	if rapid.Bool().Draw(t, "shared") {
		r.others = &others{limit: rapid.IntRange(1, 12).Draw(t, "limit"), waiting: rapid.IntRange(0, 12).Draw(t, "others")}
		r.others.failed = rapid.IntRange(0, 2).Draw(t, "others that failed")
	}
	return r
}

// check wants every promise held at this instant; before is how many hosts had started
// when the planner was asked.
func (r *rollout) check(t *rapid.T, before int) {
	slots := r.policy.Slots(len(r.hosts))
	running, staging, down, away, lost := 0, 0, 0, 0, 0
	for i, h := range r.hosts {
		switch {
		case h.begun > 1:
			t.Fatalf("host %d got a slot %d times", i, h.begun)
		case h.staged > 1:
			t.Fatalf("host %d was staged %d times", i, h.staged)
		case h.state == HostRunRunning:
			running++
		case h.state == HostRunStaging:
			staging++
		case h.down:
			down++
		case h.lost:
			lost++
		case h.away && (h.state == HostRunPending || h.state == HostRunStaging || h.state == HostRunStaged):
			away++
		}
	}
	if running > slots {
		t.Fatalf("%d hosts run in %d slots", running, slots)
	}
	if staging > MaxStaging {
		t.Fatalf("%d hosts stage at once", staging)
	}
	// Hosts that are away without our doing are no fault of the planner, but it must not
	// add a host that works to them.
	added := 0
	for _, i := range r.started[before:] {
		if !r.hosts[i].away {
			added++
		}
	}
	if r.policy.MaxUnavailable != nil && added > 0 && running+down+away+lost > slots {
		t.Fatalf("%d running, %d down, %d away and %d lost are more than %d", running, down, away, lost, slots)
	}
	if o := r.others; o != nil && added > 0 && running+down+away+lost+o.atWork+o.failed > o.limit {
		t.Fatalf("%d running, %d down, %d away, %d lost and others %+v are more than all may be", running, down, away, lost, *o)
	}
}

// elsewhere lets others end and begin, who keep the budget as well.
func (r *rollout) elsewhere(t *rapid.T) {
	o := r.others
	if o == nil {
		return
	}
	ended := rapid.IntRange(0, o.atWork).Draw(t, "others that end")
	o.atWork -= ended
	if ended > 0 && rapid.IntRange(0, 9).Draw(t, "how another ends") == 0 {
		o.failed++
	}
	if left := o.limit - o.atWork - o.failed - r.tally().away(); left > 0 {
		begun := rapid.IntRange(0, min(left, o.waiting)).Draw(t, "others that begin")
		o.waiting, o.atWork = o.waiting-begun, o.atWork+begun
	}
}

// lose loses a host whose part ended well, or finds one that was lost.
func (r *rollout) lose(t *rapid.T) {
	if len(r.hosts) == 0 || rapid.IntRange(0, 4).Draw(t, "lost or found") > 0 {
		return
	}
	if h := r.hosts[rapid.IntRange(0, len(r.hosts)-1).Draw(t, "who is lost or found")]; h.state == HostRunSucceeded {
		h.lost = !h.lost
		h.mending = h.lost && rapid.Bool().Draw(t, "mending")
	}
}

// step lets time pass until something happens: a host ends, or somebody steers.
func (r *rollout) step(t *rapid.T, d Decision) {
	r.now = r.now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second)
	if !d.Again.IsZero() && len(r.working()) == 0 {
		r.now = d.Again
	}
	r.elsewhere(t)
	r.lose(t)
	for _, h := range r.hosts {
		if h.held && rapid.Bool().Draw(t, "given up") {
			h.held = false
		}
		if h.mending && (h.state == HostRunPending || h.state == HostRunStaged) && rapid.Bool().Draw(t, "bootstrapped") {
			h.mending, h.away = false, rapid.Bool().Draw(t, "in vain")
		}
		if h.lost && h.mending && rapid.Bool().Draw(t, "brought back") {
			h.mending, h.lost = false, rapid.Bool().Draw(t, "in vain")
		}
	}
	working := r.working()
	if len(working) == 0 {
		return
	}
	h := working[rapid.IntRange(0, len(working)-1).Draw(t, "who ends")]
	h.over = r.now
	failed := rapid.IntRange(0, 9).Draw(t, "how") == 0
	switch {
	case failed:
		h.down = h.state == HostRunRunning && rapid.Bool().Draw(t, "down")
		h.state = HostRunFailed
	case h.state == HostRunStaging:
		h.state, h.stages = HostRunStaged, false
	default:
		h.state = HostRunSucceeded
	}
	if h.canary {
		r.steering.CanariesDone = r.now
	}
}

// steer does what an operator may do at any time.
func (r *rollout) steer(t *rapid.T) {
	switch rapid.IntRange(0, 30).Draw(t, "steer") {
	case 0:
		r.steering.Paused, r.steering.PausedBy = true, "alice"
	case 1:
		r.steering.Cancelled = true
	case 2:
		r.policy.MaxFailures = Count(rapid.IntRange(0, 9).Draw(t, "more failures"))
	case 3:
		r.steering.Approved = true
	}
}

// The whole life of an operation: each host at most once, never over the budget,
// nobody starts while paused or outside the window, canaries before the others,
// and it always ends.
func TestARolloutKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newRollout(t)
		for turn := 0; ; turn++ {
			if turn > 20*len(r.hosts)+200 {
				t.Fatalf("does not end: %+v", r.tally())
			}
			r.steer(t)
			before := len(r.started)
			d := r.policy.Next(r.tally(), r.steering, r.now)
			if again := r.policy.Next(r.tally(), r.steering, r.now); again != d {
				t.Fatalf("decides %+v, then %+v", d, again)
			}
			if d.End != "" {
				r.ended(t, d)
				return
			}
			r.carryOut(d)
			r.check(t, before)
			r.order(t, before)
			if len(r.started) > before || d.Stage > 0 {
				if r.steering.Paused && !d.Pause || r.steering.Cancelled {
					t.Fatalf("starts hosts though steered by %+v", r.steering)
				}
				if open := r.policy.Window == nil; !open {
					if open, _ = r.policy.Window.Next(r.now); !open {
						t.Fatalf("starts hosts outside its window, at %s", r.now)
					}
				}
			}
			if len(r.working()) == 0 && d.Again.IsZero() && !r.anybodyHeld() {
				switch { // somebody must do something
				case r.steering.Paused:
					r.steering.Paused = false
				case d.Waiting != "":
					r.steering.Approved = true
				case d.Stage+d.Start == 0:
					t.Fatalf("waits for nothing: %+v", d)
				}
			}
			r.step(t, d)
		}
	})
}

func (r *rollout) anybodyHeld() bool {
	for _, h := range r.hosts {
		if h.held {
			return true
		}
	}
	return false
}

// order wants the hosts that just started to be in order among those of their
// kind, and no other host before all canaries are done.
func (r *rollout) order(t *rapid.T, before int) {
	last := map[bool]int{}
	for _, i := range r.started[before:] {
		h := r.hosts[i]
		if i < last[h.away] {
			t.Fatalf("host %d starts after host %d", i, last[h.away])
		}
		last[h.away] = i
		for _, other := range r.hosts {
			if other.canary == h.canary && (other.stages || other.state == HostRunStaging) && !other.state.Ended() {
				t.Fatalf("host %d is taken away before all of its group are staged", i)
			}
			if other.canary && (other.state == HostRunFailed || other.lost && !other.mending) {
				t.Fatalf("host %d starts though a canary failed or was lost", i)
			}
		}
		if h.canary {
			continue
		}
		for _, c := range r.hosts {
			if c.canary && !c.state.Ended() {
				t.Fatalf("host %d starts before the canaries are done", i)
			}
		}
		if p := r.policy.Canary; p != nil && p.Then == ThenApprove && !r.steering.Approved {
			t.Fatalf("host %d starts without approval", i)
		}
	}
}

// ended wants a good end only after every host, and a reason for any other.
func (r *rollout) ended(t *rapid.T, d Decision) {
	if len(r.working()) > 0 {
		t.Fatalf("ends as %s while hosts are at work", d.End)
	}
	failed, lost := 0, false
	for i, h := range r.hosts {
		lost = lost || h.canary && h.lost && !h.mending
		switch {
		case h.state == HostRunFailed:
			failed++
		case h.state != HostRunSucceeded && d.End == OperationSucceeded:
			t.Fatalf("succeeds though host %d is %s", i, h.state)
		}
	}
	if d.End == OperationSucceeded && failed > 0 {
		t.Fatalf("succeeds though %d hosts failed", failed)
	}
	if d.End != OperationSucceeded && d.Reason == "" {
		t.Fatalf("ends as %s and says not why", d.End)
	}
	if o := r.others; o != nil && strings.Contains(d.Reason, "container manager") && o.atWork > 0 {
		t.Fatalf("ends over others that are at work: %s", d.Reason)
	}
	if allowed := r.policy.FailuresAllowed(len(r.hosts)); d.End == OperationFailed && failed == 0 && !lost && r.policy.MaxUnavailable == nil && r.others == nil {
		t.Fatalf("fails though no host did and %d may: %s", allowed, d.Reason)
	}
}

// A failure budget counts over the whole operation: with as many failures as it
// allows hosts still start, with one more none does.
func TestTheFailureBudgetCountsOverTheWholeOperation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{MaxUnavailable: Count(rapid.IntRange(1, 50).Draw(t, "slots")), MaxFailures: Count(rapid.IntRange(0, 50).Draw(t, "allowed"))}
		failed := rapid.IntRange(0, 100).Draw(t, "failed")
		d := p.Next(Tally{Hosts: 1000, Failed: failed, Rest: Group{Ready: 500, Failed: failed}}, Steering{}, time.Now())
		if want := failed <= p.MaxFailures.Value; (d.Start > 0) != want || (d.End == "") != want {
			t.Fatalf("%d failed of %d allowed: %+v", failed, p.MaxFailures.Value, d)
		}
	})
}

func TestARetryTakesOnlyWhatIsUnfinished(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var runs []HostRun
		for i := range rapid.IntRange(0, 30).Draw(t, "hosts") {
			state := rapid.SampledFrom([]HostRunState{HostRunPending, HostRunStaged, HostRunSucceeded, HostRunFailed, HostRunSkipped}).Draw(t, "state")
			runs = append(runs, HostRun{Address: fmt.Sprint(i), Position: i, State: state, Canary: rapid.Bool().Draw(t, "canary")})
		}
		left := Unfinished(runs)
		at := 0
		for _, r := range runs {
			if r.State == HostRunSucceeded {
				continue
			}
			if at == len(left) || left[at] != (Placed{Address: r.Address, Canary: r.Canary}) {
				t.Fatalf("host %s is missing or out of order in %v", r.Address, left)
			}
			at++
		}
		if at != len(left) {
			t.Fatalf("%v has hosts that are done", left)
		}
	})
}

func TestPercentages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		percent, total, floor, ceil, slots int
	}{
		{10, 1, 0, 1, 1}, {10, 3, 0, 1, 1}, {10, 7, 0, 1, 1}, {10, 100, 10, 10, 10}, {10, 10_000, 1000, 1000, MaxSlots},
		{34, 3, 1, 2, 1}, {50, 7, 3, 4, 3}, {100, 7, 7, 7, 7}, {1, 100, 1, 1, 1}, {99, 100, 99, 99, 99}, {100, 1, 1, 1, 1},
		{33, 10_000, 3300, 3300, MaxSlots}, {1, 10_000, 100, 100, 100}, {0, 10_000, 0, 0, 1}, {3, 10_000, 300, 300, 300},
	} {
		a := Percent(c.percent)
		require.Equal(t, c.floor, a.Floor(c.total), "floor of %s of %d", a, c.total)
		require.Equal(t, c.ceil, a.Ceil(c.total), "ceil of %s of %d", a, c.total)
		require.Equal(t, c.slots, Policy{MaxUnavailable: a}.Slots(c.total), "slots of %s of %d", a, c.total)
	}
	require.Equal(t, 1, Policy{}.Slots(100))
}

// Without a policy it is as v0 was: one at a time, in order, until one fails.
func TestNoPolicyIsTheOldBehaviour(t *testing.T) {
	t.Parallel()
	var p Policy
	now := time.Now()
	require.Equal(t, Decision{Start: 1}, p.Next(Tally{Hosts: 3, Rest: Group{Ready: 3, Away: 1}}, Steering{}, now))
	require.Equal(t, Decision{}, p.Next(Tally{Hosts: 3, Rest: Group{Ready: 2, Running: 1}}, Steering{}, now))
	require.Equal(t, Decision{End: OperationFailed, Reason: "a host failed"}, p.Next(Tally{Hosts: 3, Failed: 1, Rest: Group{Ready: 2, Failed: 1}}, Steering{}, now))
	require.Equal(t, Decision{End: OperationSucceeded}, p.Next(Tally{Hosts: 3}, Steering{}, now))
	require.Equal(t, Decision{End: OperationSucceeded}, p.Next(Tally{}, Steering{}, now))
}

// All slots are used up by hosts that are down: it ends, and says what to do.
func TestARolloutThatCannotGoOnEnds(t *testing.T) {
	t.Parallel()
	p := Policy{MaxUnavailable: Count(2), MaxFailures: Count(5)}
	d := p.Next(Tally{Hosts: 10, Failed: 2, Down: 2, Rest: Group{Ready: 7, Failed: 2}}, Steering{}, time.Now())
	require.Equal(t, OperationFailed, d.End)
	require.Equal(t, "2 of 10 hosts failed while away and 0 are away in the inventory (failed, or in a bootstrap), which uses up max_unavailable (2); mend them, or raise it, then retry", d.Reason)
	d = p.Next(Tally{Hosts: 10, Failed: 1, Down: 1, Rest: Group{Ready: 8, Away: 3, Failed: 1}}, Steering{}, time.Now())
	require.Equal(t, Decision{Start: 2, StartAway: 2}, d, "a host that is away already may be worked on")
}

// Hosts that were lost after their turn use up slots until they are back.
func TestHostsThatAreLostAfterTheirTurn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := Policy{MaxUnavailable: Count(2)}
	next := func(p Policy, lost int, rest Group) Decision {
		return p.Next(Tally{Hosts: 10, Lost: lost, Rest: rest}, Steering{}, now)
	}
	require.Equal(t, Decision{Start: 1}, next(p, 1, Group{Ready: 9}))
	require.Equal(t, Decision{}, next(p, 1, Group{Ready: 8, Running: 1}))
	require.Equal(t, Decision{Start: 2, StartAway: 1}, next(Policy{MaxUnavailable: Count(3)}, 1, Group{Ready: 9, Away: 1}), "one that works takes the place that is left")
	require.Equal(t, Decision{End: OperationFailed, Reason: "0 of 10 hosts failed while away and 2 are away in the inventory (failed, or in a bootstrap), which uses up max_unavailable (2); mend them, or raise it, then retry"},
		next(p, 2, Group{Ready: 8}))
	require.Equal(t, Decision{Waiting: "hosts that are away, 1 of them in a bootstrap, use up max_unavailable (2)", Again: now.Add(lookAtMending)}, next(p, 2, Group{Ready: 8, Mending: 1}))
	require.Equal(t, Decision{Start: 1}, next(Policy{}, 5, Group{Ready: 5}), "nothing else counts without max_unavailable")
	require.Equal(t, Decision{End: OperationSucceeded}, next(p, 10, Group{}), "there is nobody left to keep")

	// A canary that is lost while it is watched has done what it is for.
	p.Canary = &Canary{Hosts: Count(1), Soak: Duration(time.Hour)}
	require.Equal(t, Decision{End: OperationSucceeded}, p.Next(Tally{Hosts: 10, Lost: 1, CanariesLost: 1}, Steering{CanariesDone: now}, now.Add(2*time.Hour)))
	d := p.Next(Tally{Hosts: 10, Lost: 1, CanariesLost: 1, Rest: Group{Ready: 9}}, Steering{CanariesDone: now}, now)
	require.Equal(t, Decision{End: OperationFailed, Reason: "a canary was lost after its turn"}, d)
	d = p.Next(Tally{Hosts: 10, Lost: 1, CanariesLost: 1, Rest: Group{Ready: 8, Running: 1}}, Steering{CanariesDone: now.Add(-2 * time.Hour)}, now)
	require.Equal(t, Decision{Waiting: "ends when the hosts at work have ended: a canary was lost after its turn"}, d)
}

// tallies draws any count of a rollout that is in the middle.
func tallies(t *rapid.T) Tally {
	count := func(name string) int { return rapid.IntRange(0, 6).Draw(t, name) }
	out := Tally{Hosts: 30, Lost: count("lost"), Rest: Group{Ready: count("ready"), Running: count("running"), Failed: count("failed")}}
	out.Rest.Away = rapid.IntRange(0, out.Rest.Ready).Draw(t, "away")
	out.Rest.Mending = rapid.IntRange(0, out.Rest.Away+out.Lost).Draw(t, "mending")
	out.Failed = out.Rest.Failed
	out.Down = rapid.IntRange(0, out.Failed).Draw(t, "down")
	return out
}

// A shared budget only ever takes away: with room for all it changes nothing, and a
// rollout that it holds back says so and looks again, or ends when nothing gives back.
func TestASharedBudgetOnlyTakesAway(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		p, tally := policies(t), tallies(t)
		p.Window = nil
		alone := p.Next(tally, Steering{}, now)
		tally.Shared = &Shared{Manager: "k", Limit: 1000, Others: 100, AtWork: rapid.IntRange(0, 100).Draw(t, "at work")}
		if d := p.Next(tally, Steering{}, now); d != alone {
			t.Fatalf("with room %+v, alone %+v", d, alone)
		}
		s := &Shared{Manager: "k", Limit: rapid.IntRange(1, 8).Draw(t, "limit"), AtWork: rapid.IntRange(0, 5).Draw(t, "others at work")}
		s.Others = s.AtWork + rapid.IntRange(0, 5).Draw(t, "others failed")
		tally.Shared = s
		d := p.Next(tally, Steering{}, now)
		switch {
		case d == alone:
		case d.Start > alone.Start:
			t.Fatalf("starts %d hosts, alone %d", d.Start, alone.Start)
		case d.End == "" && d.Start == alone.Start && d.StartAway > alone.StartAway: // rather hosts that are away
		case d.Start-d.StartAway > max(0, s.Limit-s.Others-tally.away()):
			t.Fatalf("starts too many: %+v", d)
		case d.End == "":
			if d.Again != now.Add(lookAtShared) || !strings.Contains(d.Waiting, "container manager k lets") {
				t.Fatalf("is held back and does not say so: %+v", d)
			}
		case d.End != OperationFailed || tally.Rest.Running > 0 || s.AtWork > 0 || tally.Rest.Mending > 0:
			t.Fatalf("ends though hosts may come back: %+v", d)
		}
	})
}

func TestWhatASharedBudgetSays(t *testing.T) {
	t.Parallel()
	now := time.Now()
	next := func(p Policy, t Tally, s Shared) Decision {
		s.Manager, t.Shared = "k", &s
		return p.Next(t, Steering{}, now)
	}
	three, again := Policy{MaxUnavailable: Count(3)}, now.Add(5*time.Second)
	idle := Tally{Hosts: 9, Rest: Group{Ready: 9}}
	require.Equal(t, Decision{Start: 3}, next(three, idle, Shared{Limit: 4, Others: 1, AtWork: 1}))
	require.Equal(t, Decision{Start: 1, Waiting: "container manager k lets 4 of its nodes be away at once; 3 are away, 2 in other operations", Again: again},
		next(three, idle, Shared{Limit: 4, Others: 3, AtWork: 2}))
	require.Equal(t, Decision{Waiting: "container manager k lets 1 of its nodes be away at once; 1 is away, 1 in other operations", Again: again},
		next(Policy{}, idle, Shared{Limit: 1, Others: 1, AtWork: 1}))
	require.Equal(t, Decision{Waiting: "container manager k lets 2 of its nodes be away at once; 2 are away, 0 in other operations", Again: again},
		next(three, Tally{Hosts: 9, Rest: Group{Ready: 8, Running: 1}}, Shared{Limit: 2, Others: 1}), "our own host may make room")
	require.Equal(t, Decision{End: OperationFailed, Reason: "container manager k lets 2 of its nodes be away at once, and 2 are away already (failed); mend them, or raise its max_unavailable, then retry"},
		next(three, idle, Shared{Limit: 2, Others: 2}))
	require.Equal(t, Decision{Start: 1, StartAway: 1},
		next(Policy{}, Tally{Hosts: 9, Rest: Group{Ready: 9, Away: 2}}, Shared{Limit: 2}), "a host that is away already takes nothing from the budget")
	require.Equal(t, "container manager k lets 1 of its nodes be away at once, and 1 is away already (failed); mend them, or raise its max_unavailable, then retry",
		next(Policy{MaxFailures: Count(5)}, Tally{Hosts: 9, Failed: 1, Down: 1, Rest: Group{Ready: 8, Failed: 1}}, Shared{Limit: 1}).Reason, "also without max_unavailable of its own")
}
