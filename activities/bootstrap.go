package activities

import (
	"context"

	"commissaire/internal/hostos"
	"commissaire/internal/remote"
	"commissaire/workflows"
)

// Investigate reaches the host, pins its host key at the first contact, and
// stores its facts. Repeating it reads the same things again; the pinned key is
// the first one seen, and a different one stops the host.
func (a *Hosts) Investigate(ctx context.Context, in workflows.HostStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in, func(ctx context.Context, s *stepRun) error {
		return s.contact(ctx, in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
			if s.to.HostKey == "" {
				pinned, err := s.store.PinFirstHostKey(ctx, in.OperationID, in.Address, c.HostKey())
				if err != nil {
					return err
				}
				s.to.HostKey = pinned
				if pinned != c.HostKey() {
					return failed("the host presented another host key than the one pinned a moment ago; nothing was run on it")
				}
			}
			result, err := c.Script(ctx, hostos.FactsScript)
			if err != nil {
				return err
			}
			if err := s.print(ctx, string(result.Stdout)+string(result.Stderr)); err != nil {
				return err
			}
			facts, err := hostos.ParseFacts(string(result.Stdout))
			if err != nil {
				return failed("%s", err)
			}
			return s.store.RecordFacts(ctx, in.OperationID, in.Address, facts)
		})
	}))
}

// Prepare proves that once-only commands work on the host: its state folder is
// writable, a detached command runs, and its output and exit code come back.
// The command is claimed on the host, so repeating this attaches to it.
func (a *Hosts) Prepare(ctx context.Context, in workflows.HostStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in, func(ctx context.Context, s *stepRun) error {
		out, err := s.once(ctx, in.Unreachable, remote.Command{Key: s.key(in.Step), Argv: hostos.Identify()})
		if err != nil {
			return err
		}
		if err := s.judge("uname", out); err != nil {
			return err
		}
		s.forget(ctx, in.Step)
		return nil
	}))
}
