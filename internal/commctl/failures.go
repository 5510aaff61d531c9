package commctl

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// maxFailures is how many failed hosts are shown with their steps: each is a
// request.
const maxFailures = 10

// failedHost is a host that failed and where.
type failedHost struct {
	client.HostRun
	step client.Step // where; without a name when it began none
	raw  bool        // it was never bootstrapped
}

var failedHostView = view[failedHost]{
	name: func(h failedHost) string { return h.Address },
	columns: []column[failedHost]{
		{head: "FAILED", cell: func(h failedHost) string { return h.Address }},
		{head: "AT", cell: func(h failedHost) string { return h.step.Name }},
		{head: "BECAUSE", cell: func(h failedHost) string { return strings.TrimPrefix(h.Reason, "step "+h.step.Name+": ") }},
	},
}

// printFailures tells which hosts of an operation failed at which step, and what to
// run next. It tells nothing of an operation that did well.
func (a *App) printFailures(ctx context.Context, c *client.ClientWithResponses, out io.Writer, op client.Operation) error {
	bad := fleet.OperationState(op.State) == fleet.OperationFailed || fleet.OperationState(op.State) == fleet.OperationCancelled
	if !bad && (op.Progress == nil || op.Progress.Failed == 0) {
		return nil
	}
	failed, all, err := failuresOf(ctx, c, op)
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		fmt.Fprintln(out)
		to := *a
		to.Out = out
		if err := renderList(&to, formatTable, failedHostView, failed); err != nil {
			return err
		}
	}
	if all > len(failed) {
		fmt.Fprintf(out, "and %d more: commctl operations hosts --state failed %s\n", all-len(failed), op.Id)
	}
	return printNext(out, op, failed)
}

// failuresOf gives the first hosts of an operation that failed, and how many did.
func failuresOf(ctx context.Context, c *client.ClientWithResponses, op client.Operation) (failed []failedHost, all int, err error) {
	hosts, err := operationHosts(ctx, c, op.Id, string(fleet.HostRunFailed))
	if err != nil {
		return nil, 0, err
	}
	for _, h := range hosts[:min(len(hosts), maxFailures)] {
		steps, err := operationSteps(ctx, c, op.Id, h.Address)
		if err != nil {
			return nil, 0, err
		}
		f := failedHost{HostRun: h, step: failedStep(h, steps)}
		f.raw = fleet.OperationKind(op.Kind).Rollout() && neverBootstrapped(ctx, c, h)
		failed = append(failed, f)
	}
	return failed, len(hosts), nil
}

// failedStep is the step that the reason of a host names, else the last one: behind it
// comes the one that gives the node back.
func failedStep(h client.HostRun, steps []client.Step) client.Step {
	for _, s := range slices.Backward(steps) {
		if strings.HasPrefix(h.Reason, "step "+s.Name+": ") {
			return s
		}
	}
	if len(steps) == 0 {
		return client.Step{}
	}
	return steps[len(steps)-1]
}

// neverBootstrapped says whether no bootstrap of a host has ever come to log in: it
// has no pinned key. No rollout can begin there.
func neverBootstrapped(ctx context.Context, c *client.ClientWithResponses, h client.HostRun) bool {
	if strings.Contains(fleet.OurWords(h.Reason), "key is not pinned") {
		return true
	}
	host, err := fetch[client.Host](ctx, func(ctx context.Context) (*http.Response, error) { return c.GetHost(ctx, h.Address) })
	state := fleet.HostState(host.Status)
	return err == nil && host.HostKeyFingerprint == "" && (state == fleet.HostFailed || state == fleet.HostInvestigating)
}

// printNext names the commands that a person may want now.
func printNext(out io.Writer, op client.Operation, failed []failedHost) error {
	var next []string
	if len(failed) > 0 {
		h := failed[0]
		if h.step.OutputSize > 0 {
			next = append(next, fmt.Sprintf("commctl logs %s %s %s", op.Id, h.Address, h.step.Name))
		} else if h.step.Name != "" {
			next = append(next, fmt.Sprintf("commctl operations steps %s %s -o wide", op.Id, h.Address))
		}
		if strings.Contains(fleet.OurWords(h.Reason), "host-key-changed") {
			next = append(next, "commctl host trust "+h.Address)
		}
		if strings.Contains(fleet.OurWords(h.Reason), "auth-refused") {
			next = append(next, "commctl host creds set "+h.Address+" SSH-PRIV-KEY")
		}
	}
	raw := 0
	again := "" // where a retry does something a second time
	for _, h := range failed {
		if fleet.StepState(h.step.State) == fleet.StepIndeterminate {
			again = "   # begins " + h.step.Name + " a second time there"
			next = append(next, fmt.Sprintf("commctl host ssh %s   # look there first: nobody saw the end of %s, and it may still run", h.Address, h.step.Name))
		}
		if h.raw {
			raw++
			next = append(next, "commctl host bootstrap start "+h.Address)
		}
	}
	kind := fleet.OperationKind(op.Kind)
	switch {
	case !fleet.OperationState(op.State).Ended():
	case kind == fleet.KindBootstrap:
		next = append(next, "commctl host bootstrap start "+op.Host)
	case kind == fleet.KindSync:
		next = append(next, "commctl source sync "+op.Source)
	case kind == fleet.KindRegister:
		next = append(next, "commctl host bootstrap start "+op.Host) // which registers it, too
	case op.Progress != nil && op.Progress.Succeeded == op.Progress.Total: // cancelled too late
	case kind.Counted() && (raw == 0 || raw < len(failed)): // else it would only fail again
		next = append(next, "commctl operations retry "+op.Id+again)
	}
	if len(next) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nNext:\n  %s\n", legible(strings.Join(next, "\n  ")))
	return err
}
