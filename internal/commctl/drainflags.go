package commctl

import (
	"strconv"

	"commissaire/internal/fleet"
)

// drainOptions adds the flags that say how nodes are emptied. Any of them, also one that
// is given what it is without, stands for a whole drain.
func (p *policyFlags) drainOptions() {
	add := func(name, usage string, set func(text string) error) {
		p.flags.Func(name, usage, func(text string) error {
			p.policy.Drain = &p.drain
			return set(text)
		})
	}
	flag := func(name, usage string, set func(bool)) {
		p.flags.BoolFunc(name, usage, func(text string) error {
			p.policy.Drain = &p.drain
			given, err := strconv.ParseBool(text)
			set(given)
			return err
		})
	}
	duration := func(to *fleet.Duration) func(string) error {
		return func(text string) (err error) {
			*to, err = fleet.ParseDuration(text)
			return err
		}
	}
	flag("no-drain", "leave the nodes of hosts alone: no cordon, no eviction", func(given bool) { p.drain.Disabled = given })
	add("drain-timeout", "how long to wait for what is in the way of a drain, and then for the pods to go: `TIME`", duration(&p.drain.Timeout))
	add("drain-grace-period", "how long pods may take to end, instead of their own: `TIME`", durationTo(&p.drain.GracePeriod))
	flag("drain-force", "evict pods that no controller would make anew", func(given bool) { p.drain.Force = given })
	flag("drain-delete-emptydir-data", "evict pods with emptyDir volumes, whose content is lost", func(given bool) { p.drain.DeleteEmptyDirData = given })
	flag("drain-ignore-daemon-sets", "leave pods of daemon sets where they are (default true)", func(given bool) { p.drain.IgnoreDaemonSets = &given })
	add("drain-skip", "leave pods with these labels where they are: `SELECTOR`", func(text string) error {
		p.drain.Skip = text
		return checkSelector(text)
	})
	add("drain-skip-wait-for-delete-timeout", "do not wait for pods that should have been gone for longer: `TIME`", duration(&p.drain.SkipWaitForDelete))
}
