// Package profile knows what a bootstrap puts on a host: packages, files and
// services, by the name of a profile. It does no I/O.
package profile

import (
	"strings"

	"commissaire/internal/fleet"
)

// The profiles.
const (
	// None only investigates.
	None = "none"
	// ContainerHost prepares a host for containers in the current way, and as a node
	// of Kubernetes when the container manager asks for its kubelet.
	ContainerHost = "container-host"
	// Atomic2017 is what commissaire did in 2017: docker behind flannel, and the
	// kubelet of that time.
	Atomic2017 = "atomic-2017"

	// Default is the profile of a host for which nobody chose one.
	Default = ContainerHost
)

var profiles = []struct {
	name   string
	render func(Input) (Content, error)
}{
	{None, func(Input) (Content, error) { return Content{}, nil }},
	{ContainerHost, containerHost},
	{Atomic2017, atomic2017},
}

// Names are the names of all profiles.
func Names() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.name
	}
	return names
}

// Render gives what a profile puts on a host. The same input gives the same content.
// The error is of kind fleet.Invalid when a setting or an option is wrong or missing,
// and of kind fleet.NotReady when the profile is not for such a host; it never repeats
// a secret.
func Render(name string, in Input) (Content, error) {
	for _, p := range profiles {
		if p.name == name {
			return p.render(in)
		}
	}
	return Content{}, fleet.InvalidField("profile", "must be one of %s", strings.Join(Names(), ", "))
}
