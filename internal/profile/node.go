package profile

import (
	_ "embed"
	"fmt"
	"net/netip"
	"regexp"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
)

// Files of a kubelet, where kubeadm has them, too.
const (
	kubeletConfig    = "/var/lib/kubelet/config.yaml"
	bootstrapConfig  = "/etc/kubernetes/bootstrap-kubelet.conf"
	kubeletLogin     = "/etc/kubernetes/kubelet.conf" // which the kubelet writes itself
	clusterCA        = "/etc/kubernetes/pki/ca.crt"
	kubeletDropIn    = "/etc/systemd/system/kubelet.service.d/20-commissaire.conf"
	containerdConfig = "/etc/containerd/config.toml"
)

var (
	//go:embed template/modules.conf
	modulesTemplate string
	//go:embed template/sysctl.conf
	sysctlTemplate string
	//go:embed template/containerd.toml
	containerdTemplate string
	//go:embed template/kubelet.yaml
	kubeletTemplate string
	//go:embed template/kubelet.service.conf
	dropInTemplate string
)

// nodeName holds names of nodes (RFC 1123 §2.1, as Kubernetes reads it).
var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// runtimeOf tells which runtime a node of a family gets. An image has what it was
// built with; those of rpm-ostree and bootc are of Red Hat's kin.
func runtimeOf(family hostos.Family) (runtime, error) {
	switch family.Name() {
	case "apt", "zypper":
		return containerd, nil
	case "dnf", "rpm-ostree", "bootc":
		return crio, nil
	}
	return runtime{}, fleet.Errorf(fleet.NotReady, "the host upgrades by %s: its system is too old for a kubelet of today", family.Name())
}

// node prepares a host whose kubelet asks the Kubernetes API for a certificate and
// becomes a node under the host's address.
func node(in Input, family hostos.Family) (Content, error) {
	if err := in.checkNode(); err != nil {
		return Content{}, err
	}
	r, err := runtimeOf(family)
	if err != nil {
		return Content{}, err
	}
	mirror, err := r.mirror(in.Settings.RegistryMirror)
	if err != nil {
		return Content{}, err
	}
	c := Content{
		Services: append(r.services[:len(r.services):len(r.services)], "kubelet"),
		Notes:    []string{"The kubelet starts only while the host has no swap in use; commissaire leaves swap as it is. Switch it off by swapoff(8) and in /etc/fstab."},
	}
	if family.Stages() {
		c.Notes = append(c.Notes, fmt.Sprintf("The image must have %s and kubelet in it.", r.pkg))
	} else {
		c.install(in, family, r.pkg, "kubelet")
		c.Notes = append(c.Notes, "The package kubelet comes from a repository that the host must have, such as https://pkgs.k8s.io of the cluster's version.")
	}
	c.Files = append(c.Files,
		public("/etc/modules-load.d/50-commissaire.conf", modulesTemplate, "systemd-modules-load"),
		public("/etc/sysctl.d/50-commissaire.conf", sysctlTemplate, "systemd-sysctl"))
	if r.pkg == containerd.pkg {
		// Logins to registries may stand in it.
		c.Files = append(c.Files, concealing(public(containerdConfig, containerdTemplate, r.services...)))
	}
	c.Files = append(append(c.Files, mirror...), in.kubeletFiles(r)...)
	return c, nil
}

func (in Input) kubeletFiles(r runtime) []File {
	dns := ""
	if in.Manager.ClusterDNS != "" {
		dns = fmt.Sprintf("clusterDNS:\n- %q\nclusterDomain: cluster.local\n", in.Manager.ClusterDNS)
	}
	login := kubeconfig{
		cluster: in.clusterName(), server: in.Manager.ServerURL, caFile: clusterCA,
		user: "kubelet-bootstrap", token: in.Manager.BootstrapToken,
	}
	dropIn := public(kubeletDropIn, fmt.Sprintf(dropInTemplate, bootstrapConfig, kubeletLogin, kubeletConfig, in.Host.Address), "kubelet")
	dropIn.Unit = true
	return []File{
		public(clusterCA, string(in.Manager.CA), "kubelet"),
		private(bootstrapConfig, login.render(), "kubelet"),
		public(kubeletConfig, fmt.Sprintf(kubeletTemplate, clusterCA, dns, r.endpoint), "kubelet"),
		dropIn,
	}
}

// clusterName is how a file calls the cluster; the name means nothing elsewhere.
func (in Input) clusterName() string {
	if in.Cluster == "" {
		return "default"
	}
	return in.Cluster
}

func (in Input) checkNode() error {
	m := in.Manager
	if m.Type != fleet.ContainerManagerKubernetes {
		return fleet.InvalidField(kubeletField, "is for container managers of type %s", fleet.ContainerManagerKubernetes)
	}
	u, err := parseURL(serverField, m.ServerURL)
	switch {
	case err != nil:
		return err
	case u.Scheme != "https":
		return fleet.InvalidField(serverField, "must be https, or the token of kubelets would be sent for all to read")
	case len(m.CA) == 0:
		return fleet.InvalidField(caField, "is missing; a kubelet needs it to know the Kubernetes API, and whom to answer")
	case m.BootstrapToken.Empty():
		return fleet.InvalidField(tokenField, "is missing; a kubelet logs in with it the first time")
	case len(in.Host.Address) > fleet.MaxAddressLength || !nodeName.MatchString(in.Host.Address):
		return fleet.Errorf(fleet.NotReady, "a node cannot be called %q, as the host is; add the host by an IPv4 address or a name of letters, digits, '-' and '.'", in.Host.Address)
	}
	if m.ClusterDNS != "" {
		if ip, err := netip.ParseAddr(m.ClusterDNS); err != nil || ip.Zone() != "" {
			return fleet.InvalidField(clusterDNSField, "must be an IP address")
		}
	}
	if err := checkCA(caField, m.CA); err != nil {
		return err
	}
	return checkToken(tokenField, m.BootstrapToken)
}
