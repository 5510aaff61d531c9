package commctl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// progress is what is known of an operation that is followed. It neither reads nor
// writes.
type progress struct {
	op     client.Operation // as it was last read
	state  string           // of the operation, by its events
	hosts  map[string]*hostProgress
	counts map[string]int // hosts by their state
	ahead  time.Duration  // the server's clock is ahead of ours
	lost   string         // that the server is away, "" while it is there
	begun  int            // hosts that have begun
}

type hostProgress struct {
	address string
	state   string
	since   time.Time // when the state began
	step    string
	attempt int
	begun   time.Time // when the step began
	trouble string    // what stands in its way
	order   int       // in which the hosts began
}

func newProgress(op client.Operation) *progress {
	return &progress{op: op, hosts: map[string]*hostProgress{}, counts: map[string]int{}}
}

// apply takes an event in. line is what to tell about it where there is no
// terminal, "" for nothing.
func (p *progress) apply(e event) (line string) {
	at := parseTime(e.At)
	switch e.name {
	case "operation":
		p.state = e.State
		line = p.title() + ": " + because(e.State, e.Reason)
	case "steer":
		line = fmt.Sprintf("%s: %s by %s", p.title(), cmp.Or(steered[e.Action], e.Action), e.By)
		if e.Action == "policy" {
			line += ": " + policyText([]byte(e.Detail))
		}
	case "host":
		h := p.host(e.Address)
		p.counts[h.state]--
		p.counts[e.State]++
		if h.order == 0 && atWork(e.State) {
			p.begun++
			h.order = p.begun
		}
		h.state, h.since, h.step, h.trouble = e.State, at, "", ""
		if e.State == string(fleet.HostRunPending) {
			return "" // they all are, at first
		}
		line = e.Address + ": " + because(e.State, e.Reason)
	case "step":
		h := p.host(e.Address)
		if e.State == string(fleet.StepRunning) {
			known := h.step == e.Step && h.attempt == e.Attempt
			if !known {
				h.step, h.attempt, h.begun = e.Step, e.Attempt, at
			}
			h.trouble = e.Reason
			line = e.Address + ": " + e.Step
			switch {
			case e.Reason != "":
				line += ": " + e.Reason
			case known:
				line += " goes on"
			case e.Attempt > 1:
				line += fmt.Sprintf(", attempt %d", e.Attempt)
			}
			break
		}
		if h.step == e.Step {
			h.step = ""
		}
		if e.State == string(fleet.StepSucceeded) {
			return ""
		}
		line = e.Address + ": " + e.Step + " " + because(e.State, fleet.OurWords(e.Reason))
	default:
		return ""
	}
	return shortTime(e.At) + " " + line
}

// steered says what was done.
var steered = map[string]string{
	"pause": "paused", "resume": "resumed", "approve": "approved", "cancel": "cancelled", "policy": "policy changed",
}

func because(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}

func (p *progress) host(address string) *hostProgress {
	h := p.hosts[address]
	if h == nil {
		h = &hostProgress{address: address}
		p.hosts[address] = h
	}
	return h
}

func atWork(state string) bool {
	return state == string(fleet.HostRunRunning) || state == string(fleet.HostRunStaging)
}

func (p *progress) ended() bool {
	return fleet.OperationState(p.state).Ended() || fleet.OperationState(p.op.State).Ended()
}

// title names the operation for people.
func (p *progress) title() string { return title(p.op) }

func title(op client.Operation) string {
	name := string(op.Kind)
	switch {
	case op.Cluster != "":
		name += " of " + op.Cluster
	case op.Host != "":
		name += " of " + op.Host
	case op.Source != "":
		name += " of " + op.Source
	}
	if op.Version != "" {
		name += " to " + op.Version
	}
	return name
}

// lines are the hosts at work, at most so many, and the summary.
func (p *progress) lines(now time.Time, most int) []painted {
	now = now.Add(p.ahead)
	var working []*hostProgress
	widest := 0
	for _, h := range p.hosts {
		if atWork(h.state) {
			working = append(working, h)
			widest = max(widest, len(h.address))
		}
	}
	slices.SortFunc(working, func(a, b *hostProgress) int {
		return cmp.Or(cmp.Compare(a.order, b.order), strings.Compare(a.address, b.address))
	})
	var all []painted
	most = max(most, 1)
	for i, h := range working {
		if i == most-1 && len(working) > most {
			all = append(all, painted{text: fmt.Sprintf("  and %d more at work", len(working)-i)})
			break
		}
		what, since := h.state, h.since
		if h.step != "" {
			what, since = h.step, h.begun
			if h.attempt > 1 {
				what += fmt.Sprintf(" (attempt %d)", h.attempt)
			}
			if h.trouble != "" {
				what += ": " + h.trouble
			}
		}
		spent := ""
		if !since.IsZero() {
			spent = lasting(now.Sub(since).Truncate(time.Second))
		}
		line := fmt.Sprintf("  %-*s  %6s  %s", widest, h.address, spent, what)
		all = append(all, painted{text: legible(line), sgr: "33"})
	}
	return append(all, p.summary(now))
}

// summary is one line: how far it is, what it waits for, and when it may end.
func (p *progress) summary(now time.Time) painted {
	state := cmp.Or(p.state, string(p.op.State))
	parts := []string{p.title()}
	total := len(p.hosts)
	if p.op.Progress != nil {
		total = p.op.Progress.Total
	}
	done, failed := p.counts[string(fleet.HostRunSucceeded)], p.counts[string(fleet.HostRunFailed)]
	skipped := p.counts[string(fleet.HostRunSkipped)]
	parts[0] += fmt.Sprintf(": %s, %d/%d done", state, done, total)
	if failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", failed))
	}
	if skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", skipped))
	}
	ended := p.ended()
	if waiting := waitingText(p.op); !ended && waiting != "" {
		parts = append(parts, "waiting: "+waiting)
	}
	if end := parseTime(p.op.ExpectedEnd); !ended && !end.IsZero() {
		parts = append(parts, fmt.Sprintf("expected end %s (in %s)", end.Format("15:04 UTC"), lasting(end.Sub(now).Round(time.Second))))
	}
	if p.lost != "" {
		parts = append(parts, p.lost)
	}
	colour := ""
	switch fleet.OperationState(state) {
	case fleet.OperationSucceeded:
		colour = "32"
	case fleet.OperationFailed, fleet.OperationCancelled:
		colour = "31"
	}
	return painted{text: legible(strings.Join(parts, ", ")), sgr: colour, wrap: true}
}

// policyText shows a policy that is given as JSON on one line.
func policyText(members []byte) string {
	var parts []string
	for _, m := range jsonMembers(json.RawMessage(members)) {
		parts = append(parts, m[0]+"="+m[1])
	}
	return strings.Join(parts, " ")
}

// jsonMembers gives names and values of an object, sorted by name. Values are JSON,
// texts without their quotes.
func jsonMembers(object any) (members [][2]string) {
	text, err := json.Marshal(object)
	var all map[string]json.RawMessage
	if err != nil || json.Unmarshal(text, &all) != nil {
		return nil
	}
	for name, value := range all {
		members = append(members, [2]string{name, strings.Trim(string(value), `"`)})
	}
	slices.SortFunc(members, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return members
}
