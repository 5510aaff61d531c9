package profile

import (
	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/secret"
)

// Input is what a profile is made from.
type Input struct {
	Host     fleet.Host // its address, and the facts of its investigation
	Cluster  string     // its cluster's name, "" when it is in none
	Network  fleet.Network
	Manager  *Manager // nil without a container manager
	Settings Settings
}

// Manager is the container manager of the host's cluster.
type Manager struct {
	Type      fleet.ContainerManagerType
	ServerURL string // of the Kubernetes API
	CA        []byte // PEM, who signs the API's certificate and those of its clients
	// Kubelet says that the host shall become a node. Atomic2017 makes one of every
	// host with a container manager of type kubernetes, as it did.
	Kubelet bool
	// BootstrapToken lets a kubelet log in, the first time or, in Atomic2017, always.
	BootstrapToken secret.Text
	// ClientCert and ClientKey do so in place of a token, in Atomic2017 alone; PEM.
	ClientCert []byte
	ClientKey  secret.Text
	// ClusterDNS is the IP of the DNS service for pods; with "" they ask the host's.
	ClusterDNS string
}

// Settings are those of the installation.
type Settings struct {
	// RegistryMirror is the URL of a mirror of Docker Hub. With "" Atomic2017 takes
	// DefaultMirror, and others take none.
	RegistryMirror string
	Etcd           Etcd
}

// Etcd is where flannel keeps its networks.
type Etcd struct {
	URL  string
	Cert []byte      // PEM, of a client; nil when etcd asks for none
	Key  secret.Text // PEM, of Cert
	CA   []byte      // PEM, nil for those that the host trusts
}

// family of the host.
func (in Input) family() (hostos.Family, error) {
	h := in.Host
	return hostos.FamilyOf(h.OS, h.OSTree, h.Bootc, h.PackageManager)
}
