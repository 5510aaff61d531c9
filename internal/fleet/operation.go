package fleet

import (
	"regexp"
	"strings"
	"time"
)

// OperationKind is what an operation does.
type OperationKind string

// The kinds of operation.
const (
	KindBootstrap  OperationKind = "bootstrap"  // on a host
	KindRegister   OperationKind = "register"   // a host with its container manager
	KindUnregister OperationKind = "unregister" // take a host away from one; it may be deleted already
	KindRestart    OperationKind = "restart"    // the others are rollouts over a cluster
	KindUpgrade    OperationKind = "upgrade"
	KindDeploy     OperationKind = "deploy"
	KindSync       OperationKind = "sync"    // ask a source for facts of its hosts
	KindCommand    OperationKind = "command" // run one command on many hosts of a cluster at once
)

// Kinds are all kinds of operation.
var Kinds = []OperationKind{KindBootstrap, KindRegister, KindUnregister, KindRestart, KindUpgrade, KindDeploy, KindSync, KindCommand}

// Rollout says whether an operation of this kind rolls over the hosts of a cluster.
func (k OperationKind) Rollout() bool {
	return k == KindRestart || k == KindUpgrade || k == KindDeploy
}

// Counted says whether an operation of this kind is over the hosts of a cluster, which are
// counted while it goes on.
func (k OperationKind) Counted() bool { return k.Rollout() || k == KindCommand }

// Holds says whether an operation of this kind keeps others from its cluster and its hosts.
func (k OperationKind) Holds() bool { return k != KindCommand }

var versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~:/@-]{0,255}$`)

// ParseVersion accepts what a deploy may ask for: the version or checksum of an
// OSTree deployment, or a tag, digest or reference of a bootable container image.
func ParseVersion(s string) (string, error) {
	if !versionPattern.MatchString(s) {
		return "", InvalidField("version", "must be letters, digits and '.', '_', '+', '~', ':', '/', '@', '-', at most 256, beginning with a letter or digit")
	}
	return s, nil
}

// Operation is one act on a cluster, on a host, or on all hosts of a source.
type Operation struct {
	ID      string // UUIDv7 (RFC 9562)
	Tenant  string
	Kind    OperationKind
	Cluster string // the cluster it acts on, "" for another act
	Host    string // the host it acts on, "" for another act
	Manager string // the container manager that a register or unregister asks, else ""
	Source  string // the source that a sync asks, else ""
	State   OperationState
	Reason  string // why it failed or was cancelled, one sentence

	Version string   // what a deploy asks for
	Command *Command // of a command, nil for all others
	Policy  Policy   // as it is in force: the request's over the cluster's
	RetryOf string   // the operation whose unfinished hosts this one takes, "" for none
	Hosts   int      // in it

	RequestedBy string
	RequestID   string
	Created     time.Time
	Started     time.Time // zero while pending
	Finished    time.Time // zero until it ended

	Paused      time.Time // zero while it is not
	PausedBy    string
	Approved    time.Time // when the gate after the canaries was passed
	ApprovedBy  string
	Cancelled   time.Time // when somebody asked for the end; it ends when the hosts at work have
	CancelledBy string
	Waiting     string // what it waits for besides the hosts at work, one sentence

	DryRun bool        // of a sync: it changes no host
	Sync   *SyncCounts // what came of a sync, nil before that is known and for all others
}

// Progress counts the hosts of an operation by what has become of them.
type Progress struct {
	Total     int
	Pending   int
	Staging   int
	Staged    int
	Running   int
	Succeeded int
	Failed    int
	Skipped   int
	// ExpectedEnd is a guess from the hosts that are done; zero when there is none.
	ExpectedEnd time.Time
}

// OperationState is how far an operation is.
type OperationState string

// Operation states. Pending operations are accepted and on disk; a worker has
// not begun yet.
const (
	OperationPending   OperationState = "pending"
	OperationRunning   OperationState = "running"
	OperationSucceeded OperationState = "succeeded"
	OperationFailed    OperationState = "failed"
	OperationCancelled OperationState = "cancelled"
)

// Ended says whether nothing more will happen in this state.
func (s OperationState) Ended() bool {
	return s == OperationSucceeded || s == OperationFailed || s == OperationCancelled
}

// HostRun is one host's part in an operation.
type HostRun struct {
	OperationID string
	Address     string
	Position    int // order in the rollout, from 0
	State       HostRunState
	Reason      string // why it failed or was skipped, one sentence
	Canary      bool
	Slot        int    // which slot it has or had, from 1; 0 before it got one
	BootID      string // boot id before a reboot, "" until known
	Target      string // the deployment that it must boot, "" when none is staged
	Waiting     string // who holds the host while its turn has come, one sentence
	Started     time.Time
	Finished    time.Time
}

// HostRunState is how far one host is in an operation.
type HostRunState string

// Host run states. Skipped hosts were not touched, and the reason says why.
const (
	HostRunPending   HostRunState = "pending"
	HostRunStaging   HostRunState = "staging" // takes no slot
	HostRunStaged    HostRunState = "staged"
	HostRunRunning   HostRunState = "running" // has a slot
	HostRunSucceeded HostRunState = "succeeded"
	HostRunFailed    HostRunState = "failed"
	HostRunSkipped   HostRunState = "skipped"
)

// Ended says whether nothing more will happen in this state.
func (s HostRunState) Ended() bool {
	return s == HostRunSucceeded || s == HostRunFailed || s == HostRunSkipped
}

// HostSaid stands in a reason before the last lines that a command printed. What
// follows it is kept in the record only: it may be anything.
const HostSaid = "; it said: "

// OurWords gives a reason without what a host said.
func OurWords(reason string) string {
	ours, _, _ := strings.Cut(reason, HostSaid)
	return ours
}

// Step is a named act within a host run.
type Step struct {
	ID          int64
	OperationID string
	Address     string
	Name        string // "investigate", "prepare", "check", "reboot", "verify" …
	Attempt     int    // from 1; a retry by the operator makes a new attempt
	State       StepState
	Reason      string
	ExitCode    *int  // of the command, nil when none ended
	OutputSize  int64 // bytes the command printed, stored or not
	OutputTo    int64 // position up to which the output has been stored or, past the cap, left out
	Stored      int64 // bytes of it that are stored
	Started     time.Time
	Finished    time.Time
}

// StepState is how far a step is.
type StepState string

// Step states. Indeterminate: the command began and nobody can say how it
// ended (power cut, OOM kill); it is never run again blindly.
const (
	StepRunning       StepState = "running"
	StepSucceeded     StepState = "succeeded"
	StepFailed        StepState = "failed"
	StepIndeterminate StepState = "indeterminate"
)

// Ended says whether nothing more will happen in this state.
func (s StepState) Ended() bool { return s != StepRunning }

// OutputChunk is a piece of what a step printed, byte for byte.
type OutputChunk struct {
	Offset int64 // position of the first byte in all the step printed
	Data   []byte
}

// Of what a step prints, the record keeps the first OutputHead bytes and, when
// it printed more, the last OutputTail bytes; the gap shows as a jump in offset.
const (
	OutputHead = 1 << 20
	OutputTail = 64 << 10
)

// OutputEnd is how many bytes of the end of an output are looked at for the reason of a
// failure. What stands further up is rarely why a command failed.
const OutputEnd = 1 << 10

// TimeFormat is how v0 writes times: UTC, six fractional digits, no zone.
const TimeFormat = "2006-01-02T15:04:05.000000"

// FormatTime writes a time as v0 does; "never" is the empty string.
func FormatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(TimeFormat)
}
