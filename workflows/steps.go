package workflows

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"commissaire/internal/fleet"
)

// Step is an activity by its types: the workflow runs it and the worker binds
// a function to it, so a wrong signature does not compile and workflows never
// import what activities import.
type Step[In, Out any] struct{ Name string }

// Run runs the step under the options of ctx and waits for its result.
func (s Step[In, Out]) Run(ctx workflow.Context, in In) (out Out, err error) {
	err = workflow.ExecuteActivity(ctx, s.Name, in).Get(ctx, &out)
	return out, err
}

// Bind makes fn the effect of the step on a worker.
func (s Step[In, Out]) Bind(r worker.ActivityRegistry, fn func(context.Context, In) (Out, error)) {
	r.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: s.Name})
}

// Steps that move the record on. They touch Postgres only.
var (
	BeginOperation = Step[OperationRef, OperationBegun]{"operation.begin"}
	Plan           = Step[PlanInput, Planned]{"operation.plan"}
	EndOperation   = Step[OperationEnd, Nothing]{"operation.end"}
	BeginHost      = Step[HostRef, HostBegun]{"host.begin"}
	EndHost        = Step[HostEnd, HostEnded]{"host.end"}
	EndSlot        = Step[SlotEnd, Nothing]{"slot.end"}
)

// Steps on a host, over SSH.
var (
	Investigate    = Step[HostStep, Nothing]{"host.investigate"}
	Prepare        = Step[HostStep, Nothing]{"host.prepare"}
	Install        = Step[ContentStep, Nothing]{"host.install"}
	Configure      = Step[ContentStep, Nothing]{"host.configure"}
	Services       = Step[ContentStep, Nothing]{"host.services"}
	Check          = Step[ChangeStep, Checked]{"host.check"}
	Stage          = Step[ChangeStep, Nothing]{"host.stage"}
	Upgrade        = Step[ChangeStep, Nothing]{"host.upgrade"}
	VerifyPackages = Step[ChangeStep, Nothing]{"host.verify-packages"}
	RebootNeeded   = Step[ChangeStep, RebootVerdict]{"host.reboot-needed"}
	Reboot         = Step[RebootStep, Nothing]{"host.reboot"}
	AwaitBoot      = Step[RebootStep, Nothing]{"host.wait"}
	Verify         = Step[RebootStep, Nothing]{"host.verify"}
	Settle         = Step[RebootStep, Nothing]{"host.settle"}
	Stop           = Step[StopStep, Nothing]{"host.stop"}
)

// Steps that ask a container manager.
var (
	RegisterNode   = Step[HostStep, NodeRegistered]{"node.register"}
	UnregisterNode = Step[HostStep, Nothing]{"node.unregister"}
	ReadNodeStatus = Step[NodeRef, Nothing]{"node.status"}
	AskManager     = Step[ManagerRef, ManagerVerdict]{"manager.check"}
	DiagnoseNodes  = Step[DiagnosisRef, Diagnosis]{"manager.diagnose"}

	// Of a rollout, in the order in which a host goes through them.
	DiagnoseNode = Step[DrainStep, Nothing]{"node.diagnose"}
	CordonNode   = Step[HostStep, Nothing]{"node.cordon"}
	DrainNode    = Step[DrainStep, Nothing]{"node.drain"}
	AwaitNode    = Step[RebootStep, Nothing]{"node.ready"}
	UncordonNode = Step[HostStep, Nothing]{"node.uncordon"}
)

// Names of the steps on a host, as the record shows them.
const (
	StepInvestigate    = "investigate"
	StepPrepare        = "prepare"
	StepInstall        = "install"
	StepConfigure      = "configure"
	StepServices       = "services"
	StepCheck          = "check"
	StepStage          = "stage"
	StepUpgrade        = "upgrade"
	StepVerifyPackages = "verify-packages"
	StepRebootNeeded   = "reboot-needed"
	StepReboot         = fleet.StepReboot
	StepWait           = "wait"
	StepVerify         = "verify"
	StepSettle         = "settle"
	StepRegister       = "register"
	StepUnregister     = "unregister"
	StepDiagnose       = "diagnose"
	StepCordon         = "cordon"
	StepDrain          = "drain"
	StepNodeReady      = "node-ready"
	StepNodeSettle     = "node-settle" // the node is still ready after min_ready
	StepUncordon       = fleet.StepUncordon
)

// AttemptOfSweep is the attempt of StepUncordon when it comes after the host's part has
// ended, and with it the attempt before.
const AttemptOfSweep = 2

// Nothing is the result of a step that only has an effect.
type Nothing struct{}

// OperationRef names an operation.
type OperationRef struct {
	Tenant      string `json:"tenant"`
	OperationID string `json:"operation"`
}

// OperationBegun says whether an operation is ours to carry out.
type OperationBegun struct {
	Ended bool `json:"ended,omitempty"` // by another run of the workflow; nothing is left to do
}

// PlanInput asks which hosts come next. Turn counts the questions of an
// operation from 1: asked again, a turn gives the same hosts again.
type PlanInput struct {
	OperationRef
	Turn int           `json:"turn"`
	Hold time.Duration `json:"hold"` // how long a host may be held by another operation
}

// Planned is what comes next.
type Planned struct {
	Hosts    []Assignment         `json:"hosts,omitempty"` // to begin now
	Policy   HostPolicy           `json:"policy"`
	More     bool                 `json:"more,omitempty"` // ask again at once
	Waiting  string               `json:"waiting,omitempty"`
	Again    time.Time            `json:"again,omitzero"`  // ask again then; zero: when something happens
	End      fleet.OperationState `json:"end,omitempty"`   // nothing is left to do, and this is how it ends
	Ended    bool                 `json:"ended,omitempty"` // it has ended in the record
	Reason   string               `json:"reason,omitempty"`
	Progress fleet.Progress       `json:"progress"`
}

// Assignment is a host that an operation may work on now. The record has it as
// being at work already.
type Assignment struct {
	Address string `json:"address"`
	Stage   bool   `json:"stage,omitempty"` // only stage what it will boot; takes no slot
	Slot    int    `json:"slot"`
	Turn    int    `json:"turn"`           // in which its slot was handed out
	Node    bool   `json:"node,omitempty"` // its cluster has a container manager with nodes
}

// HostPolicy is the part of an operation's policy that concerns one host. The
// zero value of a time means the default.
type HostPolicy struct {
	HostTimeout time.Duration      `json:"hostTimeout,omitempty"`
	StepTimeout time.Duration      `json:"stepTimeout,omitempty"`
	MinReady    time.Duration      `json:"minReady,omitempty"`
	Reboot      fleet.RebootPolicy `json:"reboot,omitempty"`
	// Drain says how the node of a host is emptied; nil leaves nodes alone.
	Drain *fleet.Drain `json:"drain,omitempty"`
}

// OperationEnd is how an operation ended.
type OperationEnd struct {
	OperationRef
	State  fleet.OperationState `json:"state"`
	Reason string               `json:"reason,omitempty"`
}

// HostRef names one host's part in an operation.
type HostRef struct {
	OperationRef
	Address string `json:"address"`
	Turn    int    `json:"turn,omitempty"` // in which the host was handed out; 0 for a bootstrap
}

// HostBegun says whether the host is ours now.
type HostBegun struct {
	HeldBy string             `json:"heldBy,omitempty"` // the operation that holds the host
	Ended  fleet.HostRunState `json:"ended,omitempty"`  // it ended before; nothing is left to do
	Reason string             `json:"reason,omitempty"`
	// Registers: the container manager of the host's cluster has nodes, and a bootstrap
	// makes the host one.
	Registers bool `json:"registers,omitempty"`
	// Profile says what a bootstrap puts on the host; "" for nothing.
	Profile string `json:"profile,omitempty"`
}

// HostEnd is how one host's part ended, or that it is staged.
type HostEnd struct {
	HostRef
	State  fleet.HostRunState `json:"state"`
	Reason string             `json:"reason,omitempty"`
	Event  fleet.HostEvent    `json:"event,omitempty"` // what it means for the host's state
	Down   bool               `json:"down,omitempty"`  // it failed while it was away, and may still be
	Next   bool               `json:"next,omitempty"`  // hand the slot on to the next host
}

// HostEnded is the host to which the slot went, if any.
type HostEnded struct {
	Next   *Assignment `json:"next,omitempty"`
	Policy HostPolicy  `json:"policy"`
}

// SlotEnd says that whoever held a slot is lost.
type SlotEnd struct {
	OperationRef
	Assignment
	Reason string `json:"reason"`
}

// HostStep is a step on a host.
type HostStep struct {
	HostRef
	Step        string        `json:"step"`
	Attempt     int           `json:"attempt"`
	Unreachable time.Duration `json:"unreachable"` // how long the host may be out of reach
}

// ContentStep is a step that puts on a host what a profile asks for.
type ContentStep struct {
	HostStep
	Profile string `json:"profile"`
}

// StopStep ends the command of a step that is not to go on.
type StopStep struct {
	HostStep
	Reason string `json:"reason"` // why it does not go on
}

// NodeRegistered is what came of registering a host.
type NodeRegistered struct {
	Ready  bool   `json:"ready,omitempty"`  // the host can work
	Reason string `json:"reason,omitempty"` // why not (yet)
}

// NodeRef names a host as a node of its cluster's container manager.
type NodeRef struct {
	Tenant  string `json:"tenant"`
	Address string `json:"address"`
}

// ManagerRef names a container manager that was put and is not checked yet.
type ManagerRef struct {
	Tenant string `json:"tenant"`
	Name   string `json:"name"`
	Check  string `json:"check"` // the attempt, as the record names it
}

// DrainStep is a step that empties the node of a host, or looks what would be in the
// way of that.
type DrainStep struct {
	HostStep
	Policy fleet.Drain `json:"policy"`
}

// DiagnosisRef asks what would be in the way of draining these hosts of a cluster.
type DiagnosisRef struct {
	Tenant    string      `json:"tenant"`
	Cluster   string      `json:"cluster"`
	Addresses []string    `json:"addresses"`
	Policy    fleet.Drain `json:"policy"`
}

// Diagnosis is what is in the way, by the address of the host. What blocks comes first,
// and More counts what was left out, since workflow history is no place for lists.
type Diagnosis struct {
	Hosts map[string]fleet.HostDiagnosis `json:"hosts,omitempty"`
	// Unknown says why nobody knows, "" when it is known.
	Unknown string `json:"unknown,omitempty"`
}

// ManagerVerdict says what is wrong with a container manager; Kind "" is nothing.
type ManagerVerdict struct {
	Kind   fleet.Kind         `json:"kind,omitempty"`
	Detail string             `json:"detail,omitempty"`
	Fields []fleet.FieldError `json:"fields,omitempty"`
}

// ChangeStep is a step that changes what runs on a host, or looks at it.
type ChangeStep struct {
	HostStep
	Kind    fleet.OperationKind `json:"kind"`
	Version string              `json:"version,omitempty"` // what a deploy asks for
	Reboot  fleet.RebootPolicy  `json:"reboot,omitempty"`
}

// Checked is what a look at a host before the change found.
type Checked struct {
	BootID string `json:"bootId"`
	Stages bool   `json:"stages,omitempty"` // changes are staged, and booted later
}

// RebootVerdict says whether a host must be rebooted for the change to hold.
type RebootVerdict struct {
	Needed bool `json:"needed"`
}

// RebootStep is a step of a reboot away from the boot with this id.
type RebootStep struct {
	HostStep
	BootID   string `json:"bootId"`
	Rebooted bool   `json:"rebooted,omitempty"` // the host has left that boot, and must not be on it
}
