package commctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"commissaire/internal/fleet"
)

// policyFlags are the flags that say how an operation rolls over its hosts.
type policyFlags struct {
	app    *App
	flags  *pflag.FlagSet
	file   string
	policy fleet.Policy // what the flags set
	canary fleet.Canary
	drain  fleet.Drain
}

// policyOptions gives a command the flags of a policy.
func (a *App) policyOptions(cmd *cobra.Command) *policyFlags {
	flags := cmd.Flags()
	p := &policyFlags{app: a, flags: flags}
	add := func(name, usage string, set func(text string) error) {
		flags.Func(name, usage, set)
	}
	add("max-unavailable", "how many hosts may be away at once: `N` or N%", amountTo(&p.policy.MaxUnavailable))
	add("max-failures", "how many hosts may fail before no other is started: `N` or N%", amountTo(&p.policy.MaxFailures))
	add("canary", "so many of the first hosts go first: `N` or N%", amountTo(&p.canary.Hosts))
	add("canary-selector", "hosts with these labels go first: `SELECTOR`", func(text string) error {
		p.canary.Selector = text
		return checkSelector(text)
	})
	add("canary-then", "after the canaries: `WHAT` is continue, pause or approve", func(text string) error {
		p.canary.Then = fleet.CanaryThen(text)
		return nil // Check knows
	})
	add("canary-soak", "how long to watch after the last canary: `TIME` such as 10m", func(text string) (err error) {
		p.canary.Soak, err = fleet.ParseDuration(text)
		return err
	})
	flags.VarPF(&textFlag{set: func(text string) error {
		p.policy.Selector = &text
		return checkSelector(text)
	}}, "selector", "l", "only hosts with these labels: `SELECTOR` such as env=prod,tier!=db")
	add("order", "which hosts go first: `ORDER` is joined, name, random, random:SEED or label:NAME", func(text string) (err error) {
		p.policy.Order, err = parseOrder(text)
		return err
	})
	add("min-ready", "how long a host must stay up before the next begins: `TIME`", durationTo(&p.policy.MinReady))
	add("host-timeout", "how long one host may take: `TIME`", durationTo(&p.policy.HostTimeout))
	add("step-timeout", "how long one step may take: `TIME`", durationTo(&p.policy.StepTimeout))
	add("reboot", "of an upgrade or deploy: `WHEN` is never, if-needed or always", func(text string) error {
		p.policy.Reboot = pointer(fleet.RebootPolicy(text))
		return nil // Check knows
	})
	add("window", "when hosts may be started: `WINDOW` such as 'sat,sun 22:00-04:00 Europe/Berlin'; days and time zone may be left out", func(text string) (err error) {
		p.policy.Window, err = parseWindow(text)
		return err
	})
	p.drainOptions()
	flags.StringVar(&p.file, "policy", "", "`FILE` with a policy in JSON, '-' for standard input; the other flags win")
	for name, words := range map[string][]string{
		"canary-then": {"continue", "pause", "approve"},
		"order":       {"joined", "name", "random", "label:"},
		"reboot":      {"never", "if-needed", "always"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	return p
}

// given says whether any of the flags was given.
func (p *policyFlags) given() bool {
	return p.file != "" || p.policy != (fleet.Policy{}) || p.canary != (fleet.Canary{})
}

// read gives what the flags and the file set.
func (p *policyFlags) read(ctx context.Context) (fleet.Policy, error) {
	var base fleet.Policy
	if p.file != "" {
		text, err := p.app.readFile(ctx, p.file)
		if err != nil {
			return base, fmt.Errorf("--policy: %w", err)
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&base); err != nil {
			return base, fmt.Errorf("--policy: %w", err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return base, errors.New("--policy: something follows the policy")
		}
	}
	set := p.policy
	if p.drain.Disabled && p.drain != (fleet.Drain{Disabled: true}) {
		return base, errors.New("--no-drain leaves nodes alone, so no other --drain flag goes with it")
	}
	if p.canary != (fleet.Canary{}) {
		if (p.canary.Hosts == nil) == (p.canary.Selector == "") {
			return base, errors.New("say either --canary or --canary-selector")
		}
		set.Canary = &p.canary
	}
	policy := set.Over(base)
	var wrong *fleet.Error
	if err := policy.Check("policy"); errors.As(err, &wrong) {
		return policy, p.blame(errors.New(wrong.Detail))
	}
	if n := policy.MaxUnavailable; n != nil && !n.Percent && n.Value > fleet.MaxSlots {
		fmt.Fprintf(p.app.Err, "commctl: --max-unavailable %d acts as %d: no operation works on more hosts at once\n", n.Value, fleet.MaxSlots)
	}
	return policy, nil
}

// policyMembers finds members of a policy in the words of the server and of the domain:
// policy.order.label, or where the policy is all of a request, order.label at the
// beginning.
var policyMembers = regexp.MustCompile(`(?:\bpolicy\.|^)([a-z_]+)(?:\.([a-z_]+))?`)

// blame names the flags in an error instead of the members of the policy that they
// gave. Members that others gave, such as the policy of the cluster, keep their names.
func (p *policyFlags) blame(err error) error {
	if err == nil {
		return nil
	}
	text := policyMembers.ReplaceAllStringFunc(err.Error(), func(member string) string {
		parts := policyMembers.FindStringSubmatch(member)
		name := strings.ReplaceAll(parts[1], "_", "-")
		for _, flag := range []string{name + "-" + strings.ReplaceAll(parts[2], "_", "-"), name, name + "-selector"} {
			if f := p.flags.Lookup(flag); f != nil && f.Changed {
				return "--" + flag
			}
		}
		return member
	})
	var known *exitError
	switch {
	case text == err.Error():
		return err
	case errors.As(err, &known):
		return &exitError{code: known.code, usage: known.usage, err: errors.New(text)}
	}
	return errors.New(text)
}

// blaming makes the errors of a verb name the flags of its policy.
func (p *policyFlags) blaming(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return p.blame(run(cmd, args)) }
}

// textFlag is a flag with a short name whose text is read by a function.
type textFlag struct {
	text string
	set  func(text string) error
}

func (f *textFlag) String() string { return f.text }
func (f *textFlag) Type() string   { return "string" }
func (f *textFlag) Set(text string) error {
	f.text = text
	return f.set(text)
}

func amountTo(to **fleet.Amount) func(string) error {
	return func(text string) error {
		n, err := fleet.ParseAmount(text)
		*to = &n
		return err
	}
}

func durationTo(to **fleet.Duration) func(string) error {
	return func(text string) error {
		d, err := fleet.ParseDuration(text)
		*to = &d
		return err
	}
}

func checkSelector(text string) error {
	_, err := fleet.ParseSelector(text)
	return err
}

// parseOrder reads "name", "random:7" or "label:rack".
func parseOrder(text string) (*fleet.Order, error) {
	by, detail, more := strings.Cut(text, ":")
	o := &fleet.Order{By: fleet.OrderBy(by)}
	switch {
	case o.By == fleet.OrderLabel:
		o.Label = detail
	case o.By == fleet.OrderRandom && more:
		seed, err := strconv.ParseInt(detail, 10, 64)
		if err != nil {
			return nil, errors.New("the seed must be a whole number")
		}
		o.Seed = seed
	case more:
		return nil, errors.New("only random and label take something after a colon")
	}
	return o, nil
}

// parseWindow reads "sat,sun 22:00-04:00 Europe/Berlin", where days and time zone
// may be missing.
func parseWindow(text string) (*fleet.Window, error) {
	words := strings.Fields(text)
	w := &fleet.Window{}
	if len(words) > 0 && !strings.Contains(words[0], ":") {
		w.Days, words = strings.Split(words[0], ","), words[1:]
	}
	if len(words) == 0 || len(words) > 2 {
		return nil, errors.New("must be as in 'sat,sun 22:00-04:00 Europe/Berlin'")
	}
	var ok bool
	if w.Start, w.End, ok = strings.Cut(words[0], "-"); !ok {
		return nil, errors.New("must hold two times of day, as in 22:00-04:00")
	}
	if len(words) == 2 {
		w.TimeZone = words[1]
	}
	return w, w.Check()
}
