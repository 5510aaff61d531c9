package fleet

import "time"

// WatchState is what a check of a host found, between operations.
type WatchState string

// What checks find.
const (
	// WatchNever: no check has looked at the host yet.
	WatchNever WatchState = ""
	// WatchHealthy: it answered, and its system runs.
	WatchHealthy WatchState = "healthy"
	// WatchSlow: the same, but it took long.
	WatchSlow WatchState = "slow"
	// WatchUnreachable: it did not answer in time, or not to the end.
	WatchUnreachable WatchState = "unreachable"
	// WatchAuthRefused: it does not let us log in, or not become root.
	WatchAuthRefused WatchState = "auth-refused"
	// WatchKeyChanged: who answers is not the host whose key is pinned.
	WatchKeyChanged WatchState = "key-changed"
	// WatchRebooting: it answered, and is on its way down or up. After RebootingMost that
	// counts against it.
	WatchRebooting WatchState = "rebooting"
)

// WatchStates are all that checks find.
var WatchStates = []WatchState{WatchHealthy, WatchSlow, WatchUnreachable, WatchAuthRefused, WatchKeyChanged, WatchRebooting}

// Reached says whether the check got an answer from the host itself.
func (s WatchState) Reached() bool {
	return s == WatchHealthy || s == WatchSlow || s == WatchRebooting
}

// Works says whether the host can be used.
func (s WatchState) Works() bool { return s == WatchHealthy || s == WatchSlow }

// RebootingMost is how long a host may be on its way down or up: above what
// reboot-timeout is unless set. One unit that hangs keeps a system from ever being up.
const RebootingMost = 15 * time.Minute

// Failed says whether the check counts against the host, however long it has been so.
func (s WatchState) Failed() bool { return s != WatchNever && !s.Reached() }

// Watch is what is known of a host from its checks.
type Watch struct {
	State    WatchState
	Reason   string    // what was in the way, "" for nothing
	Since    time.Time // since when State was found at each check
	Failures int       // how many checks in a row have failed
	Checked  time.Time // when the last check began, zero when there was none
	Rebooted time.Time // when a check last found a boot that no operation was behind, zero for never
}

// Watched is a group of hosts that are watched together: those of a cluster, or those of a
// tenant that are in none.
type Watched struct {
	Tenant  string
	Cluster string // "" for none
}

// StepReboot is the step that orders a host to reboot. A boot that it left did not end
// by itself.
const StepReboot = "reboot"
