package fleet

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strconv"
)

// Member is what the order of an operation depends on.
type Member struct {
	Address string
	Joined  int64 // place in the cluster's list of members
	Labels  map[string]string
}

// Placed is a host in its place in an operation.
type Placed struct {
	Address string
	Canary  bool
}

// Arrange chooses the hosts of an operation and puts them in order, canaries
// first. The same members give the same order, in whichever order they come. The
// policy must have passed Check. A canary selector that chooses no host is
// refused: a gate that nobody passes would hold for ever.
func (p Policy) Arrange(members []Member) ([]Placed, error) {
	var chosen []Member
	var selector Selector
	if p.Selector != nil {
		selector, _ = ParseSelector(*p.Selector)
	}
	for _, m := range members {
		if selector.Matches(m.Labels) {
			chosen = append(chosen, m)
		}
	}
	if p.Selector != nil && len(chosen) == 0 {
		return nil, InvalidField("policy.selector", "chooses no host of the cluster")
	}
	p.sort(chosen)
	canary := p.canaries(chosen)
	if p.Canary != nil && len(chosen) > 0 && !slices.ContainsFunc(chosen, canary) {
		return nil, InvalidField("policy.canary", "chooses no host of the operation")
	}
	placed := make([]Placed, 0, len(chosen))
	for _, first := range []bool{true, false} {
		for _, m := range chosen {
			if canary(m) == first {
				placed = append(placed, Placed{Address: m.Address, Canary: first})
			}
		}
	}
	return placed, nil
}

func (p Policy) sort(members []Member) {
	order := Order{By: OrderJoined}
	if p.Order != nil {
		order = *p.Order
	}
	slices.SortFunc(members, func(a, b Member) int {
		by := 0
		switch order.By {
		case OrderJoined:
			by = cmp.Compare(a.Joined, b.Joined)
		case OrderRandom:
			by = cmp.Compare(shuffled(order.Seed, a.Address), shuffled(order.Seed, b.Address))
		case OrderLabel:
			x, hasX := a.Labels[order.Label]
			y, hasY := b.Labels[order.Label]
			if hasX != hasY {
				by = 1
				if hasX {
					by = -1
				}
			} else {
				by = cmp.Compare(x, y)
			}
		}
		return cmp.Or(by, cmp.Compare(a.Address, b.Address))
	})
}

// shuffled is the place of a host in a random order: it depends on nothing but
// the seed and the host, so a host more or less does not change the others.
func shuffled(seed int64, address string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.FormatInt(seed, 10) + " " + address))
	x := h.Sum64() // FNV mixes its last bytes little; this is the end of splitmix64
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}

// canaries says which of the chosen hosts, which are in order, go first.
func (p Policy) canaries(chosen []Member) func(Member) bool {
	if p.Canary == nil {
		return func(Member) bool { return false }
	}
	if p.Canary.Hosts == nil {
		selector, _ := ParseSelector(p.Canary.Selector)
		return func(m Member) bool { return selector.Matches(m.Labels) }
	}
	n := min(p.Canary.Hosts.Ceil(len(chosen)), len(chosen))
	first := map[string]bool{}
	for _, m := range chosen[:n] {
		first[m.Address] = true
	}
	return func(m Member) bool { return first[m.Address] }
}

// Unfinished gives the hosts that a retry of an operation takes: those that did
// not succeed, failed or untried, in the order they had.
func Unfinished(runs []HostRun) []Placed {
	var left []Placed
	for _, r := range runs {
		if r.State != HostRunSucceeded {
			left = append(left, Placed{Address: r.Address, Canary: r.Canary})
		}
	}
	return left
}
