package authz

import "commissaire/internal/fleet"

// roles is the least role that each operation takes, by operationId.
var roles = map[string]fleet.Role{
	// Reading of everything that is no secret.
	"listClusters":          fleet.RoleViewer,
	"getCluster":            fleet.RoleViewer,
	"listMembers":           fleet.RoleViewer,
	"getMember":             fleet.RoleViewer,
	"getClusterRestart":     fleet.RoleViewer,
	"getClusterUpgrade":     fleet.RoleViewer,
	"getClusterDeploy":      fleet.RoleViewer,
	"getClusterPolicy":      fleet.RoleViewer,
	"listHosts":             fleet.RoleViewer,
	"getHost":               fleet.RoleViewer,
	"getHostStatus":         fleet.RoleViewer,
	"getHostBootstrap":      fleet.RoleViewer,
	"getHostLabels":         fleet.RoleViewer,
	"getHostKey":            fleet.RoleViewer,
	"listSources":           fleet.RoleViewer,
	"getInventory":          fleet.RoleViewer,
	"listNetworks":          fleet.RoleViewer,
	"getNetwork":            fleet.RoleViewer,
	"listContainerManagers": fleet.RoleViewer,
	"getContainerManager":   fleet.RoleViewer,
	"listJoinTokens":        fleet.RoleViewer,
	"listOperations":        fleet.RoleViewer,
	"getOperation":          fleet.RoleViewer,
	"getOperationPolicy":    fleet.RoleViewer,
	"streamOperationEvents": fleet.RoleViewer,
	"listOperationHosts":    fleet.RoleViewer,
	"listOperationSteps":    fleet.RoleViewer,
	"getStepOutput":         fleet.RoleViewer,

	// Everybody's own: the handlers look whose token it is.
	"whoami":      fleet.RoleViewer,
	"listTokens":  fleet.RoleViewer,
	"getToken":    fleet.RoleViewer,
	"createToken": fleet.RoleViewer,
	"revokeToken": fleet.RoleViewer,

	// Changing the fleet.
	"putCluster":          fleet.RoleOperator,
	"deleteCluster":       fleet.RoleOperator,
	"replaceMembers":      fleet.RoleOperator,
	"addMember":           fleet.RoleOperator,
	"removeMember":        fleet.RoleOperator,
	"restartCluster":      fleet.RoleOperator,
	"upgradeCluster":      fleet.RoleOperator,
	"deployCluster":       fleet.RoleOperator,
	"putClusterPolicy":    fleet.RoleOperator,
	"deleteClusterPolicy": fleet.RoleOperator,
	"registerHost":        fleet.RoleOperator, // and join tokens
	"putHost":             fleet.RoleOperator,
	"deleteHost":          fleet.RoleOperator,
	"putHostCreds":        fleet.RoleOperator,
	"bootstrapHost":       fleet.RoleOperator,
	"putHostLabels":       fleet.RoleOperator,
	"putHostSource":       fleet.RoleOperator,
	"putHostBastion":      fleet.RoleOperator,
	"syncSource":          fleet.RoleOperator,
	"acceptHostKey":       fleet.RoleOperator,
	"putNetwork":          fleet.RoleOperator,
	"deleteNetwork":       fleet.RoleOperator,
	"createJoinToken":     fleet.RoleOperator,
	"revokeJoinToken":     fleet.RoleOperator,
	"pauseOperation":      fleet.RoleOperator,
	"resumeOperation":     fleet.RoleOperator,
	"approveOperation":    fleet.RoleOperator,
	"cancelOperation":     fleet.RoleOperator,
	"retryOperation":      fleet.RoleOperator,
	"putOperationPolicy":  fleet.RoleOperator,

	// Secrets, root on the hosts, who holds the containers, and who did what.
	"getHostCreds":           fleet.RoleAdmin,
	"runCommand":             fleet.RoleAdmin, // as root on the hosts, whatever it is
	"putContainerManager":    fleet.RoleAdmin,
	"deleteContainerManager": fleet.RoleAdmin,
	"listAudit":              fleet.RoleAdmin,

	// Without credentials.
	"healthz":     anyone,
	"livez":       anyone,
	"readyz":      anyone,
	"version":     anyone,
	"metrics":     anyone,
	"openapi":     anyone,
	"root":        anyone,
	"docs":        anyone,
	"docsFile":    anyone,
	"docsProblem": anyone,
}
