package commctl

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

var planHostView = view[client.PlanHost]{
	name: func(h client.PlanHost) string { return h.Address },
	columns: []column[client.PlanHost]{
		{head: "NO", cell: func(h client.PlanHost) string { return strconv.Itoa(h.Position + 1) }},
		{head: "HOST", cell: func(h client.PlanHost) string { return h.Address }},
		{head: "CANARY", cell: func(h client.PlanHost) string { return yes(h.Canary) }},
		{head: "OS", cell: func(h client.PlanHost) string { return h.Os }},
		{head: "FAMILY", cell: func(h client.PlanHost) string { return h.Family }},
		{head: "STEPS", cell: func(h client.PlanHost) string {
			var names []string
			for _, s := range h.Steps {
				if !slices.Contains(names, s.Name) {
					names = append(names, s.Name)
				}
			}
			return strings.Join(names, ", ")
		}},
		{head: "BLOCKED-BY", long: true, cell: blockedBy},
	},
}

// blockedBy is what holds a host back. What is in the way of its drain stands in a table
// of its own.
func blockedBy(h client.PlanHost) string {
	if what, _, isDrain := strings.Cut(h.Blocks, ": "); isDrain && h.Findings != nil && strings.HasPrefix(what, "its node ") {
		return what
	}
	return h.Blocks
}

// planFinding is what was found at the node of a host.
type planFinding struct {
	host string
	fleet.Finding
}

var planFindingView = view[planFinding]{
	name: func(f planFinding) string { return f.host },
	columns: []column[planFinding]{
		{head: "HOST", cell: func(f planFinding) string { return f.host }},
		{head: "DRAIN", cell: func(f planFinding) string {
			switch {
			case f.Blocks && f.Passes:
				return "waits"
			case f.Blocks:
				return "fails"
			}
			return ""
		}},
		{head: "CAUSE", cell: func(f planFinding) string { return f.Cause }},
		{head: "PODS", wide: true, cell: func(f planFinding) string { return strings.Join(f.Pods, ", ") }},
		{head: "FOUND", long: true, cell: planFinding.String},
	},
}

// planFindings lists what is in the way of drains.
func planFindings(hosts []client.PlanHost) (all []planFinding) {
	for _, h := range hosts {
		if h.Findings == nil {
			continue
		}
		for _, f := range *h.Findings {
			all = append(all, planFinding{h.Address, f})
		}
		if h.MoreFindings > 0 {
			all = append(all, planFinding{h.Address, fleet.Finding{Object: "and", Detail: fmt.Sprintf("%d more", h.MoreFindings)}})
		}
	}
	return all
}

// notLookedAt counts the hosts whose nodes would be drained and were not looked at,
// while others were.
func notLookedAt(hosts []client.PlanHost) int {
	looked, not := 0, 0
	for _, h := range hosts {
		switch {
		case h.Findings != nil:
			looked++
		case slices.ContainsFunc(h.Steps, func(s client.PlanStep) bool { return s.Name == "diagnose" }):
			not++
		}
	}
	if looked == 0 {
		return 0 // the plan says why
	}
	return not
}

// printPlan prints what an operation would do: a table with what concerns all hosts
// before it and, unless only the table is wanted, the commands behind it.
func (a *App) printPlan(text []byte, f format) error {
	var plan client.Plan
	if err := json.Unmarshal(text, &plan); err != nil {
		return unreadable(err)
	}
	if f == formatJSON || f == formatYAML || f == formatName {
		return render(a, f, planHostView, plan.Hosts, plan)
	}
	var b strings.Builder
	what := title(client.Operation{Kind: plan.Kind, Cluster: plan.Cluster, Version: plan.Version})
	fmt.Fprintf(&b, "Would begin %s: %d hosts, at most %d at once; %d may fail\n", what, len(plan.Hosts), plan.Slots, plan.FailuresAllowed)
	if policy := policyOf(plan.Policy); policy != "" {
		fmt.Fprintf(&b, "Policy: %s\n", policy)
	}
	for _, blocks := range plan.Blocks {
		fmt.Fprintf(&b, "Now in the way: %s\n", blocks)
	}
	if _, err := io.WriteString(a.Out, legible(b.String())+"\n"); err != nil {
		return err
	}
	hosts := planHostView
	if f == "" { // the steps stand below, with their commands
		hosts.columns = without(hosts.columns, "STEPS")
	}
	if err := renderList(a, f, hosts, plan.Hosts); err != nil {
		return err
	}
	if findings := planFindings(plan.Hosts); len(findings) > 0 {
		fmt.Fprintln(a.Out)
		if err := renderList(a, f, planFindingView, findings); err != nil {
			return err
		}
	}
	if n := notLookedAt(plan.Hosts); n > 0 {
		fmt.Fprintf(a.Out, "\nNodes that were not looked at, of the last hosts: %d\n", n)
	}
	if f != formatTable {
		_, err := io.WriteString(a.Out, legible(planCommands(plan.Hosts)))
		return err
	}
	return nil
}

// planCommands shows the commands of the steps, once for all hosts that have the
// same.
func planCommands(hosts []client.PlanHost) string {
	var texts []string
	who := map[string][]string{}
	for _, h := range hosts {
		var b strings.Builder
		for _, s := range h.Steps {
			name := s.Name
			if s.Condition != "" {
				name += " (" + s.Condition + ")"
			}
			fmt.Fprintf(&b, "  %s\n", name)
			for _, command := range s.Commands {
				text := strings.TrimSuffix(strings.Join(command, " "), "\n")
				fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(text, "\n", "\n      ")) // scripts have many lines
			}
		}
		text := b.String()
		if text == "" {
			continue
		}
		if who[text] == nil {
			texts = append(texts, text)
		}
		who[text] = append(who[text], h.Address)
	}
	const shown = 3
	var b strings.Builder
	for _, text := range texts {
		names := who[text]
		list := strings.Join(names[:min(len(names), shown)], ", ")
		if len(names) > shown {
			list += fmt.Sprintf(" and %d more", len(names)-shown)
		}
		fmt.Fprintf(&b, "\n%s:\n%s", list, text)
	}
	return b.String()
}

// policyOf shows a policy on one line.
func policyOf(p fleet.Policy) string {
	text, err := json.Marshal(p)
	if err != nil {
		return ""
	}
	return policyText(text)
}
