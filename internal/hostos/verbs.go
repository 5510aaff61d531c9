package hostos

import "strings"

// Identify prints what system runs on the host; it is the harmless command
// that proves once-only runs on a new host. uname(1).
func Identify() []string { return []string{"uname", "-a"} }

// Reboot reboots the host in an orderly way, which also finishes a staged
// OSTree deployment. systemctl(1).
func Reboot() []string { return []string{"systemctl", "reboot"} }

// CanReboot exits with 0 when Reboot's command is there.
func CanReboot() []string { return []string{"sh", "-c", "command -v systemctl"} }

// SystemState prints the state of the service manager, waiting for the boot to
// finish. systemctl(1), "is-system-running --wait" (systemd 240 and later;
// older ones ignore the wait and may answer "starting").
func SystemState() []string { return []string{"systemctl", "is-system-running", "--wait"} }

// ParseSystemState reads what SystemState printed.
func ParseSystemState(out string) string {
	state, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if !validToken(state) {
		return "unknown"
	}
	return state
}

// SystemUp says whether a state of the service manager means that the system
// has booted. Degraded is up with a failed unit.
func SystemUp(state string) bool { return state == "running" || state == "degraded" }

// SystemBooting says whether a state of the service manager will change by itself.
func SystemBooting(state string) bool { return state == "initializing" || state == "starting" }
