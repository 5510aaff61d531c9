package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"commissaire/internal/remote/remotetest"
)

// Finding is what a trial found. Anything but zero is a broken promise.
type Finding struct {
	Lost       int // an effect or output that should be there and is not
	Duplicated int // an effect or output that is there twice
	Stuck      int // an operation, host run, step or workflow that did not end
	Leaked     int // a slot that is still held, or that was one too many
	Notes      []string
}

func (f *Finding) add(count *int, format string, args ...any) {
	*count++
	f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
}

// times compares how often something happened with how often it had to.
func (f *Finding) times(got, want int, format string, args ...any) {
	count := &f.Lost
	if got > want {
		count = &f.Duplicated
	}
	if got != want {
		f.add(count, "%s %d times, not %d", fmt.Sprintf(format, args...), got, want)
	}
}

func (f *Finding) sum(other *Finding) {
	f.Lost += other.Lost
	f.Duplicated += other.Duplicated
	f.Stuck += other.Stuck
	f.Leaked += other.Leaked
}

// OK says whether every promise was held.
func (f *Finding) OK() bool { return f.Lost+f.Duplicated+f.Stuck+f.Leaked == 0 }

// verify compares what was ordered with what the hosts, the record and Temporal
// say.
func (l *lane) verify(ctx context.Context, o order, ids []string, before ledgers) (*Finding, error) {
	f := new(Finding)
	// First, since what is still under way may do harm until then.
	if err := l.verifyWorkflows(ctx, o, ids, f); err != nil {
		return nil, err
	}
	after, err := l.ledgers()
	if err != nil {
		return nil, err
	}
	verifyLedgers(o, before, after, f)
	verifyHosts(o, f)
	checks := []func(context.Context, order, []string, *Finding) error{
		l.verifyEndings, l.verifySteps, l.verifyOutput, l.verifyInventory, l.verifySlots,
	}
	if o.command() {
		checks = []func(context.Context, order, []string, *Finding) error{
			l.verifyCommand, l.verifyCommandHosts, l.verifyCommandOutput, l.verifyInventory,
		}
	}
	for _, check := range checks {
		if err := check(ctx, o, ids, f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// ledgers are what all hosts of a lane say happened to them.
type ledgers map[*remotetest.Host][]remotetest.Entry

func (l *lane) ledgers() (ledgers, error) {
	out := ledgers{}
	for _, h := range l.Fleet.Hosts() {
		entries, err := h.Ledger()
		if err != nil {
			return nil, err
		}
		out[h] = entries
	}
	return out, nil
}

// effect names what happened: the command with what it was told to do.
func effect(e remotetest.Entry) string {
	words := strings.Fields(e.Args)
	if i := slices.IndexFunc(words, func(w string) bool { return w[0] != '-' && !strings.ContainsAny(w, ":=") }); i >= 0 {
		return e.What + " " + words[i]
	}
	return strings.TrimSpace(e.What + " " + e.Args)
}

// verifyLedgers wants each host to have been done what was ordered and nothing
// else, and never more hosts away than the policy allows. Hosts that were not
// ordered to do anything must have been left alone.
func verifyLedgers(o order, before, after ledgers, f *Finding) {
	var away []remotetest.Entry
	for h, entries := range after {
		got := map[string]int{}
		for _, e := range entries[len(before[h]):] {
			got[effect(e)]++
			if what := effect(e); what == rebootEffect || what == bootEffect {
				away = append(away, e)
			}
		}
		for what, n := range o.wants[h].effects {
			f.times(got[what], n, "%s: %q happened", h.Name(), what)
			delete(got, what)
		}
		for what, n := range got {
			f.times(n, 0, "%s: %q happened", h.Name(), what)
		}
	}
	slices.SortFunc(away, func(a, b remotetest.Entry) int { return a.Time.Compare(b.Time) })
	var now int
	for _, e := range away {
		if now--; effect(e) == rebootEffect {
			now += 2
		}
		if now > budget {
			f.add(&f.Leaked, "%d hosts were away at %s, by their ledgers", now, e.Time.Format(time.TimeOnly))
		}
	}
}

const rebootEffect, bootEffect = "systemctl reboot", "boot"

// verifyHosts wants the hosts to have what was ordered.
func verifyHosts(o order, f *Finding) {
	for h, w := range o.wants {
		for name, version := range w.packages {
			if got := h.Package(name); got != version {
				f.add(&f.Lost, "%s: %s is %s, not %s", h.Name(), name, got, version)
			}
		}
		if w.booted != "" && h.Booted() != w.booted {
			f.add(&f.Lost, "%s: it runs %s, not %s", h.Name(), h.Booted(), w.booted)
		}
		if h.Staged() != "" {
			f.add(&f.Stuck, "%s: %s is still staged", h.Name(), h.Staged())
		}
	}
}
