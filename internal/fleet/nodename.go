package fleet

import (
	"regexp"
	"strings"
)

// nodeName is what Kubernetes takes for the name of a node: that of a DNS subdomain
// (IsDNS1123Subdomain of k8s.io/apimachinery).
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// CheckNodeName refuses an address that no node of a container manager can be named by.
// The address is as ParseAddress gives it.
func CheckNodeName(address string) error {
	switch {
	case strings.Contains(address, ":"):
		return InvalidField("address", "%s is an IPv6 address, which cannot be the name of a node, and the container manager of the cluster has nodes; add the host by its name, or by its IPv4 address", address)
	case !nodeName.MatchString(address):
		return InvalidField("address", "%s cannot be the name of a node, and the container manager of the cluster has nodes; such a name has small letters, digits, '-' and '.' only, and each part begins and ends with a letter or digit", address)
	}
	return nil
}
