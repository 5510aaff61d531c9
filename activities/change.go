package activities

import (
	"context"
	"fmt"
	"strings"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/remote"
	"commissaire/workflows"
)

// Check looks at the host before anything is changed: which boot it is on, and
// whether what is asked can be done there at all. Repeating it keeps the boot id
// that was written first, so that a host that has rebooted meanwhile is not taken
// for one that still has to.
func (a *Hosts) Check(ctx context.Context, in workflows.ChangeStep) (workflows.Checked, error) {
	s, err := a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		return s.contact(ctx, in.Unreachable, func(ctx context.Context, c *remote.Conn) error { return s.check(ctx, c, in) })
	})
	if err != nil {
		return workflows.Checked{}, err
	}
	// What stands, since an earlier attempt may have written it: setting nothing
	// changes nothing.
	id, err := s.store.SetHostRunBootID(ctx, in.OperationID, in.Address, "")
	if err != nil || in.Kind == fleet.KindRestart {
		return workflows.Checked{BootID: id}, verdict(ctx, err)
	}
	host, err := s.store.Host(ctx, in.Address)
	if err != nil {
		return workflows.Checked{}, verdict(ctx, err)
	}
	family, err := familyOf(host)
	if err != nil {
		return workflows.Checked{}, verdict(ctx, err)
	}
	return workflows.Checked{BootID: id, Stages: family.Stages()}, nil
}

func (s *stepRun) check(ctx context.Context, c *remote.Conn, in workflows.ChangeStep) error {
	var id, said string
	var err error
	if in.Kind == fleet.KindRestart {
		id, err = c.BootID(ctx)
	} else {
		id, said, err = s.checkChange(ctx, c, in)
	}
	if err != nil {
		return err
	}
	if in.Kind == fleet.KindRestart || in.Reboot != fleet.RebootNever {
		result, err := c.Read(ctx, hostos.CanReboot())
		if err != nil {
			return err
		}
		if result.ExitCode != 0 {
			return failed("the host cannot reboot itself: %s is missing", hostos.Reboot()[0])
		}
	}
	if _, err := s.store.SetHostRunBootID(ctx, in.OperationID, in.Address, id); err != nil {
		return err
	}
	return s.print(ctx, "boot id "+id+"\n"+said)
}

// checkChange refreshes the facts, which say how the host is upgraded.
func (s *stepRun) checkChange(ctx context.Context, c *remote.Conn, in workflows.ChangeStep) (id, said string, err error) {
	facts, err := s.facts(ctx, c)
	if err != nil {
		return "", "", err
	}
	family, err := hostos.FamilyOf(facts.OS, facts.OSTree, facts.Bootc, facts.PackageManager)
	if err != nil {
		return "", "", failed("%s", err)
	}
	if in.Kind == fleet.KindDeploy && !family.Stages() {
		_, err := family.Deploy(in.Version, hostos.Deployments{})
		return "", "", failed("%s", err)
	}
	if err := s.store.RecordFacts(ctx, in.OperationID, in.Address, facts); err != nil {
		return "", "", err
	}
	return facts.BootID, "upgrades by " + family.Name() + "\n", nil
}

// facts asks the host what it is.
func (s *stepRun) facts(ctx context.Context, c *remote.Conn) (fleet.Facts, error) {
	result, err := c.Script(ctx, hostos.FactsScript)
	if err != nil {
		return fleet.Facts{}, err
	}
	facts, err := hostos.ParseFacts(string(result.Stdout))
	if err != nil {
		return fleet.Facts{}, failed("%s", err)
	}
	return facts, nil
}

func familyOf(h fleet.Host) (hostos.Family, error) {
	return hostos.FamilyOf(h.OS, h.OSTree, h.Bootc, h.PackageManager)
}

// Stage prepares what the host will boot next, and writes down which deployment
// that is. The command is claimed on the host, so repeating this attaches to it.
func (a *Hosts) Stage(ctx context.Context, in workflows.ChangeStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		family, err := s.stagingFamily(ctx)
		if err != nil {
			return err
		}
		argv := family.Upgrade()
		if in.Kind == fleet.KindDeploy {
			// What runs does not change before the reboot, so that each attempt comes to
			// the same command.
			now, err := s.deployments(ctx, family)
			if err != nil {
				return err
			}
			if argv, err = family.Deploy(in.Version, now); err != nil {
				return failed("%s", err)
			}
		}
		out, err := s.once(ctx, in.Unreachable, remote.Command{Key: s.key(in.Step), Argv: argv})
		if err != nil {
			return err
		}
		if err := s.judge(family.Name(), out); err != nil {
			return err
		}
		now, err := s.deployments(ctx, family)
		if err != nil {
			return err
		}
		next := now.Booted
		if !now.Staged.IsZero() {
			next = now.Staged
		}
		if in.Kind == fleet.KindDeploy && !next.Is(in.Version) {
			return failed("the host would boot %s and not %s; somebody else stages on it, too", deploymentName(next), in.Version)
		}
		if _, err := s.store.SetHostRunTarget(ctx, in.OperationID, in.Address, next.Checksum); err != nil {
			return err
		}
		s.note = "boots " + deploymentName(next)
		if now.Staged.IsZero() {
			s.note = "runs " + deploymentName(next) + " already"
		}
		s.forget(ctx, in.Step)
		return nil
	}))
}

// stagingFamily tells how the host stages, by what it is now: the facts on record
// may be older than the system that runs.
func (s *stepRun) stagingFamily(ctx context.Context) (family hostos.Family, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		facts, err := s.facts(ctx, c)
		if err != nil {
			return err
		}
		if family, err = hostos.FamilyOf(facts.OS, facts.OSTree, facts.Bootc, facts.PackageManager); err != nil {
			return failed("%s", err)
		}
		return s.store.RecordFacts(ctx, s.in.OperationID, s.in.Address, facts)
	})
	if err == nil && !family.Stages() {
		return nil, failed("the host upgrades by %s and cannot stage anything", family.Name())
	}
	return family, err
}

// deployments reads what the host runs and what it will boot.
func (s *stepRun) deployments(ctx context.Context, family hostos.Family) (now hostos.Deployments, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		now, err = readDeployments(ctx, c, family)
		return err
	})
	return now, err
}

func readDeployments(ctx context.Context, c *remote.Conn, family hostos.Family) (hostos.Deployments, error) {
	result, err := c.Read(ctx, family.Deployments())
	if err != nil {
		return hostos.Deployments{}, err
	}
	now, err := family.ParseDeployments(result.ExitCode, string(result.Stdout))
	if err != nil {
		return now, failed("%s", err)
	}
	return now, nil
}

func deploymentName(d hostos.Deployment) string {
	return printable(strings.TrimSpace(d.Version + " " + d.Checksum))
}

// booted wants the host to run what was staged for it, if anything was.
func (s *stepRun) booted(ctx context.Context, c *remote.Conn) (said string, err error) {
	target, err := s.store.SetHostRunTarget(ctx, s.in.OperationID, s.in.Address, "")
	if err != nil || target == "" {
		return "", err
	}
	family, err := familyOf(s.host)
	if err != nil {
		return "", failed("%s", err)
	}
	now, err := readDeployments(ctx, c, family)
	if err != nil {
		return "", err
	}
	if now.Booted.Checksum != target {
		return "", failed("the host came back with deployment %s, not with the staged one (%s); it may have rolled back: '%s' on it says more",
			deploymentName(now.Booted), target, family.Name()+" status")
	}
	return "runs " + deploymentName(now.Booted) + "\n", nil
}

// Upgrade brings the packages of the running system to their newest versions. The
// command is claimed on the host, so repeating this attaches to it.
func (a *Hosts) Upgrade(ctx context.Context, in workflows.ChangeStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		family, err := familyOf(s.host)
		if err != nil {
			return failed("%s", err)
		}
		out, err := s.once(ctx, in.Unreachable, remote.Command{Key: s.key(in.Step), Argv: family.Upgrade()})
		if err != nil {
			return err
		}
		if err := s.judge(family.Name(), out); err != nil {
			return err
		}
		s.forget(ctx, in.Step)
		return nil
	}))
}

// VerifyPackages wants no update to be left that the upgrade should have brought.
// It only reads, so it may be repeated.
func (a *Hosts) VerifyPackages(ctx context.Context, in workflows.ChangeStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		family, err := familyOf(s.host)
		if err != nil {
			return failed("%s", err)
		}
		return s.contact(ctx, in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
			result, err := c.Read(ctx, family.Leftover())
			if err != nil {
				return err
			}
			left, err := family.ParseLeftover(result.ExitCode, string(result.Stdout))
			if err != nil {
				return &failure{state: fleet.StepFailed, reason: printable(err.Error()), detail: lastLines(append(result.Stdout, result.Stderr...))}
			}
			if len(left) > 0 {
				const most = 5
				return failed("the upgrade left %d packages behind: %s", len(left), strings.Join(left[:min(most, len(left))], ", "))
			}
			return s.print(ctx, "nothing is left to upgrade\n")
		})
	}))
}

// RebootNeeded asks the host whether it must be rebooted for the change to hold.
// It only reads; the first answer stands in the record, as the reason of a step
// that succeeded.
func (a *Hosts) RebootNeeded(ctx context.Context, in workflows.ChangeStep) (workflows.RebootVerdict, error) {
	const needed, notNeeded = "a reboot is needed", "no reboot is needed"
	s, err := a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		family, err := familyOf(s.host)
		if err != nil {
			return failed("%s", err)
		}
		return s.contact(ctx, in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
			result, err := c.Read(ctx, family.RebootNeeded())
			if err != nil {
				return err
			}
			is, why, err := family.ParseRebootNeeded(result.ExitCode, string(result.Stdout))
			if err != nil {
				return &failure{state: fleet.StepFailed, reason: printable(err.Error()), detail: lastLines(append(result.Stdout, result.Stderr...))}
			}
			s.note = notNeeded
			if is {
				s.note = needed
			}
			if why != "" {
				s.note += ": " + printable(why)
			}
			return s.print(ctx, fmt.Sprintln(s.note))
		})
	})
	return workflows.RebootVerdict{Needed: err == nil && strings.HasPrefix(s.row.Reason, needed)}, err
}
