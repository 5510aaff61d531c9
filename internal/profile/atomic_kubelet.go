package profile

import (
	"fmt"

	"commissaire/internal/fleet"
)

// Files of the kubelet that Fedora and RHEL had in 2017. It reads its kubeconfig at
// this place unless told otherwise.
const (
	kubeCert = "/etc/kubernetes/client.crt"
	kubeKey  = "/etc/kubernetes/client.key"
)

var atomicKubeServices = []string{"kubelet", "kube-proxy"}

// atomicKubelet logs in with a token, else with a client certificate. commissaire once
// took any certificate of the server; now it does so only where nobody gave a CA.
func atomicKubelet(in Input) ([]File, error) {
	m := in.Manager
	u, err := parseURL(serverField, m.ServerURL)
	if err != nil {
		return nil, err
	}
	withCert := m.BootstrapToken.Empty() && (len(m.ClientCert) > 0 || !m.ClientKey.Empty())
	switch {
	case u.Scheme == "http" && !m.BootstrapToken.Empty():
		return nil, fleet.InvalidField(serverField, "must be https, or the token of kubelets would be sent for all to read")
	case u.Scheme == "https" && m.BootstrapToken.Empty() && !withCert:
		return nil, fleet.InvalidField(tokenField, "is missing, and so is a client certificate; a kubelet logs in with one of them")
	}
	if len(m.CA) > 0 {
		if err := checkCA(caField, m.CA); err != nil {
			return nil, err
		}
	}
	if err := checkToken(tokenField, m.BootstrapToken); err != nil {
		return nil, err
	}
	login := kubeconfig{
		cluster: in.clusterName(), server: m.ServerURL, ca: m.CA, insecure: u.Scheme == "https",
		user: "commissairenode", token: m.BootstrapToken,
	}
	files := []File{public("/etc/kubernetes/config", fmt.Sprintf("KUBE_MASTER=\"--master=%s\"\n", m.ServerURL), atomicKubeServices...)}
	if withCert {
		if err := checkPair(certField, m.ClientCert, m.ClientKey); err != nil {
			return nil, err
		}
		login.cert, login.key = kubeCert, kubeKey
		files = append(files, public(kubeCert, string(m.ClientCert), "kubelet"), private(kubeKey, m.ClientKey.Reveal(), "kubelet"))
	}
	return append(files,
		private("/var/lib/kubelet/kubeconfig", login.render(), "kubelet"),
		public("/etc/kubernetes/kubelet", fmt.Sprintf("KUBELET_ADDRESS=\"--address=0.0.0.0\"\nKUBELET_HOSTNAME=\"--hostname_override=%s\"\nKUBELET_API_SERVER=\"--api_servers=%s\"\n", in.Host.Address, m.ServerURL), "kubelet"),
	), nil
}
