package profile

import (
	"net/url"

	"commissaire/internal/fleet"
)

var _ = registerNetwork(network{
	kind: fleet.NetworkFlannelServer, packages: []string{"flannel"}, services: []string{"flanneld"}, files: flannelServer,
})

// flannelServer has flannel ask another flannel, at the network's option address. A
// client certificate is the one for etcd, as ever; only with one does flannel speak
// TLS, so only then it is told whom to trust.
func flannelServer(in Input) ([]File, error) {
	address, _ := in.Network.Options["address"].(string)
	if err := checkPlain(remoteField, address); err != nil {
		return nil, err
	}
	if !hostPort(address) {
		return nil, fleet.InvalidField(remoteField, "must be an address such as 192.0.2.1:8888")
	}
	login, err := etcdFiles(in.Settings.Etcd)
	if err != nil {
		return nil, err
	}
	options := []string{"--remote=" + address}
	if len(in.Settings.Etcd.Cert) > 0 {
		options = append(options, "--remote-keyfile="+etcdKey, "--remote-certfile="+etcdCert)
		if len(in.Settings.Etcd.CA) > 0 {
			options = append(options, "--remote-cafile="+etcdCA)
		}
	}
	return append([]File{flannelFile(nil, options)}, login...), nil
}

// hostPort says whether s is a host, with a port or without.
func hostPort(s string) bool {
	u, err := url.Parse("//" + s)
	return err == nil && u.Host == s && u.Hostname() != ""
}
