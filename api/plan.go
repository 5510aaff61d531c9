package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/store"
)

// plan says what an order would do, from the record alone: no host is asked, only the
// container manager what would be in the way of draining their nodes. The commands come
// from where the steps take theirs.
func (h *handlers) plan(ctx context.Context, o store.NewOperation) (*gen.Plan, error) {
	preview, err := h.Store.PreviewOperation(ctx, o)
	if err != nil {
		return nil, err
	}
	op := preview.Operation
	plan := &gen.Plan{
		Kind:            gen.OperationKind(op.Kind),
		Cluster:         op.Cluster,
		Version:         op.Version,
		Policy:          op.Policy,
		Slots:           preview.Slots,
		FailuresAllowed: op.Policy.FailuresAllowed(len(preview.Hosts)),
		Hosts:           make([]gen.PlanHost, len(preview.Hosts)),
		Blocks:          list(preview.Blocks),
	}
	for i, one := range preview.Hosts {
		plan.Hosts[i] = planHost(op, one)
		plan.Hosts[i].Position = i
	}
	if err := h.planDrains(ctx, plan); err != nil {
		return nil, err
	}
	return plan, nil
}

// planHost says what would be done on one host. Where nobody knows which commands
// the host has, the reason is what blocks it, unless there is a better one.
func planHost(op fleet.Operation, h store.PreviewHost) gen.PlanHost {
	p := gen.PlanHost{Address: h.Address, Canary: h.Canary, Os: h.OS, Steps: []gen.PlanStep{}, Blocks: h.Blocks}
	family, err := hostos.FamilyOf(h.OS, h.OSTree, h.Bootc, h.PackageManager)
	if err == nil {
		p.Family = family.Name()
	}
	if err == nil || op.Kind == fleet.KindRestart { // which is the same everywhere
		var commands []hostos.NamedCommand
		if commands, err = hostos.Commands(family, op.Kind, op.Version); err == nil {
			p.Steps = planSteps(op, commands)
			if h.Node && drains(op.Policy) {
				p.Steps = withNodeSteps(p.Steps)
			}
		}
	}
	if err != nil && p.Blocks == "" {
		p.Blocks = err.Error()
	}
	return p
}

// planSteps gathers the commands of each step that run under the same condition.
func planSteps(op fleet.Operation, commands []hostos.NamedCommand) []gen.PlanStep {
	steps := []gen.PlanStep{}
	for _, c := range commands {
		c, runs := underPolicy(op, c)
		if !runs {
			continue
		}
		last := len(steps) - 1
		if last < 0 || steps[last].Name != c.Step || steps[last].Condition != c.Condition {
			steps = append(steps, gen.PlanStep{Name: c.Step, Commands: [][]string{}, Condition: c.Condition})
			last++
		}
		if c.Argv != nil {
			steps[last].Commands = append(steps[last].Commands, c.Argv)
		}
	}
	return steps
}

// underPolicy gives a command as the operation's policy has it run, if it does.
func underPolicy(op fleet.Operation, c hostos.NamedCommand) (in hostos.NamedCommand, runs bool) {
	reboot := op.Policy.RebootWhen()
	if op.Kind == fleet.KindRestart {
		reboot = fleet.RebootAlways
	}
	switch c.Step {
	case "check": // whether it can reboot
		if reboot == fleet.RebootNever {
			c.Argv = nil
		}
	case "reboot":
		if reboot == fleet.RebootAlways {
			c.Condition = ""
		}
		return c, reboot != fleet.RebootNever
	case "wait":
		return c, reboot != fleet.RebootNever
	case "settle":
		if op.Policy.MinReady == nil || *op.Policy.MinReady == 0 {
			return c, false
		}
		c.Condition = op.Policy.MinReady.String() + " later"
	}
	return c, true
}
