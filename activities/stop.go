package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
	"commissaire/internal/remote"
	"commissaire/workflows"
)

// cancelGrace is how long a cancelled command may take to end by itself.
const cancelGrace = 10 * time.Second

// Stop ends the command of a step that is not to go on, keeps what it still
// printed, and writes down how it ended. A command that was never started never
// will be. Repeating it finds the command ended. A step that has ended, or whose
// operation has, is left as it is.
func (a *Hosts) Stop(ctx context.Context, in workflows.StopStep) (workflows.Nothing, error) {
	s, err := a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error { return s.stop(ctx, in) })
	var app *temporal.ApplicationError
	if s.row.State.Ended() || errors.As(err, &app) && (app.Type() == string(fleet.Conflict) || app.Type() == string(fleet.NotFound)) {
		return workflows.Nothing{}, nil
	}
	return workflows.Nothing{}, err
}

func (s *stepRun) stop(ctx context.Context, in workflows.StopStep) error {
	var out remote.Outcome
	key := s.key(in.Step)
	err := s.contact(ctx, in.Unreachable, func(ctx context.Context, c *remote.Conn) (err error) {
		if err := c.Cancel(ctx, key, cancelGrace); err != nil {
			return err
		}
		out, err = c.Attach(ctx, key, remote.Limits{Head: fleet.OutputHead}, s.row.OutputTo, keep{ctx, s.stepRecord})
		return err
	})
	var f *failure
	if errors.As(err, &f) {
		reason := in.Reason + "; the host could not be told to end the command, which may still run there"
		if !strings.Contains(in.Reason, "gave up") { // which says why
			reason += ": " + f.reason
		}
		return &failure{state: fleet.StepIndeterminate, reason: reason}
	}
	if err != nil {
		return err
	}
	if err := s.keepEnd(ctx, out); err != nil {
		return err
	}
	return stopped(in.Reason, out, s.last.of(out))
}

// stopped is the ending of a command that was told to end, which printed this last.
func stopped(why string, out remote.Outcome, last []byte) error {
	switch {
	case out.State == remote.Exited && out.ExitCode == 0 && !out.Told:
		return nil // it was quicker; many answer TERM with 0, too
	case out.State == remote.Exited && out.ExitCode > 128:
		return &failure{state: fleet.StepFailed, reason: fmt.Sprintf("%s; its command was ended by signal %d", why, out.ExitCode-128), detail: lastLines(last)}
	case out.State == remote.Exited:
		return &failure{state: fleet.StepFailed, reason: fmt.Sprintf("%s; its command ended with exit code %d", why, out.ExitCode), detail: lastLines(last)}
	case out.State == remote.Cancelled:
		return &failure{state: fleet.StepFailed, reason: why + "; its command had not begun"}
	default:
		return &failure{state: fleet.StepIndeterminate, reason: why + "; nobody knows how its command ended: " + printable(out.Reason)}
	}
}
