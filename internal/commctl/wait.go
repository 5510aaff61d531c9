package commctl

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

func (a *App) waitCommand() *cobra.Command {
	state := "succeeded"
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait OPERATION", Short: "Wait until an operation is in a state", Args: operationArgs(cobra.ExactArgs(1)),
		Long: `Wait until an operation is in a state, and print nothing.

  running    it has begun
  paused     somebody, or its policy, paused it
  succeeded  it ended well; this is what is waited for without --for
  failed     it failed
  cancelled  it was cancelled
  ended      any of these three

When the operation failed or was cancelled and --for does not name just that, the
exit code is 5. When it succeeded without having come to what is waited for, it is 4.`,
		Example: "  commctl wait --timeout 1h web\n  commctl wait --for=paused " + exampleID,
	}
	choiceFlag(cmd, &state, "for", "", []string{"running", "paused", "succeeded", "failed", "cancelled", "ended"}, "`STATE` to wait for")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait at most, such as 30m; then the exit code is 6 (default as long as it takes)")
	return a.onOperation(cmd, func(cmd *cobra.Command, _ *client.ClientWithResponses, id string, _ []string) error {
		return a.awaitState(cmd.Context(), id, state, timeout)
	})
}

// errEnough ends the following of an operation.
var errEnough = errors.New("enough was seen")

// awaitState waits until an operation is in a state, at most timeout when it is
// not 0.
func (a *App) awaitState(ctx context.Context, id, state string, timeout time.Duration) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	err = a.await(ctx, c, id, state)
	if errors.Is(err, context.DeadlineExceeded) {
		return exitf(exitTimeout, "operation %s is not %s after %s", id, state, timeout)
	}
	return err
}

func (a *App) await(ctx context.Context, c *client.ClientWithResponses, id, state string) error {
	op, err := getOperation(ctx, c, id) // tells at once that it is not there, or there already
	if err != nil {
		return err
	}
	if there, err := reached(op, state); there || err != nil {
		return err
	}
	quiet, err := a.clientTelling(io.Discard)
	if err != nil {
		return err
	}
	look := func(op client.Operation) error {
		there, err := reached(op, state)
		if there {
			return errEnough
		}
		return err
	}
	f := &follower{
		client: quiet, id: id, host: noHost,
		polled: func(_ context.Context, op client.Operation) error { return look(op) },
		event: func(e event) error {
			if e.name != "operation" && e.name != "steer" {
				return nil
			}
			// The first events are of long ago, so what counts is the operation as it is.
			op, err := getOperation(ctx, quiet, id)
			if err != nil && passing(err) {
				return nil // another event comes, or the end
			}
			if err != nil {
				return err
			}
			return look(op)
		},
	}
	err = f.run(ctx)
	if err == nil { // it has ended
		if op, err = getOperation(ctx, c, id); err == nil {
			err = look(op)
		}
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// noHost chooses the events of an operation itself: it is the address of no host.
const noHost = "0.0.0.0"

// reached says whether an operation is in a state, and the error when it cannot get
// there any more.
func reached(op client.Operation, state string) (bool, error) {
	now := fleet.OperationState(op.State)
	switch {
	case state == string(now), state == "paused" && op.Paused && !now.Ended():
		return true, nil
	case now == fleet.OperationFailed || now == fleet.OperationCancelled:
		return false, exitf(exitFailed, "%s %s", title(op), because(string(now), op.Reason))
	case now != fleet.OperationSucceeded:
		return false, nil
	case slices.Contains([]string{"ended", "running"}, state):
		return true, nil
	}
	return false, exitf(exitConflict, "%s succeeded, so it will not be %s", title(op), state)
}
