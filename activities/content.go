package activities

import (
	"context"
	"errors"
	"slices"
	"strings"

	"commissaire/internal/containermgr"
	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/profile"
	"commissaire/internal/remote"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// reloadMark is noted on a host while its service manager has to read units again. No
// service has such a name.
const reloadMark = ".reload"

// content is what a profile puts on the host, by the facts on record.
func (a *Hosts) content(ctx context.Context, s *stepRun, name string) (profile.Content, error) {
	around, err := s.store.Surroundings(ctx, s.in.Address)
	if err != nil {
		return profile.Content{}, err
	}
	c, err := a.render(name, s.host, around)
	if err != nil {
		return c, failed("profile %s: %s", name, words(err))
	}
	return c, nil
}

func (a *Hosts) render(name string, host fleet.Host, around store.Surroundings) (profile.Content, error) {
	in := profile.Input{Host: host, Cluster: around.Cluster, Network: around.Network}
	var err error
	if a.Settings != nil {
		if in.Settings, err = a.Settings(); err != nil {
			return profile.Content{}, err
		}
	}
	if around.Manager.Name != "" {
		if in.Manager, err = managerOf(around.Manager); err != nil {
			return profile.Content{}, err
		}
	}
	return profile.Render(name, in)
}

// managerOf is a container manager as profiles know it. The token by which workers log
// in is none for hosts.
func managerOf(m fleet.ContainerManager) (*profile.Manager, error) {
	if !m.Type.HasNodes() {
		return &profile.Manager{Type: m.Type}, nil
	}
	o, err := options.Parse(m.Options)
	if err != nil {
		return nil, err
	}
	api, err := containermgr.APIOf(o)
	if err != nil {
		return nil, err
	}
	return &profile.Manager{
		Type: m.Type, ServerURL: api.URL, CA: api.CA, ClientCert: api.Cert, ClientKey: api.Key,
		Kubelet: o.Kubelet, BootstrapToken: o.KubeletToken, ClusterDNS: o.ClusterDNS,
	}, nil
}

// Install brings the packages of the profile that the host does not have. The command
// is claimed on the host, so repeating this attaches to it.
func (a *Hosts) Install(ctx context.Context, in workflows.ContentStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		family, err := s.detect(ctx)
		if err != nil {
			return err
		}
		c, err := a.content(ctx, s, in.Profile)
		if err != nil {
			return err
		}
		packages := slices.Concat(c.Packages...)
		switch {
		case len(packages) > 0:
		case family.Stages():
			s.note = "an image brings its own packages; nothing is installed"
			return nil
		default:
			s.note = "no packages are asked for"
			return nil
		}
		if err := s.install(ctx, family, c, packages); err != nil {
			return err
		}
		s.forget(ctx, in.Step)
		return nil
	}))
}

// detect looks what the host's packages come by. The facts on record do not have what
// else was found on a host that is not supported, which its operator wants to know.
func (s *stepRun) detect(ctx context.Context) (family hostos.Family, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		result, err := c.Script(ctx, hostos.FactsScript)
		if err != nil {
			return err
		}
		if family, err = hostos.Detect(string(result.Stdout)); err != nil {
			return failed("%s", err)
		}
		return nil
	})
	return family, err
}

func (s *stepRun) install(ctx context.Context, family hostos.Family, c profile.Content, packages []string) error {
	// What is missing is asked first and whether the command was started after that: so
	// whoever sees something that it has changed attaches to it.
	missing, err := s.missing(ctx, family, packages)
	if err != nil {
		return err
	}
	begun, err := s.begun(ctx)
	if err != nil {
		return err
	}
	var out remote.Outcome
	switch {
	case begun:
		s.note = "all packages are there"
		out, err = s.attach(ctx)
	case len(missing) == 0:
		s.note = "all packages are there already"
		return nil
	default:
		s.note = "installed " + strings.Join(missing, ", ")
		var argv []string
		if argv, err = installCommand(family, c, missing); err != nil {
			return failed("%s", words(err))
		}
		out, err = s.once(ctx, s.in.Unreachable, remote.Command{Key: s.key(s.in.Step), Argv: argv})
	}
	if err != nil {
		return err
	}
	if err := s.judge(family.Name(), out); err != nil {
		return err
	}
	if missing, err = s.missing(ctx, family, packages); err == nil && len(missing) > 0 {
		return failed("%s installed all that was asked for, but the host still lacks %s", family.Name(), strings.Join(missing, ", "))
	}
	return err
}

// installCommand is one command for all, since a step has one: what makes the packages
// known, then group after group as far as it is missing. It ends at the first failure.
func installCommand(family hostos.Family, c profile.Content, missing []string) ([]string, error) {
	commands := slices.Clone(c.Repositories)
	for _, group := range c.Packages {
		lacking := slices.DeleteFunc(slices.Clone(group), func(name string) bool { return !slices.Contains(missing, name) })
		if len(lacking) == 0 {
			continue
		}
		argv, err := family.Install(lacking)
		if err != nil {
			return nil, err
		}
		commands = append(commands, argv)
	}
	if len(commands) == 1 {
		return commands[0], nil
	}
	quoted := make([]string, len(commands))
	for i, argv := range commands {
		quoted[i] = remote.Quote(argv...)
	}
	return []string{"sh", "-c", strings.Join(quoted, " &&\n")}, nil
}

// missing asks which of the packages the host does not have.
func (s *stepRun) missing(ctx context.Context, family hostos.Family, packages []string) (missing []string, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		result, err := c.Read(ctx, family.Installed(packages))
		if err != nil {
			return err
		}
		if missing, err = hostos.ParseInstalled(packages, result.ExitCode, string(result.Stdout)); err != nil {
			return failed("%s", err)
		}
		return nil
	})
	return missing, err
}

// begun says whether the step's command was ever claimed on the host.
func (s *stepRun) begun(ctx context.Context) (begun bool, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		status, err := c.Status(ctx, s.key(s.in.Step))
		begun = status.State != remote.Absent
		return err
	})
	return begun, err
}

// attach follows the step's command, which was claimed by another attempt.
func (s *stepRun) attach(ctx context.Context) (out remote.Outcome, err error) {
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) (err error) {
		if err := s.fence(ctx); err != nil {
			return err
		}
		out, err = c.Attach(ctx, s.key(s.in.Step), remote.Limits{Head: fleet.OutputHead}, s.row.OutputTo, keep{ctx, s.stepRecord})
		return err
	})
	if err != nil {
		return out, err
	}
	return out, s.keepEnd(ctx, out)
}

// refusal ends the step by what the host says of a file; other errors are as they are.
func refusal(err error, format string, args ...any) error {
	var f *remote.FileError
	if !errors.As(err, &f) {
		return err
	}
	end := failed(format, args...).(*failure)
	end.detail = lastLines([]byte(f.Said))
	return end
}
