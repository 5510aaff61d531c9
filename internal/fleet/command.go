package fleet

import (
	"strings"
	"time"
)

// Command is what one operation runs on many hosts, at once and once on each.
type Command struct {
	Argv    []string `json:"argv"`
	Timeout Duration `json:"timeout"`           // of each host, from when the command is started there
	AtOnce  int      `json:"at_once,omitempty"` // hosts at a time, 0 for all

	Selector string `json:"selector,omitempty"` // by which its hosts were chosen, "" for none
}

// StepCommand is the step of a host in a command.
const StepCommand = "command"

// Limits of commands.
const (
	MaxArgv      = 256      // words
	MaxArgvBytes = 64 << 10 // of all words together
	MaxAtOnce    = 100_000

	DefaultCommandTimeout = 10 * time.Minute
	MinCommandTimeout     = time.Second
	MaxCommandTimeout     = 24 * time.Hour
)

// Check refuses what cannot be run. The error names the member.
func (c Command) Check() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return InvalidField("argv", "must begin with the command to run")
	}
	if len(c.Argv) > MaxArgv {
		return InvalidField("argv", "must not be more than %d words", MaxArgv)
	}
	bytes := 0
	for _, word := range c.Argv {
		if strings.ContainsRune(word, 0) {
			return InvalidField("argv", "must not hold a NUL character, which no command can take")
		}
		bytes += len(word)
	}
	if bytes > MaxArgvBytes {
		return InvalidField("argv", "must not be longer than %d bytes together", MaxArgvBytes)
	}
	if t := time.Duration(c.Timeout); t < MinCommandTimeout || t > MaxCommandTimeout {
		return InvalidField("timeout", "must be a time between 1s and 24h, such as 90s or 10m")
	}
	if c.AtOnce < 0 || c.AtOnce > MaxAtOnce {
		return InvalidField("at_once", "must be a number of hosts up to %d, or 0 for all", MaxAtOnce)
	}
	return nil
}

// ChooseHosts gives the members of a cluster on which a command runs, in the order in
// which they joined: those that fit the selector and, unless there are none, are among
// the hosts. To choose none of them is refused, and so is a host that is no member.
func ChooseHosts(members []Member, selector string, hosts []string) ([]Placed, error) {
	requirements, err := ParseSelector(selector)
	if err != nil {
		return nil, InvalidField("selector", "%s", err)
	}
	if len(members) == 0 {
		return nil, Errorf(Conflict, "the cluster has no hosts that could run the command")
	}
	named := map[string]bool{}
	for _, h := range hosts {
		named[h] = true
	}
	var chosen []Member
	for _, m := range members {
		wanted := len(hosts) == 0 || named[m.Address]
		delete(named, m.Address)
		if wanted && requirements.Matches(m.Labels) {
			chosen = append(chosen, m)
		}
	}
	for _, h := range hosts {
		if named[h] {
			return nil, InvalidField("hosts", "names %s, which is no host of the cluster", h)
		}
	}
	if len(chosen) == 0 {
		return nil, InvalidField("selector", "chooses no host of the cluster")
	}
	Policy{}.sort(chosen)
	placed := make([]Placed, len(chosen))
	for i, m := range chosen {
		placed[i] = Placed{Address: m.Address}
	}
	return placed, nil
}
