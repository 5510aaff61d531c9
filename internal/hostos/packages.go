package hostos

import (
	"fmt"
	"strconv"
	"strings"

	"commissaire/internal/fleet"
)

// lockWait is how long an upgrade waits for another process that holds the
// package manager, in seconds: longer than an unattended upgrade of a few
// packages, and much shorter than a step may take.
const lockWait = 300

// leftoverMost bounds how many packages an answer names: enough for a reason,
// and far below what is read of an answer.
const leftoverMost = 100

// shell is a constant script with arguments. None of them becomes script.
func shell(script, name string, args ...string) []string {
	return append([]string{"sh", "-c", script, name}, args...)
}

// waiting is a script that gets the seconds to wait for a lock before its arguments.
func waiting(script, name string, args ...string) []string {
	return shell(script, name, append([]string{strconv.Itoa(lockWait)}, args...)...)
}

// packages is what families have in common that change the running system
// package by package.
type packages struct{ name string }

func (p packages) Name() string          { return p.name }
func (p packages) manager() string       { return p.name }
func (p packages) Stages() bool          { return false }
func (p packages) Deployments() []string { return nil }

func (p packages) Deploy(string, Deployments) ([]string, error) {
	return nil, fleet.Errorf(fleet.NotReady, "the host upgrades by %s: it has no OSTree and no bootc image, and deploy needs one", p.name)
}

// Rollback is refused, also where the tool has a history. "Undo the last one" takes
// back whoever's change was last; repositories often offer no older version any
// more; and what scripts of newer packages did to files and data stays. Red Hat
// does not support it for the system's own packages (kernel, glibc, selinux-policy).
func (p packages) Rollback() ([]string, error) {
	return nil, fleet.Errorf(fleet.NotReady, "the host upgrades by %s, which has no safe way back; restore the host from a snapshot or backup, or install the older packages by hand", p.name)
}

func (packages) EnableRepositories(string, string) [][]string { return nil }

func (p packages) ParseDeployments(int, string) (Deployments, error) {
	return Deployments{}, fmt.Errorf("a host that upgrades by %s has no deployments", p.name)
}

// ParseRebootNeeded reads the answer of the scripts reboot_*.sh: a line "needed"
// or "not-needed", then lines that say why.
func (p packages) ParseRebootNeeded(exit int, stdout string) (needed bool, why string, err error) {
	verdict, rest, _ := strings.Cut(stdout, "\n")
	if exit != 0 || verdict != "needed" && verdict != "not-needed" {
		return false, "", fmt.Errorf("the host does not say whether it must be rebooted (exit code %d)", exit)
	}
	return verdict == "needed", reason(rest), nil
}

// reason makes one line of a host's words, without what could harm a terminal,
// a log or a column.
func reason(s string) string {
	const most = 200
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return -1
		}
		return r
	}, s)), " ")
	return s[:min(len(s), most)]
}

// token takes the first word of a host's line when it can be a package's name.
func token(line string) (string, bool) {
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	return word, len(word) <= 128 && namePattern.MatchString(word)
}
