package acceptance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"commissaire/internal/remote/nspawntest"
)

// settings prints what a bootstrap without changes must not touch: each file of
// /etc with its inode, mode, owner and time, and what the services run as, those included
// that the boot starts last.
const settings = `systemctl is-system-running --wait >/dev/null || :
find /etc -type f ! -path /etc/mtab -printf '%p %i %m %u:%g %T@\n' | sort
systemctl show -p Id -p MainPID -p ActiveEnterTimestampMonotonic '*.service'`

// bootstrapTwice adds the machines and bootstraps them once more, by which nothing
// may change. look says what the first one brought, and packages prints which
// packages there are.
func (r *run) bootstrapTwice(ctx context.Context, g group, look func(context.Context, *nspawntest.Machine) (string, error), packages string) error {
	if err := r.register(ctx, g); err != nil {
		return err
	}
	before := map[*nspawntest.Machine]string{}
	for _, m := range g.machines {
		brought, err := look(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name(), err)
		}
		system, err := sh(ctx, m, `. /etc/os-release; echo "$ID $VERSION_ID"`)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name(), err)
		}
		if before[m], err = sh(ctx, m, settings+"\n"+packages); err != nil {
			return fmt.Errorf("%s: %w", m.Name(), err)
		}
		r.count(&r.result.Hosts)
		r.saw(m, "bootstrapped: %s, %s", system, brought)
	}
	steps, err := r.bootstrapAgain(ctx, g)
	if err != nil {
		return err
	}
	for _, m := range g.machines {
		after, err := sh(ctx, m, settings+"\n"+packages)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name(), err)
		}
		if changed := differences(before[m], after); len(changed) > 0 {
			return fmt.Errorf("%s: the second bootstrap changed %q", m.Name(), changed)
		}
		r.saw(m, "bootstrapped again: no file of /etc, package or service is another one (the product: %s)", reasons(steps[m.Name()], "install", "configure", "services"))
	}
	return nil
}

// restart reboots all machines of a group.
func (r *run) restart(ctx context.Context, g group) error {
	before, err := bootIDs(g)
	if err != nil {
		return err
	}
	if err := r.carryOut(ctx, "restart", g.cluster, nil); err != nil {
		return err
	}
	return each(g.machines, func(m *nspawntest.Machine) error { return r.rebooted(m, before[m], "restarted") })
}

// rebooted looks whether a machine has booted since it had this boot id.
func (r *run) rebooted(m *nspawntest.Machine, before, why string) error {
	now, err := m.BootID()
	if err != nil {
		return err
	}
	if now == before {
		return fmt.Errorf("it has boot id %s as before", now)
	}
	r.count(&r.result.Reboots)
	r.saw(m, "%s: boot id %s became %s", why, before, now)
	return nil
}

func bootIDs(g group) (map[*nspawntest.Machine]string, error) {
	ids := map[*nspawntest.Machine]string{}
	for _, m := range g.machines {
		id, err := m.BootID()
		if err != nil {
			return nil, err
		}
		ids[m] = id
	}
	return ids, nil
}

// differences are the lines that only one of two texts has.
func differences(before, after string) (only []string) {
	count := map[string]int{}
	for line := range strings.Lines(before) {
		count[strings.TrimSpace(line)]++
	}
	for line := range strings.Lines(after) {
		count[strings.TrimSpace(line)]--
	}
	for line, n := range count {
		if n != 0 {
			only = append(only, line)
		}
	}
	slices.Sort(only)
	return only
}
