package authz

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/authn"
	"commissaire/internal/fleet"
)

func TestRolesCoverEachOther(t *testing.T) {
	t.Parallel()
	for operation, least := range roles {
		require.Error(t, Check(authn.Principal{Name: "x", Role: "root"}, "getHostCreds"), "a role that does not exist")
		if least == anyone {
			require.NoError(t, Check(authn.Principal{}, operation), operation)
			require.False(t, Known(operation), operation)
			continue
		}
		require.True(t, Known(operation), operation)
		require.Error(t, Check(authn.Principal{}, operation), operation)
		for _, role := range fleet.Roles {
			err := Check(authn.Principal{Name: "alice", Role: role}, operation)
			require.Equal(t, role.Covers(least), err == nil, "%s by %s", operation, role)
		}
	}
}

func TestWhatIsNotInTheTable(t *testing.T) {
	t.Parallel()
	for _, role := range append(fleet.Roles, fleet.RoleJoin, "", anyone) {
		require.Error(t, Check(authn.Principal{Name: "alice", Role: role}, "newOperation"), role)
	}
	require.False(t, Known("newOperation"))
	require.Error(t, Check(authn.Principal{Name: "alice", Role: anyone}, "listHosts"), "the table's word is no role")
}

func TestRefusalsSayWhatItTakes(t *testing.T) {
	t.Parallel()
	for want, refused := range map[string]struct {
		who       authn.Principal
		operation string
	}{
		"this needs role admin; you are alice with role viewer": {authn.Principal{Name: "alice", Role: fleet.RoleViewer}, "getHostCreds"},
		"a join token adds one host by PUT of /api/v0/host and does nothing else": {
			authn.Principal{Name: "jointoken:x", Role: fleet.RoleJoin}, "whoami"},
		"this token may not use putHost; it is limited to some operations of its role operator": {
			authn.Principal{Name: "alice", Role: fleet.RoleOperator, Operations: []string{"getHost"}}, "putHost"},
		"this needs role admin; you are alice with role operator": {
			authn.Principal{Name: "alice", Role: fleet.RoleOperator, Operations: []string{"listAudit"}}, "listAudit"},
	} {
		err := Check(refused.who, refused.operation)
		require.Equal(t, fleet.Forbidden, fleet.KindOf(err))
		require.EqualError(t, err, want)
	}
	require.NoError(t, Check(authn.Principal{Role: fleet.RoleJoin}, "registerHost"))
	require.NoError(t, Check(authn.Principal{Role: fleet.RoleOperator, Operations: []string{"getHost", "putHost"}}, "putHost"))
}
