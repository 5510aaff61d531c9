package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/profile"
	"commissaire/internal/remote"
	"commissaire/workflows"
)

const (
	// startLimit bounds how long a service that was started may take to run.
	startLimit = 30 * time.Second
	// startHolds is how long it must run to count: one that cannot work ends sooner.
	startHolds = time.Second
	startLook  = 250 * time.Millisecond
)

// Services has the service manager read changed units, restarts what a changed file
// asks for, and lets the services of the profile run now and with the system. Each start
// is claimed on the host and a note there goes only after it, so repeating this neither
// forgets a restart nor makes a second one.
func (a *Hosts) Services(ctx context.Context, in workflows.ContentStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		c, err := a.content(ctx, s, in.Profile)
		if err != nil {
			return err
		}
		marks, err := s.marks(ctx)
		if err != nil {
			return err
		}
		if slices.Contains(marks, reloadMark) {
			if err := s.reload(ctx); err != nil {
				return err
			}
		}
		changed := false
		for _, name := range servicesOf(c) {
			did, err := s.serve(ctx, service{name: name, runs: slices.Contains(c.Services, name), marked: slices.Contains(marks, name)})
			if err != nil {
				return err
			}
			changed = changed || did
		}
		switch {
		case len(c.Services) == 0:
			s.note = "the profile has no services for this host"
		case changed:
			s.note = strings.Join(c.Services, ", ") + ": enabled and running"
		default:
			s.note = strings.Join(c.Services, ", ") + ": enabled and running as before"
		}
		return s.say(ctx, []string{s.note})
	}))
}

// servicesOf are all that the content names: those that only read files, then those
// that run.
func servicesOf(c profile.Content) (names []string) {
	for _, f := range c.Files {
		for _, name := range f.Restarts {
			if !slices.Contains(names, name) && !slices.Contains(c.Services, name) {
				names = append(names, name)
			}
		}
	}
	return append(names, c.Services...)
}

// service is one to look after.
type service struct {
	name   string
	runs   bool // now and with the system
	marked bool // a file that it reads has changed
}

// serve brings one service to where it should be, and says whether it was not there.
func (s *stepRun) serve(ctx context.Context, v service) (changed bool, err error) {
	if !v.runs && !v.marked {
		return false, nil
	}
	now, err := s.serviceState(ctx, v.name)
	if err != nil {
		return false, err
	}
	if !now.Exists {
		return false, failed("service %s cannot run on the host: its unit is %s", v.name, now.State)
	}
	if v.runs && !now.Enabled {
		if err := s.command(ctx, "enable service "+v.name, hostos.EnableService(v.name)); err != nil {
			return false, err
		}
		if err := s.say(ctx, []string{v.name + ": enabled"}); err != nil {
			return false, err
		}
		changed = true
	}
	if !v.marked && now.Active {
		return changed, nil
	}
	return true, s.restart(ctx, v, now)
}

// restart starts a service anew, and takes the note back that asked for it.
func (s *stepRun) restart(ctx context.Context, v service, before hostos.Service) error {
	key := s.key(s.in.Step)
	key.Step += "/" + v.name
	out, err := s.onceAside(ctx, remote.Command{Key: key, Argv: hostos.RestartService(v.name)})
	if err != nil {
		return err
	}
	bad := s.judge("restart service "+v.name, out)
	if bad == nil {
		bad, err = s.awaitService(ctx, v)
	}
	if err == nil && bad != nil {
		err = s.withLog(ctx, v.name, bad)
	}
	if err != nil {
		return err
	}
	if v.marked {
		if err := s.unmark(ctx, v.name); err != nil {
			return err
		}
	}
	did := v.name + ": started"
	if before.Active {
		did = v.name + ": restarted, since a file that it reads has changed"
	}
	return s.say(ctx, []string{did})
}

// awaitService wants a service to run and to go on with it; bad says that it does not.
// One that need not run must not have failed.
func (s *stepRun) awaitService(ctx context.Context, v service) (bad, err error) {
	var since time.Time // it runs
	for end := time.Now().Add(startLimit); ; {
		now, err := s.serviceState(ctx, v.name)
		switch {
		case err != nil:
			return nil, err
		case now.Failed, time.Now().After(end):
			return failed("service %s does not run: it is %s", v.name, now.State), nil
		case !v.runs:
			return nil, nil
		case !now.Active:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > startHolds:
			return nil, nil
		}
		if rest(ctx, startLook); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// withLog adds the end of a service's journal to the step's output, and to its reason
// what the service itself said last: behind that, its starts are told again and again.
func (s *stepRun) withLog(ctx context.Context, name string, bad error) error {
	f, ok := bad.(*failure)
	if !ok {
		return bad
	}
	err := s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		result, err := c.Read(ctx, hostos.ServiceLog(name))
		if err != nil || result.ExitCode != 0 {
			return err // without a journal the reason must do
		}
		own, err := c.Read(ctx, hostos.ServiceSaid(name))
		if err != nil {
			return err
		}
		f.detail = cmp.Or(lastLines(own.Stdout), lastLines(result.Stdout))
		return s.say(ctx, []string{"journal of " + name + ":", strings.TrimRight(string(result.Stdout), "\n")})
	})
	if err != nil {
		return err
	}
	return f
}

func (s *stepRun) serviceState(ctx context.Context, name string) (state hostos.Service, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		result, err := c.Read(ctx, hostos.ServiceState(name))
		if err != nil {
			return err
		}
		if state, err = hostos.ParseServiceState(result.ExitCode, string(result.Stdout)); err != nil {
			return failed("service %s: %s", name, err)
		}
		return nil
	})
	return state, err
}

func (s *stepRun) marks(ctx context.Context) (marks []string, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) (err error) {
		marks, err = c.Marks(ctx)
		return refusal(err, "the host does not say what is to be restarted")
	})
	return marks, err
}

func (s *stepRun) unmark(ctx context.Context, mark string) error {
	return s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		return refusal(c.RemoveMark(ctx, mark), "the host keeps its note to restart %s", mark)
	})
}

func (s *stepRun) reload(ctx context.Context) error {
	if err := s.command(ctx, "read units again", hostos.ReloadServices()); err != nil {
		return err
	}
	return s.unmark(ctx, reloadMark)
}

// command runs a command that may be repeated and must exit with 0.
func (s *stepRun) command(ctx context.Context, what string, argv []string) error {
	return s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		if err := s.fence(ctx); err != nil {
			return err
		}
		result, err := c.Read(ctx, argv)
		if err != nil || result.ExitCode == 0 {
			return err
		}
		end := failed("%s: exit code %d", what, result.ExitCode).(*failure)
		end.detail = lastLines(append(result.Stdout, result.Stderr...))
		return end
	})
}

// onceAside runs a command on the host exactly once, as once does, for a step that has
// more than one. What it prints is for a reason only.
func (s *stepRun) onceAside(ctx context.Context, command remote.Command) (out remote.Outcome, err error) {
	command.Limits.Head = fleet.OutputEnd
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) (err error) {
		if err := s.fence(ctx); err != nil {
			return err
		}
		var said memory
		out, err = c.Once(ctx, command, 0, &said)
		s.last = ending(said)
		if err == nil {
			_ = c.Forget(ctx, command.Key) // else the host's own clean-up comes later
		}
		return err
	})
	return out, err
}

// memory takes what a command prints.
type memory []byte

func (m *memory) Output(offset int64, data []byte) (int64, error) {
	if offset != int64(len(*m)) {
		return 0, fmt.Errorf("output at %d follows %d", offset, len(*m))
	}
	*m = append(*m, data...)
	return int64(len(*m)), nil
}

func (*memory) Alive() {}
