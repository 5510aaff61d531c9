package fleet

import "time"

// OperationKind is what an operation does.
type OperationKind string

// The kinds of operation.
const (
	KindBootstrap OperationKind = "bootstrap" // on a host
	KindRestart   OperationKind = "restart"   // on a cluster
)

// Operation is one act on a cluster or a host.
type Operation struct {
	ID      string // UUIDv7 (RFC 9562)
	Tenant  string
	Kind    OperationKind
	Cluster string // the cluster it acts on, "" for an act on a single host
	Host    string // the host it acts on, "" for an act on a cluster
	State   OperationState
	Reason  string // why it failed or was cancelled, one sentence

	RequestedBy string
	RequestID   string
	Created     time.Time
	Started     time.Time // zero while pending
	Finished    time.Time // zero until it ended
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
	BootID      string // boot id before a reboot, "" until known
	Started     time.Time
	Finished    time.Time
}

// HostRunState is how far one host is in an operation.
type HostRunState string

// Host run states. Skipped hosts were not touched, and the reason says why.
const (
	HostRunPending   HostRunState = "pending"
	HostRunRunning   HostRunState = "running"
	HostRunSucceeded HostRunState = "succeeded"
	HostRunFailed    HostRunState = "failed"
	HostRunSkipped   HostRunState = "skipped"
)

// Ended says whether nothing more will happen in this state.
func (s HostRunState) Ended() bool {
	return s == HostRunSucceeded || s == HostRunFailed || s == HostRunSkipped
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

// TimeFormat is how v0 writes times: UTC, six fractional digits, no zone.
const TimeFormat = "2006-01-02T15:04:05.000000"

// FormatTime writes a time as v0 does; "never" is the empty string.
func FormatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(TimeFormat)
}
