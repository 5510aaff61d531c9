package workflows

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"go.temporal.io/sdk/temporal"

	"commissaire/internal/fleet"
)

// Search attributes by which an operator finds operations in the Temporal UI.
// All are keywords; dispatch.Setup registers them.
var (
	AttributeCluster = temporal.NewSearchAttributeKeyKeyword("CommissaireCluster")
	AttributeHost    = temporal.NewSearchAttributeKeyKeyword("CommissaireHost")
	AttributeKind    = temporal.NewSearchAttributeKeyKeyword("CommissaireKind")
	AttributeState   = temporal.NewSearchAttributeKeyKeyword("CommissaireState")
)

// MemoOperation is the memo of every workflow that says which operation it
// belongs to.
const MemoOperation = "operation"

// ClusterWorkflowID names the workflow of an operation on a cluster, so that
// Temporal too admits only one at a time.
func ClusterWorkflowID(tenant, cluster string) string { return "cluster/" + tenant + "/" + cluster }

// HostWorkflowID names the workflow of an operation on a single host.
func HostWorkflowID(tenant, address string) string { return "host/" + tenant + "/" + address }

// SourceWorkflowID names the workflow of the sync of a source.
func SourceWorkflowID(tenant, source string) string { return "source/" + tenant + "/" + source }

// CommandWorkflowID names the workflow of a command. Any number of them may run.
func CommandWorkflowID(tenant, operation string) string { return "command/" + tenant + "/" + operation }

// CheckWorkflowID names the workflow that asks a container manager whether it will do.
func CheckWorkflowID(in ManagerRef) string {
	return "containermanager/" + in.Tenant + "/" + in.Name + "/" + in.Check
}

// NodeWorkflowID names the workflow that asks how a node is; those who want to know at
// the same time share it.
func NodeWorkflowID(in NodeRef) string { return "node/" + in.Tenant + "/" + in.Address }

// DiagnosisWorkflowID names the workflow that asks what would be in the way of draining
// nodes; those who ask the same at the same time share it.
func DiagnosisWorkflowID(in DiagnosisRef) string {
	asked, _ := json.Marshal(in) // of texts, flags and numbers
	return fmt.Sprintf("diagnosis/%s/%s/%x", in.Tenant, in.Cluster, sha256.Sum256(asked))
}

// CordonWorkflowID names the workflow that lets the node of a host go, after an operation.
func CordonWorkflowID(in HostRef) string {
	return "cordon/" + in.Tenant + "/" + in.OperationID + "/" + in.Address
}

// slotWorkflowID names the workflow of a slot: by its host while it has one host
// only, else by its number.
func slotWorkflowID(in SlotInput) string {
	cluster := ClusterWorkflowID(in.Tenant, in.Cluster)
	switch {
	case !in.Keep:
		return cluster + "/" + in.Address
	case in.Stage:
		return fmt.Sprintf("%s/stage-%d", cluster, in.Slot)
	default:
		return fmt.Sprintf("%s/slot-%d", cluster, in.Slot)
	}
}

// WorkflowID names the workflow of an operation.
func WorkflowID(op fleet.Operation) string {
	switch {
	case op.Kind == fleet.KindCommand:
		return CommandWorkflowID(op.Tenant, op.ID)
	case op.Cluster != "":
		return ClusterWorkflowID(op.Tenant, op.Cluster)
	case op.Source != "":
		return SourceWorkflowID(op.Tenant, op.Source)
	}
	return HostWorkflowID(op.Tenant, op.Host)
}
