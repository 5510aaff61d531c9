package fleet

import (
	"errors"
	"time"
)

// Policy says how an operation rolls over the hosts of a cluster. A member that
// is nil is not set. A policy without any member is the behaviour of v0: one host
// at a time in the order they joined, and the first failure stops.
type Policy struct {
	// MaxUnavailable is how many hosts may be away at once, at least 1; a
	// percentage is rounded down. When it is set, hosts that are neither active nor
	// disassociated before their turn and hosts that failed while away count, too.
	// Not set: hosts go one at a time, and nothing else counts.
	MaxUnavailable *Amount `json:"max_unavailable,omitempty"`
	// MaxFailures is how many hosts may fail in the whole operation before no other
	// is started; a percentage is rounded down. A host out of reach is a failed one.
	// Not set: none.
	MaxFailures *Amount `json:"max_failures,omitempty"`
	Canary      *Canary `json:"canary,omitempty"`
	// Selector chooses hosts by their labels: "env=prod,tier!=db,rack in (a,b)".
	Selector *string `json:"selector,omitempty"`
	Order    *Order  `json:"order,omitempty"`
	// HostTimeout is how long one host may take from its first step to its last.
	HostTimeout *Duration `json:"host_timeout,omitempty"`
	// StepTimeout is how long one step may take.
	StepTimeout *Duration `json:"step_timeout,omitempty"`
	// MinReady is how long a host that is up again must stay so before it counts as
	// done and its slot is given to the next.
	MinReady *Duration     `json:"min_ready,omitempty"`
	Reboot   *RebootPolicy `json:"reboot,omitempty"`
	Window   *Window       `json:"window,omitempty"`
	// Drain says how nodes are emptied; it is replaced as a whole.
	Drain *Drain `json:"drain,omitempty"`
}

// Canary says which hosts go first and what happens after them. A failed canary
// stops the operation, whatever MaxFailures says.
type Canary struct {
	// Hosts is how many of the first hosts in order; a percentage is rounded up.
	// Either Hosts or Selector is given.
	Hosts    *Amount `json:"hosts,omitempty"`
	Selector string  `json:"selector,omitempty"`
	// Then is what happens when all canaries have succeeded; "" means continue.
	Then CanaryThen `json:"then,omitempty"`
	// Soak is how long to wait after the last canary before the others start.
	Soak Duration `json:"soak,omitempty"`
}

// CanaryThen is what happens when the canaries are done.
type CanaryThen string

// What may happen when the canaries are done.
const (
	ThenContinue CanaryThen = "continue"
	ThenPause    CanaryThen = "pause"   // until somebody resumes
	ThenApprove  CanaryThen = "approve" // until somebody approves
)

// Order says in which order hosts are taken.
type Order struct {
	By OrderBy `json:"by"`
	// Seed of OrderRandom: the same seed gives the same order.
	Seed int64 `json:"seed,omitempty"`
	// Label of OrderLabel: hosts are sorted by its value, then by address; hosts
	// without it come last.
	Label string `json:"label,omitempty"`
}

// OrderBy is a way to sort hosts.
type OrderBy string

// The ways to sort hosts.
const (
	OrderJoined OrderBy = "joined" // as they joined the cluster; the default
	OrderName   OrderBy = "name"
	OrderRandom OrderBy = "random"
	OrderLabel  OrderBy = "label"
)

// RebootPolicy says when an upgrade or a deploy reboots a host.
type RebootPolicy string

// When to reboot. RebootIfNeeded is the default: the host says whether it is.
const (
	RebootNever    RebootPolicy = "never"
	RebootIfNeeded RebootPolicy = "if-needed"
	RebootAlways   RebootPolicy = "always"
)

// MaxSlots is how many hosts one operation works on at once at most, whatever
// MaxUnavailable allows.
const MaxSlots = 500

// MaxStaging is how many hosts stage at once. Staging takes no slot, only
// bandwidth.
const MaxStaging = 50

// Check refuses values that make no sense, naming the member below field.
func (p Policy) Check(field string) error {
	bad := func(name, format string, args ...any) error { return InvalidField(field+"."+name, format, args...) }
	if a := p.MaxUnavailable; a != nil && a.Value < 1 {
		return bad("max_unavailable", "must be at least 1 or 1%%")
	}
	if p.Selector != nil {
		if _, err := ParseSelector(*p.Selector); err != nil {
			return bad("selector", "%s", err)
		}
	}
	if c := p.Canary; c != nil {
		if err := c.check(); err != nil {
			return bad("canary", "%s", err)
		}
	}
	if o := p.Order; o != nil {
		switch {
		case o.By == OrderLabel && ParseLabelKey(o.Label) != nil:
			return bad("order.label", "must name a label")
		case o.By != OrderJoined && o.By != OrderName && o.By != OrderRandom && o.By != OrderLabel:
			return bad("order.by", "must be joined, name, random or label")
		}
	}
	for _, t := range []struct {
		name string
		d    *Duration
		min  time.Duration
	}{{"host_timeout", p.HostTimeout, 10 * time.Second}, {"step_timeout", p.StepTimeout, 10 * time.Second}, {"min_ready", p.MinReady, 0}} {
		if t.d != nil && (time.Duration(*t.d) < t.min || time.Duration(*t.d) > MaxDuration) {
			return bad(t.name, "must be at least %s and at most a year", t.min)
		}
	}
	if p.MinReady != nil && p.HostTimeout != nil && *p.MinReady >= *p.HostTimeout {
		return bad("min_ready", "must be shorter than host_timeout, which it is part of")
	}
	if r := p.Reboot; r != nil && *r != RebootNever && *r != RebootIfNeeded && *r != RebootAlways {
		return bad("reboot", "must be never, if-needed or always")
	}
	if p.Window != nil {
		if err := p.Window.Check(); err != nil {
			return bad("window", "%s", err)
		}
	}
	if p.Drain != nil {
		return p.Drain.check(field + ".drain")
	}
	return nil
}

func (c Canary) check() error {
	switch {
	case (c.Hosts == nil) == (c.Selector == ""):
		return errors.New("needs either hosts or selector")
	case c.Hosts != nil && c.Hosts.Value < 1:
		return errors.New("needs at least 1 host or 1%")
	case c.Then != "" && c.Then != ThenContinue && c.Then != ThenPause && c.Then != ThenApprove:
		return errors.New("then must be continue, pause or approve")
	case c.Soak < 0 || time.Duration(c.Soak) > MaxDuration:
		return errors.New("soak must be a year at most")
	}
	_, err := ParseSelector(c.Selector)
	return err
}

// Over gives the policy with what p sets, and for the rest what defaults set.
func (p Policy) Over(defaults Policy) Policy {
	out := defaults
	set(&out.MaxUnavailable, p.MaxUnavailable)
	set(&out.MaxFailures, p.MaxFailures)
	set(&out.Canary, p.Canary)
	set(&out.Selector, p.Selector)
	set(&out.Order, p.Order)
	set(&out.HostTimeout, p.HostTimeout)
	set(&out.StepTimeout, p.StepTimeout)
	set(&out.MinReady, p.MinReady)
	set(&out.Reboot, p.Reboot)
	set(&out.Window, p.Window)
	set(&out.Drain, p.Drain)
	return out
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// Settled names the members of p that cannot be changed once an operation has
// been put on record, since they decided which hosts it has and in which order.
func (p Policy) Settled() []string {
	var names []string
	for name, given := range map[string]bool{"canary": p.Canary != nil, "order": p.Order != nil, "selector": p.Selector != nil} {
		if given {
			names = append(names, name)
		}
	}
	return names
}

// Slots is how many of total hosts may be away at once.
func (p Policy) Slots(total int) int {
	if p.MaxUnavailable == nil {
		return 1
	}
	return min(max(p.MaxUnavailable.Floor(total), 1), MaxSlots)
}

// FailuresAllowed is how many of total hosts may fail before no other is started.
func (p Policy) FailuresAllowed(total int) int {
	if p.MaxFailures == nil {
		return 0
	}
	return p.MaxFailures.Floor(total)
}

// RebootWhen is the reboot policy, RebootIfNeeded when it is not set.
func (p Policy) RebootWhen() RebootPolicy {
	if p.Reboot == nil {
		return RebootIfNeeded
	}
	return *p.Reboot
}
