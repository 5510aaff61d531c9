package authn

import "commissaire/internal/fleet"

// grants say which role a name gets.
type grants struct {
	role  fleet.Role            // of everybody for whom nothing else is said
	names map[string]fleet.Role // by name of the principal; wins
}

// of gives the role of a name. own is what the plug-in found out about it, "" for
// nothing.
func (g grants) of(name string, own fleet.Role) fleet.Role {
	if role, ok := g.names[name]; ok {
		return role
	}
	if own != "" {
		return own
	}
	return g.role
}
