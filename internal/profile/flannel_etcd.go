package profile

import (
	"fmt"

	"commissaire/internal/fleet"
)

// flannelPrefix is below what the network's configuration stands in etcd.
const flannelPrefix = "/atomic01/network"

var _ = registerNetwork(network{
	kind: fleet.NetworkFlannelEtcd, packages: []string{"flannel"}, services: []string{"flanneld"}, files: flannelEtcd,
})

// flannelEtcd has flannel ask etcd by itself. The names of its settings differ among
// releases, so both stand there. commissaire once gave the login by --remote-keyfile
// and --remote-certfile here, which flannel reads for another flannel only.
func flannelEtcd(in Input) ([]File, error) {
	e := in.Settings.Etcd
	if e.URL == "" {
		return nil, fleet.InvalidField(etcdField, "is missing; a network of type %s keeps its addresses in etcd", fleet.NetworkFlannelEtcd)
	}
	u, err := parseURL(etcdField, e.URL)
	if err != nil {
		return nil, err
	}
	login, err := etcdFiles(e)
	if err != nil {
		return nil, err
	}
	var options []string
	if len(e.Cert) > 0 {
		options = append(options, "--etcd-keyfile="+etcdKey, "--etcd-certfile="+etcdCert)
	}
	if u.Scheme == "https" && len(e.CA) > 0 {
		options = append(options, "--etcd-cafile="+etcdCA)
	}
	var lines []string
	for _, name := range []string{"FLANNEL_ETCD", "FLANNEL_ETCD_ENDPOINTS"} {
		lines = append(lines, fmt.Sprintf("%s=%q", name, e.URL))
	}
	for _, name := range []string{"FLANNEL_ETCD_KEY", "FLANNEL_ETCD_PREFIX"} {
		lines = append(lines, fmt.Sprintf("%s=%q", name, flannelPrefix))
	}
	return append([]File{flannelFile(lines, options)}, login...), nil
}
