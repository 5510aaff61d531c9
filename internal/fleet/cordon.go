package fleet

// Cordon is how far a host run is with the cordon of the host's node. It only goes
// forward, so that whoever was thought dead cannot cordon a node that was let go.
type Cordon string

// The states of a cordon.
const (
	CordonNone      Cordon = "none"
	CordonOut       Cordon = "out"       // the node may bear our cordon
	CordonRestoring Cordon = "restoring" // it is being let go; it may still bear it
	CordonRestored  Cordon = "restored"  // it is as it was before
	CordonLeft      Cordon = "left"      // its container manager was deleted meanwhile
)

// Stands says whether the node may bear our cordon.
func (c Cordon) Stands() bool { return c == CordonOut || c == CordonRestoring }

// StepUncordon is the step that lets the node of a host go. Unlike others it may begin
// after the host run has ended.
const StepUncordon = "uncordon"

// StepsThatSpare are the steps of a rollout that leave a host as it was: they read, stage
// for a later boot, or are at its node. A host that had no other works as before, whatever
// became of them.
var StepsThatSpare = []string{"check", "stage", "reboot-needed", "diagnose", "cordon", "drain", StepUncordon}
