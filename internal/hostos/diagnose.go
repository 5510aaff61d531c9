package hostos

import (
	"fmt"
	"regexp"

	"commissaire/internal/fleet"
)

// cause is a frequent reason for a command to fail.
type cause struct {
	says *regexp.Regexp // what the tools print; a group that matches is a process id
	next string         // one sentence: what happened and what to do; %s is the process id
}

// causes are in order: the first that matches counts, so one that explains another
// comes before it. A list whose signature is wrong, for example, also counts as
// not fetched.
var causes = []cause{
	{regexp.MustCompile(`(?m)^sudo: (?:a password is required|a terminal is required|no tty present)|\[sudo\] password for`),
		"sudo asks for a password%s; let the remote user become root without one, then retry"},
	{regexp.MustCompile(`dpkg was interrupted`),
		"an earlier run of dpkg was interrupted%s; run 'dpkg --configure -a' on the host, then retry"},
	{regexp.MustCompile(`No space left on device|enough free space|more space (?:needed )?on the|not enough (?:free )?(?:disk )?space`),
		"a filesystem of the host is full%s; free space on it, then retry"},
	{regexp.MustCompile(`Could not get lock \S+(?: It is held by process (\d+))?` + // apt-get
		`|Unable to acquire the dpkg frontend lock|Unable to lock directory` +
		`|(?:frontend lock|status database) (?:was|is) locked by another process(?: with pid (\d+))?` + // dpkg
		`|already locked by (\d+)|Waiting for process with pid (\d+)` + // dnf 4
		`|Failed to obtain (?:the |rpm )?(?:transaction )?lock|can't create transaction lock` +
		`|Waiting for a lock on the system repository(?:.*\n(\d+)\t)?|another process has held the lock` + // dnf 5, and ours
		`|another copy is running as pid (\d+)|holding the yum lock` + // yum
		`|management is locked by the application with pid (\d+)` + // zypper
		`|Transaction in progress`), // rpm-ostree
		"another process%s holds the package manager's lock; let it end or stop it, then retry"},
	{regexp.MustCompile(`signatures? (?:couldn't be verified|verification failed|were invalid|check failed)|NO_PUBKEY|EXPKEYSIG|BADSIG|is not signed|unauthenticated packages` +
		`|(?i:(?:GPG|OpenPGP) (?:signature )?check.* failed)|Public key for .* is not installed|GPG signatures found, but none|Can't check signature` +
		`|A signature was required|Source image rejected|Signature verification failed`),
		"a signature of the repository, a package or the image could not be verified%s; install the right key on the host, then retry"},
	{regexp.MustCompile(`Updates and deployments are driven by`),
		"another agent on the host drives its updates%s; stop it, then retry"},
	{regexp.MustCompile(`Failed to fetch|Temporary failure (?:in name resolution|resolving)|Could not (?:resolve|connect to)|Couldn't (?:resolve|connect)|Unable to connect to` +
		`|Failed to download metadata|Cannot download repomd|All mirrors were tried|No more mirrors to try|Curl error|Usable URL not found` +
		`|Cannot find a valid baseurl|Cannot retrieve metalink|Problem retrieving files from|Download \(curl\) error|Valid metadata not found|zypper left out a repository` +
		`|pinging container registry|dial tcp|While fetching|[Cc]onnection (?:refused|timed out)|Network is unreachable`),
		"a repository or registry could not be reached%s; check the host's network and that address, then retry"},
	{regexp.MustCompile(`Packages need to be removed but remove is disabled`),
		"the packages that are asked for cannot stand beside others of the host%s; its output names those: remove them by hand if nothing needs them, or choose the profile none, then retry"},
	{regexp.MustCompile(`Sub-process /usr/bin/dpkg returned an error code|script of one of them failed`),
		"the script of a package failed%s; its output says why: mend that on the host, then retry"},
}

// Diagnose names the cause of a failed command by the end of what it printed,
// and what to do next, in one sentence; "" when the cause is none of the
// frequent ones.
func Diagnose(output []byte) string {
	output = output[max(0, len(output)-fleet.OutputEnd):]
	for _, c := range causes {
		found := c.says.FindSubmatch(output)
		if found == nil {
			continue
		}
		who := ""
		for _, pid := range found[1:] {
			if 0 < len(pid) && len(pid) < 12 {
				who = " (process " + string(pid) + ")"
			}
		}
		return fmt.Sprintf(c.next, who)
	}
	return ""
}
