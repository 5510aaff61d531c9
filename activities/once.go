package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/remote"
)

// key names the step's command on the host. It is the same in every attempt of
// the activity, which is what makes the command run once.
func (s *stepRun) key(step string) remote.Key {
	return remote.Key{Operation: s.in.OperationID, Host: s.in.Address, Step: step, Attempt: s.in.Attempt}
}

// once runs a command on the host exactly once and keeps its output. It may be
// repeated at any point: the host knows whether the command was started, and
// Postgres how much of its output is stored.
func (s *stepRun) once(ctx context.Context, unreachable time.Duration, command remote.Command) (remote.Outcome, error) {
	command.Limits.Head = fleet.OutputHead
	var out remote.Outcome
	err := s.contact(ctx, unreachable, func(ctx context.Context, c *remote.Conn) (err error) {
		if err := s.fence(ctx); err != nil {
			return err
		}
		out, err = c.Once(ctx, command, s.row.OutputTo, keep{ctx, s.stepRecord})
		return err
	})
	if err != nil {
		return out, err
	}
	return out, s.keepEnd(ctx, out)
}

// fence comes before anything is changed on the host. It may have been out of reach
// for long, or this worker asleep. Who ended the step meanwhile did so for good:
// nothing must start after that.
func (s *stepRun) fence(ctx context.Context) error {
	row, err := s.store.BeginStep(ctx, s.in.OperationID, s.in.Address, s.in.Step, s.in.Attempt)
	if err != nil {
		return err
	}
	if row.State.Ended() {
		return fleet.Errorf(fleet.Conflict, "step %s has ended", s.in.Step)
	}
	row.OutputSize = max(row.OutputSize, row.OutputTo)
	s.row = row
	return nil
}

// keepEnd stores the end of an output whose middle is left out, and what is known
// of how the command ended.
func (s *stepRun) keepEnd(ctx context.Context, out remote.Outcome) (err error) {
	if len(out.Tail) > 0 && out.OutputSize > s.row.OutputTo {
		if s.row.OutputTo, err = s.store.AppendTail(ctx, s.row.ID, s.row.OutputTo, out.TailOffset, out.Tail); err != nil {
			return err
		}
	}
	s.row.OutputSize = out.OutputSize
	if out.State == remote.Exited {
		s.exit = &out.ExitCode
	}
	return nil
}

// keep stores output as it comes.
type keep struct {
	ctx context.Context
	s   *stepRecord
}

// Output stores a chunk. The store answers how far the output is kept: further
// than we are when another attempt of this step was quicker.
func (k keep) Output(offset int64, data []byte) (int64, error) {
	next, err := k.s.steps.AppendOutput(k.ctx, k.s.row.ID, offset, data)
	if err != nil {
		return offset, err
	}
	k.s.row.OutputTo = next
	k.s.last.add(data)
	return next, nil
}

// Alive needs no answer here: the step heartbeats by itself.
func (keep) Alive() {}

// ending is the end of what a command printed, fleet.OutputEnd bytes at most, for a reason.
type ending []byte

func (e *ending) add(data []byte) {
	*e = append(*e, data...)
	if len(*e) > fleet.OutputEnd {
		*e = append(ending(nil), (*e)[len(*e)-fleet.OutputEnd:]...)
	}
}

// of is the ending by the outcome, whose tail comes after all that was added.
func (e ending) of(out remote.Outcome) []byte {
	if len(out.Tail) > 0 {
		return out.Tail
	}
	return e
}

// print keeps text that did not come from a once-only command, such as facts.
// Only the first of several attempts is kept.
func (s *stepRecord) print(ctx context.Context, text string) error {
	if s.row.OutputTo > 0 {
		return nil
	}
	if _, err := (keep{ctx, s}).Output(0, []byte(text)); err != nil {
		return err
	}
	s.row.OutputSize = s.row.OutputTo
	return nil
}

// say adds lines to what is kept of the step. Of several attempts that speak at once,
// one is heard.
func (s *stepRecord) say(ctx context.Context, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := (keep{ctx, s}).Output(s.row.OutputTo, []byte(strings.Join(lines, "\n")+"\n")); err != nil {
		return err
	}
	s.row.OutputSize = s.row.OutputTo
	return nil
}

// forget lets the host drop what it kept of a command. Its result is in
// Postgres; when this fails, the host's own clean-up comes later.
func (s *stepRun) forget(ctx context.Context, step string) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if conn, release, err := s.connect(ctx); err == nil {
		_ = conn.Forget(ctx, s.key(step))
		release()
	}
}

// judge turns the outcome of a command that must exit with 0 into the step's
// ending.
func (s *stepRun) judge(what string, out remote.Outcome) error {
	return judged(what, out, s.last.of(out))
}

// judged is judge of a command whose output ended so.
func judged(what string, out remote.Outcome, last []byte) error {
	switch {
	case out.State == remote.Exited && out.ExitCode == 0:
		return nil
	case out.State == remote.Cancelled:
		return failed("%s was cancelled before it began", what)
	case out.State == remote.Exited && out.ExitCode > 128 && out.BootID != out.BootIDNow:
		return unknown("%s was ended by signal %d while somebody rebooted the host", what, out.ExitCode-128)
	case out.State == remote.Exited:
		reason := fmt.Sprintf("%s ended with exit code %d", what, out.ExitCode)
		if known := hostos.Diagnose(last); known != "" {
			reason += ": " + known
		}
		return &failure{state: fleet.StepFailed, reason: reason, detail: lastLines(last)}
	default:
		return unknown("nobody knows how %s ended: %s", what, out.Reason)
	}
}

func unknown(format string, args ...any) error {
	return &failure{state: fleet.StepIndeterminate, reason: printable(fmt.Sprintf(format, args...)) + "; look at the host before repeating it"}
}

// lastLines gives the end of an output for a reason: the last lines with anything
// to read in them, short, the latest last.
func lastLines(tail []byte) string {
	const most, longest = 3, 200
	var kept []string
	lines := strings.Split(strings.ToValidUTF8(string(tail), ""), "\n")
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(printable(line))
		if line == "" {
			continue
		}
		if len(line) > longest {
			line = strings.ToValidUTF8(line[len(line)-longest:], "")
		}
		if kept = append(kept, line); len(kept) == most {
			break
		}
	}
	if len(kept) == 0 {
		return ""
	}
	slices.Reverse(kept)
	return fleet.HostSaid + strings.Join(kept, " / ")
}
