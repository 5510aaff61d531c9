package api

import (
	"context"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// runCommand is the operation that takes the role to run commands.
const runCommand = "runCommand"

// RunCommand starts a command on hosts of a cluster.
func (h *handlers) RunCommand(ctx context.Context, r gen.RunCommandRequestObject) (gen.RunCommandResponseObject, error) {
	order, err := commandOrder(r)
	if err != nil {
		return nil, err
	}
	op, created, err := h.start(ctx, order)
	switch {
	case err != nil:
		return nil, err
	case created: // nothing may fail any more
		return gen.RunCommand201JSONResponse(operation(op)), nil
	}
	v, err := h.detailed(ctx, op)
	return gen.RunCommand200JSONResponse(v), err
}

func commandOrder(r gen.RunCommandRequestObject) (store.NewOperation, error) {
	command := store.NewCommand{
		Command: fleet.Command{
			Argv:    r.Body.Argv,
			Timeout: or(r.Body.Timeout, fleet.Duration(fleet.DefaultCommandTimeout)),
			AtOnce:  r.Body.AtOnce,

			Selector: r.Body.Selector,
		},
	}
	order := store.NewOperation{Kind: fleet.KindCommand, Cluster: r.Name, Command: &command, IdempotencyKey: or(r.Params.IdempotencyKey, "")}
	if err := command.Check(); err != nil {
		return order, err
	}
	for _, given := range r.Body.Hosts {
		address, err := fleet.ParseAddress(given)
		if err != nil {
			return order, blame(err, "hosts")
		}
		command.Hosts = append(command.Hosts, address)
	}
	return order, nil
}
