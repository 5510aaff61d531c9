package profile

import (
	"slices"

	"commissaire/internal/fleet"
)

// network is a way for containers of Atomic2017 to reach each other across hosts. A
// new one is a file of its own that registers a value.
type network struct {
	kind     fleet.NetworkType
	packages []string
	services []string // in the order in which they start, before docker
	// files are those of the network; docker reads what it leaves, so they restart it.
	files func(Input) ([]File, error)
}

var networks []network

// registerNetwork is called once by the file of each network, before main begins.
func registerNetwork(n network) network {
	networks = append(networks, n)
	return n
}

// Networks are the types of network that Atomic2017 knows.
func Networks() []fleet.NetworkType {
	kinds := make([]fleet.NetworkType, len(networks))
	for i, n := range networks {
		kinds[i] = n.kind
	}
	slices.Sort(kinds)
	return kinds
}

func (in Input) network() (network, error) {
	for _, n := range networks {
		if n.kind == in.Network.Type {
			return n, nil
		}
	}
	return network{}, fleet.InvalidField("network.type", "is not known to the profile %s", Atomic2017)
}
