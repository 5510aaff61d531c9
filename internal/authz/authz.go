// Package authz answers who may do what: one table says for each operation of
// the API document which role it takes at least. What is not in the table
// nobody may do.
package authz

import (
	"maps"
	"slices"

	"commissaire/internal/authn"
	"commissaire/internal/fleet"
)

// anyone stands in the table where no credentials are needed.
const anyone fleet.Role = "anyone"

// joining is the one operation of a join token.
const joining = "registerHost"

// Check gives nil when p may use an operation, named by its operationId. If not,
// it gives a *fleet.Error of kind Forbidden, which says what it takes.
func Check(p authn.Principal, operation string) error {
	least, known := roles[operation]
	switch {
	case least == anyone:
		return nil
	case !known:
		return fleet.Errorf(fleet.Forbidden, "nobody may use %s", operation)
	case p.Role == fleet.RoleJoin && operation != joining:
		return fleet.Errorf(fleet.Forbidden, "a join token adds one host by PUT of /api/v0/host and does nothing else")
	case p.Role != fleet.RoleJoin && !p.Role.Covers(least):
		return fleet.Errorf(fleet.Forbidden, "this needs role %s; you are %s with role %s", least, p.Name, p.Role)
	case len(p.Operations) > 0 && !slices.Contains(p.Operations, operation):
		return fleet.Errorf(fleet.Forbidden, "this token may not use %s; it is limited to some operations of its role %s", operation, p.Role)
	}
	return nil
}

// Known says whether operation is one that takes a role, so that a token can be
// limited to it.
func Known(operation string) bool {
	least, known := roles[operation]
	return known && least != anyone
}

// Operations lists the operationIds of the table, sorted.
func Operations() []string { return slices.Sorted(maps.Keys(roles)) }
