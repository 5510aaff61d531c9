package fleet

import "time"

// DefaultNetwork is the network of a cluster that names none.
const DefaultNetwork = "default"

// Cluster is a group of like hosts.
type Cluster struct {
	Name             string
	Network          string
	ContainerManager string // "" when none
	Profile          string // what a bootstrap puts on its hosts, "" for the installation's
	Bastion          string // address of the host through which its hosts are reached, "" for none
	Created          time.Time
}

// HostCounts are the members of a cluster by availability.
type HostCounts struct {
	Total     int
	Available int // in state active
}

// Unavailable is every member that is not active.
func (c HostCounts) Unavailable() int { return c.Total - c.Available }

// Status is the v0 cluster status: "ok" while every member is active, else
// "degraded", and "failed" when there are members and none is active.
func (c HostCounts) Status() string {
	switch {
	case c.Available == c.Total:
		return "ok"
	case c.Available == 0:
		return "failed"
	default:
		return "degraded"
	}
}

// Network is named network configuration.
type Network struct {
	Name    string
	Type    NetworkType
	Options map[string]any
}

// NetworkType says how hosts of a network reach each other.
type NetworkType string

// The network types of the v0 contract.
const (
	NetworkFlannelEtcd   NetworkType = "flannel_etcd"
	NetworkFlannelServer NetworkType = "flannel_server"
)

// ParseNetworkType accepts a network type; "" means flannel_etcd.
func ParseNetworkType(s string) (NetworkType, error) {
	switch t := NetworkType(s); t {
	case "":
		return NetworkFlannelEtcd, nil
	case NetworkFlannelEtcd, NetworkFlannelServer:
		return t, nil
	}
	return "", InvalidField("type", "must be flannel_etcd or flannel_server")
}
