package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// show puts how far a rollout is on its page in Temporal's UI.
func (r *rollout) show(ctx workflow.Context, planned Planned) {
	const width = 30
	p := planned.Progress
	state, done, full := planned.End, p.Succeeded+p.Failed+p.Skipped, 0
	if state == "" {
		state = fleet.OperationRunning
	}
	if p.Total > 0 {
		full = min(width, width*done/p.Total)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### %s of cluster %s: %s\n\n", r.in.Kind, cell(r.in.Cluster), state)
	fmt.Fprintf(&b, "`[%s%s]` **%d of %d** hosts done\n\n", strings.Repeat("#", full), strings.Repeat(".", width-full), p.Succeeded, p.Total)
	fmt.Fprintf(&b, "| done | running | staging | staged | waiting | failed | skipped |\n|---|---|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| %d | %d | %d | %d | %d | %d | %d |\n", p.Succeeded, p.Running, p.Staging, p.Staged, p.Pending, p.Failed, p.Skipped)
	if planned.Waiting != "" {
		fmt.Fprintf(&b, "\nHeld: %s\n", cell(planned.Waiting))
	}
	if planned.Reason != "" {
		fmt.Fprintf(&b, "\n%s\n", cell(planned.Reason))
	}
	if !p.ExpectedEnd.IsZero() {
		fmt.Fprintf(&b, "\nExpected end: %s\n", p.ExpectedEnd.UTC().Format(time.RFC3339))
	}
	workflow.SetCurrentDetails(ctx, b.String())
}

// table is what Temporal's UI shows of one host.
func (r *hostRun) table(result HostResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: %s\n\n", cell(r.in.Address), result.State)
	if result.Reason != "" {
		fmt.Fprintf(&b, "%s\n\n", cell(result.Reason))
	}
	b.WriteString("| step | |\n|---|---|\n")
	done := map[string]bool{}
	for _, name := range r.done {
		done[name] = true
	}
	for _, name := range r.names {
		mark := ""
		switch {
		case done[name]:
			mark = "done"
		case name == r.at:
			mark = "running"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, mark)
	}
	return b.String()
}

// markState lets the Temporal UI be searched by the operation's state. It is a
// convenience: the record in Postgres is the truth.
func markState(ctx workflow.Context, s fleet.OperationState) {
	_ = workflow.UpsertTypedSearchAttributes(ctx, AttributeState.ValueSet(string(s)))
}

// cell makes text safe inside a markdown table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ", "`", "'").Replace(s)
}
