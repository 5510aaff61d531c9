package workflows

import (
	"strings"

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

// HostWorkflowID names the workflow on a host, whether it is an operation of
// its own or a part of a cluster's.
func HostWorkflowID(tenant, address string) string { return "host/" + tenant + "/" + address }

// WorkflowID names the workflow of an operation.
func WorkflowID(op fleet.Operation) string {
	if op.Cluster != "" {
		return ClusterWorkflowID(op.Tenant, op.Cluster)
	}
	return HostWorkflowID(op.Tenant, op.Host)
}

// cell makes text safe inside a markdown table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ", "`", "'").Replace(s)
}
