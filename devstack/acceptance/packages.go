package acceptance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/nspawntest"
)

// tool is the package that is upgraded. The script of its version 3.0 writes a line
// to toolLedger each time that it runs, and does not end before releaseFile is there.
const (
	tool        = "tool"
	toolLedger  = "/var/lib/tool.ledger"
	releaseFile = "/run/release"
)

// system is a package manager as the machines that have it see it. The scripts are
// of POSIX sh; $1 is a package.
type system struct {
	runtime string // the package that a bootstrap brings
	process string // of the package manager, as pgrep -x knows it
	version string // prints the version that is installed
	begun   string // prints how many upgrades the package manager has begun
	check   string // fails, or prints something, where the packages are not consistent
	all     string // prints all packages with their versions
	// setUp prepares the repository and lets machines have version 1.0 of the tool.
	setUp func(context.Context, []*nspawntest.Machine) error
	// publish adds a version of the tool, with a script as above when it is slow.
	publish func(ctx context.Context, version string, slow bool) error
}

// sh runs a script as root on a machine, past SSH.
func sh(ctx context.Context, m *nspawntest.Machine, script string, args ...string) (string, error) {
	out, err := m.Run(ctx, append([]string{"sh", "-ec", script, "acceptance"}, args...)...)
	return strings.TrimSpace(out), err
}

// each does something for all machines at once.
func each(machines []*nspawntest.Machine, do func(*nspawntest.Machine) error) error {
	errs := make([]error, len(machines))
	var all sync.WaitGroup
	for i, m := range machines {
		all.Go(func() {
			if err := do(m); err != nil {
				errs[i] = fmt.Errorf("%s: %w", m.Name(), err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// packages is what happens to machines with a package manager.
func (r *run) packages(s system) func(context.Context, group) error {
	return func(ctx context.Context, g group) error {
		if err := s.setUp(ctx, g.machines); err != nil {
			return err
		}
		bootstrapped := func(ctx context.Context, m *nspawntest.Machine) (string, error) {
			version, err := sh(ctx, m, s.version, s.runtime)
			return s.runtime + " " + version, err
		}
		if err := r.bootstrapTwice(ctx, g, bootstrapped, s.all); err != nil {
			return err
		}
		if err := r.upgrade(ctx, g, s); err != nil {
			return err
		}
		if err := r.upgradeUnderKill(ctx, g, s); err != nil {
			return err
		}
		return r.restart(ctx, g)
	}
}

// upgrade brings version 2.0 of the tool, for which no machine needs a reboot.
func (r *run) upgrade(ctx context.Context, g group, s system) error {
	if err := s.publish(ctx, "2.0", false); err != nil {
		return err
	}
	before, err := bootIDs(g)
	if err != nil {
		return err
	}
	if err := r.carryOut(ctx, "upgrade", g.cluster, nil); err != nil {
		return err
	}
	return each(g.machines, func(m *nspawntest.Machine) error {
		if now, err := m.BootID(); err != nil || now != before[m] {
			return fmt.Errorf("boot id %s became %s by an upgrade that needs no reboot (%v)", before[m], now, err)
		}
		return r.upgraded(ctx, m, s, "2.0", "")
	})
}

// upgraded looks whether a machine has this version and nothing is half done.
func (r *run) upgraded(ctx context.Context, m *nspawntest.Machine, s system, want, also string) error {
	version, err := sh(ctx, m, s.version, tool)
	if err != nil {
		return err
	}
	if version != want {
		return fmt.Errorf("it has %s %s, not %s", tool, version, want)
	}
	problems, err := sh(ctx, m, s.check)
	if err != nil || problems != "" {
		return fmt.Errorf("the packages are not consistent: %s (%v)", problems, err)
	}
	r.count(&r.result.Upgrades)
	r.saw(m, "upgraded to %s %s%s; consistent by '%s'", tool, version, also, s.check)
	return nil
}

// upgradeUnderKill brings version 3.0, whose script waits, and kills the worker
// while it does, on all machines of the group at once.
func (r *run) upgradeUnderKill(ctx context.Context, g group, s system) error {
	if err := s.publish(ctx, "3.0", true); err != nil {
		return err
	}
	before := map[*nspawntest.Machine]int{}
	for _, m := range g.machines {
		n, err := number(ctx, m, s.begun)
		if err != nil {
			return err
		}
		before[m] = n
	}
	op, err := r.order(ctx, "upgrade", g.cluster, nil)
	if err != nil {
		return err
	}
	running := map[*nspawntest.Machine]string{}
	for _, m := range g.machines {
		err := r.until(ctx, "the script of "+tool+" 3.0 to run on "+m.Name(), func() bool {
			_, err := m.Run(ctx, "test", "-e", toolLedger)
			return err == nil
		})
		if err != nil {
			return err
		}
		if running[m], err = sh(ctx, m, "pgrep -ox "+s.process); err != nil {
			return fmt.Errorf("%s: %s does not run: %w", m.Name(), s.process, err)
		}
	}
	if err := r.change(ctx, g, s, running); err != nil {
		return err
	}
	err = each(g.machines, func(m *nspawntest.Machine) error {
		_, err := m.Run(ctx, "touch", releaseFile)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.end(ctx, op); err != nil {
		return fmt.Errorf("upgrade under a killed worker: %w", err)
	}
	return each(g.machines, func(m *nspawntest.Machine) error {
		after, err := number(ctx, m, s.begun)
		if err != nil {
			return err
		}
		scripts, err := number(ctx, m, "wc -l <"+toolLedger)
		if err != nil {
			return err
		}
		if after-before[m] != 1 || scripts != 1 {
			return fmt.Errorf("%s began %d times and the script of %s ran %d times, not once", s.process, after-before[m], tool, scripts)
		}
		return r.upgraded(ctx, m, s, "3.0", fmt.Sprintf(" under the killed worker; %s began %d time, the package's script ran %d time", s.process, after-before[m], scripts))
	})
}

// change kills the worker while the package manager runs on all machines of a group,
// and starts another. It returns when that one has a connection to each of them.
// One group at a time: a kill must not hit the worker that another one has just got.
func (r *run) change(ctx context.Context, g group, s system, running map[*nspawntest.Machine]string) error {
	r.kills.Lock()
	defer r.kills.Unlock()
	killed := r.killWorker()
	err := each(g.machines, func(m *nspawntest.Machine) error {
		err := r.until(ctx, "the connection of the killed worker to end", func() bool { return connections(ctx, m) == 0 })
		if err != nil {
			return err
		}
		now, err := sh(ctx, m, "pgrep -ox "+s.process)
		if err != nil || now != running[m] {
			return fmt.Errorf("%s ran as process %s and now as %q (%v)", s.process, running[m], now, err)
		}
		r.saw(m, "worker %d killed by SIGKILL: no connection is left, %s runs on as process %s", killed, s.process, now)
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.startWorker(ctx); err != nil {
		return err
	}
	return each(g.machines, func(m *nspawntest.Machine) error {
		err := r.until(ctx, "another worker to follow", func() bool { return connections(ctx, m) > 0 })
		if err != nil {
			return err
		}
		now, err := sh(ctx, m, "pgrep -x "+s.process)
		if err != nil || !strings.HasPrefix(now, running[m]) {
			return fmt.Errorf("%s ran as process %s and now as %q (%v)", s.process, running[m], now, err)
		}
		r.saw(m, "another worker is connected, %s still runs as process %s", s.process, running[m])
		return nil
	})
}

// connections are those of SSH that a machine has, -1 when it cannot be asked.
func connections(ctx context.Context, m *nspawntest.Machine) int {
	n, err := number(ctx, m, "ss -Htn state established '( sport = :22 )' | wc -l")
	if err != nil {
		return -1
	}
	return n
}

// number runs a script that prints one.
func number(ctx context.Context, m *nspawntest.Machine, script string) (int, error) {
	out, err := sh(ctx, m, script)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", m.Name(), err)
	}
	return strconv.Atoi(out)
}

func (r *run) until(ctx context.Context, what string, check func() bool) error {
	return harness.Until(ctx, limit, what, func() (bool, error) { return check(), nil })
}
