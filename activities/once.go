package activities

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"commissaire/internal/fleet"
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
	var out remote.Outcome
	err := s.contact(ctx, unreachable, func(ctx context.Context, c *remote.Conn) (err error) {
		out, err = c.Once(ctx, command, s.row.OutputTo, s.keep(ctx))
		return err
	})
	if err != nil {
		return out, err
	}
	if out.OutputSize > s.row.OutputTo && len(out.Tail) > 0 {
		if s.row.OutputTo, err = s.store.AppendTail(ctx, s.row.ID, s.row.OutputTo, out.OutputSize-int64(len(out.Tail)), out.Tail); err != nil {
			return out, err
		}
	}
	s.row.OutputSize = out.OutputSize
	if out.State == remote.Exited {
		code := out.ExitCode
		s.exit = &code
	}
	return out, nil
}

// keep stores output as it comes. The store answers how far the output is
// kept: further than we are when another attempt of this step was quicker.
func (s *stepRun) keep(ctx context.Context) remote.Sink {
	return func(offset int64, data []byte) (int64, error) {
		next, err := s.store.AppendOutput(ctx, s.row.ID, offset, data)
		if err == nil {
			s.row.OutputTo = next
		}
		return next, err
	}
}

// print keeps text that did not come from a once-only command, such as facts.
// Only the first of several attempts is kept.
func (s *stepRun) print(ctx context.Context, text string) error {
	if s.row.OutputTo > 0 {
		return nil
	}
	if _, err := s.keep(ctx)(0, []byte(text)); err != nil {
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
	if conn, release, err := s.ssh.Get(ctx, s.to); err == nil {
		_ = conn.Forget(ctx, s.key(step))
		release()
	}
}

// judge turns the outcome of a command that must exit with 0 into the step's
// ending.
func judge(what string, out remote.Outcome) error {
	switch {
	case out.State == remote.Exited && out.ExitCode == 0:
		return nil
	case out.State == remote.Exited:
		return failed("%s ended with exit code %d%s", what, out.ExitCode, lastLines(out.Tail))
	default:
		return &failure{state: fleet.StepIndeterminate, reason: fmt.Sprintf("nobody knows how %s ended: %s; look at the host before repeating it", what, out.Reason)}
	}
}

// lastLines gives the end of an output for a reason: one line, printable, short.
func lastLines(tail []byte) string {
	const most = 200
	s := strings.TrimSpace(string(tail))
	if s == "" {
		return ""
	}
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) > most {
		s = s[len(s)-most:]
		for len(s) > 0 && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return ": " + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
}
