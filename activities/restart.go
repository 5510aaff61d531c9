package activities

import (
	"context"
	"errors"
	"time"

	"commissaire/internal/hostos"
	"commissaire/internal/remote"
	"commissaire/workflows"
)

// Reboot starts the reboot of the boot it was told, once: the host claims the
// command and runs it only while it is still on that boot. Repeating it finds
// the claim, or another boot id, and starts nothing. A connection that breaks
// is expected here: the host is going down.
func (a *Hosts) Reboot(ctx context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		if in.BootID == "" {
			return failed("the boot to leave is not known, so no reboot could be proven")
		}
		out, err := s.once(ctx, untilDeadline(ctx), remote.Command{Key: s.key(in.Step), Argv: hostos.Reboot(), IfBootID: in.BootID})
		switch {
		case err != nil:
			return err
		case out.State == remote.Exited && out.ExitCode < 128 && out.BootIDNow == in.BootID:
			return s.judge("the reboot command", out)
		default:
			// The boot id has changed, or the command went down with the host (also
			// by a signal): only the next step can tell, by the boot id.
			return nil
		}
	}))
}

// AwaitBoot waits until the host answers with another boot id. It only reads,
// so it may be repeated. The old boot id is no failure: a slow shutdown still
// answers. A changed host key is one, before anything is sent to the host.
func (a *Hosts) AwaitBoot(ctx context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		now, last := "", "it was not reached yet"
		for {
			conn, release, err := s.connect(ctx)
			if err == nil {
				now, err = conn.BootID(ctx)
				release()
			}
			var broken *remote.Error
			switch {
			case err == nil && now != in.BootID:
				return s.print(ctx, "boot id "+now+"\n")
			case err == nil:
				last = "it still answers with the old boot id"
			case errors.As(err, &broken) && broken.Kind == remote.HostKeyChanged:
				return failed("%s", broken.Error())
			case ctx.Err() == nil:
				last = err.Error()
			}
			select {
			case <-ctx.Done():
				if errors.Is(context.Cause(ctx), errDeadline) {
					return gaveUp("the host did not come back with a new boot id in time: %s", last)
				}
				return ctx.Err()
			case <-time.After(bootPoll):
			}
		}
	}))
}

// bootPoll is how often a host that is down is asked whether it is back. No
// event could tell: the host only listens.
const bootPoll = 500 * time.Millisecond

// Verify waits until the system says that it is up, refreshes the host's facts,
// and wants what was staged to run. It only reads, so it may be repeated. A
// degraded system (some unit failed) is up; its record says so.
func (a *Hosts) Verify(ctx context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		err := s.contact(ctx, in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
			state, err := settled(ctx, c)
			if err != nil {
				return err
			}
			facts, err := s.facts(ctx, c)
			if err != nil {
				return err
			}
			if in.Rebooted && facts.BootID == in.BootID {
				return failed("the host answers with the boot id it had before the reboot")
			}
			said := "system " + state + "\nboot id " + facts.BootID + "\n"
			if in.Rebooted {
				runs, err := s.booted(ctx, c)
				if err != nil {
					return err
				}
				said += runs
			}
			if err := s.print(ctx, said); err != nil {
				return err
			}
			if !hostos.SystemUp(state) {
				return failed("the host booted, but its system is %s: 'systemctl is-system-running' on it says more", state)
			}
			return s.store.RecordFacts(ctx, in.OperationID, in.Address, facts)
		})
		if err == nil && in.Rebooted {
			s.forget(ctx, workflows.StepReboot)
		}
		return err
	}))
}

// Settle looks once more at a host that has been up for a while: it must still
// be up, and in the boot that was verified. It only reads, so it may be repeated.
func (a *Hosts) Settle(ctx context.Context, in workflows.RebootStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		return s.contact(ctx, in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
			state, err := settled(ctx, c)
			if err != nil {
				return err
			}
			now, err := c.BootID(ctx)
			if err != nil {
				return err
			}
			if err := s.print(ctx, "system "+state+"\nboot id "+now+"\n"); err != nil {
				return err
			}
			switch {
			case now != s.host.BootID:
				return failed("the host rebooted again while it was watched")
			case !hostos.SystemUp(state):
				return failed("the host did not stay up: its system is %s", state)
			}
			return nil
		})
	}))
}

// settled gives the state of the service manager once the boot has finished.
// A system before 240 does not wait by itself, so it is asked again.
func settled(ctx context.Context, c *remote.Conn) (string, error) {
	for {
		up, err := c.Read(ctx, hostos.SystemState())
		if err != nil {
			return "", err
		}
		state := hostos.ParseSystemState(string(up.Stdout))
		if !hostos.SystemBooting(state) {
			return state, nil
		}
		select {
		case <-ctx.Done():
			return state, ctx.Err()
		case <-time.After(bootPoll):
		}
	}
}

// untilDeadline lets a host be out of reach for as long as the step may take.
func untilDeadline(ctx context.Context) time.Duration {
	end, _ := patience(ctx)
	return time.Until(end)
}
