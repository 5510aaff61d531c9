package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

// maxDiagnosed is how many hosts of a dry run are looked at: those that come first, as
// many as may be away at once at most.
const maxDiagnosed = fleet.MaxSlots

// drains says whether a policy has nodes drained.
func drains(p fleet.Policy) bool { return p.Drain == nil || !p.Drain.Disabled }

// withNodeSteps puts the steps that empty the node of a host, and put it back, among
// those of the host. It is cordoned before the first of them that takes the host away;
// where that has a condition, so have they. Where none does, the node is left alone.
func withNodeSteps(steps []gen.PlanStep) []gen.PlanStep {
	away := slices.IndexFunc(steps, func(s gen.PlanStep) bool { return s.Name == "upgrade" || s.Name == "reboot" })
	if away < 0 {
		return steps
	}
	var all []gen.PlanStep
	node := func(name, condition string) {
		all = append(all, gen.PlanStep{Name: name, Commands: [][]string{}, Condition: condition})
	}
	condition := steps[away].Condition
	for i, s := range steps {
		if i == away {
			node("cordon", condition)
			node("drain", condition)
		}
		all = append(all, s)
		switch s.Name {
		case "check":
			node(stepDiagnose, "")
		case "verify":
			node("node-ready", condition)
		case "settle":
			node("node-settle", condition)
		}
	}
	node("uncordon", condition)
	return all
}

const stepDiagnose = "diagnose"

// planDrains asks what would be in the way of draining the nodes of a plan, and notes it
// there. That nobody knows is something to know, and no failure.
func (h *handlers) planDrains(ctx context.Context, plan *gen.Plan) error {
	var nodes []string
	var at []int // their places
	for i, host := range plan.Hosts {
		drained := slices.ContainsFunc(host.Steps, func(s gen.PlanStep) bool { return s.Name == stepDiagnose })
		if drained && len(nodes) < maxDiagnosed {
			nodes, at = append(nodes, host.Address), append(at, i)
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	found, unknown, err := h.Dispatcher.Diagnose(ctx, fleet.DefaultTenant, plan.Cluster, nodes, or(plan.Policy.Drain, fleet.Drain{}))
	if err != nil {
		return err
	}
	if unknown != "" {
		plan.Blocks = append(plan.Blocks, "what is in the way of draining nodes is not known: "+unknown)
		return nil
	}
	var fail, wait []string
	for _, i := range at {
		p := &plan.Hosts[i]
		d := found[p.Address]
		findings := list(d.Findings)
		p.Findings, p.MoreFindings = &findings, d.More
		blocks, passes := inTheWayOfDrain(d)
		switch {
		case blocks == "":
			continue
		case passes:
			wait = append(wait, p.Address)
		default:
			fail = append(fail, p.Address)
		}
		if p.Blocks == "" {
			p.Blocks = blocks
		}
	}
	for _, group := range []struct {
		what  string
		hosts []string
	}{{"could not be drained", fail}, {"would be drained only when what is in the way has passed", wait}} {
		if n := len(group.hosts); n > 0 {
			plan.Blocks = append(plan.Blocks, fmt.Sprintf("%s %s: %s", countHosts(n), group.what, someHosts(group.hosts)))
		}
	}
	return nil
}

// inTheWayOfDrain says in one sentence what blocks a drain, "" when nothing does, and
// whether a rollout would wait for all of it to pass.
func inTheWayOfDrain(d fleet.HostDiagnosis) (blocks string, passes bool) {
	var blocking []fleet.Finding
	passes = true
	for _, f := range d.Findings {
		if f.Blocks {
			blocking = append(blocking, f)
			passes = passes && f.Passes
		}
	}
	if len(blocking) == 0 {
		return "", false
	}
	first := blocking[0]
	what := "its node would be drained only when this has passed: "
	if !passes {
		what = "its node could not be drained: "
		first = blocking[slices.IndexFunc(blocking, func(f fleet.Finding) bool { return !f.Passes })]
	}
	blocks = what + first.String()
	more := len(blocking) - 1
	if len(blocking) == len(d.Findings) { // what was left out may block as well
		more += d.More
	}
	if more > 0 {
		blocks += fmt.Sprintf(" (and %d more)", more)
	}
	return blocks, passes
}

func countHosts(n int) string {
	if n == 1 {
		return "1 host"
	}
	return fmt.Sprintf("%d hosts", n)
}

// someHosts names the first hosts of a list and counts the others.
func someHosts(hosts []string) string {
	const named = 5
	text := strings.Join(hosts[:min(len(hosts), named)], ", ")
	if more := len(hosts) - named; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
