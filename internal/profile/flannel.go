package profile

import (
	"fmt"
	"strings"
)

// Files of flannel and of its login to etcd.
const (
	flannelConfig = "/etc/sysconfig/flanneld"
	etcdCert      = "/etc/etcd/client.crt"
	etcdKey       = "/etc/etcd/key.crt"
	etcdCA        = "/etc/etcd/cacert.pem"
)

// etcdFiles are what logs in to etcd, as far as it is configured.
func etcdFiles(e Etcd) (files []File, err error) {
	if len(e.Cert) > 0 || !e.Key.Empty() {
		if err := checkPair(etcdCertField, e.Cert, e.Key); err != nil {
			return nil, err
		}
		files = append(files, public(etcdCert, string(e.Cert), flannelRestarts...), private(etcdKey, e.Key.Reveal(), flannelRestarts...))
	}
	if len(e.CA) > 0 {
		if err := checkCA(etcdCAField, e.CA); err != nil {
			return nil, err
		}
		files = append(files, public(etcdCA, string(e.CA), flannelRestarts...))
	}
	return files, nil
}

// docker takes its addresses from flannel when it starts.
var flannelRestarts = []string{"flanneld", "docker"}

// flannelFile is flannel's settings: lines, then its options, if any.
func flannelFile(lines, options []string) File {
	var b strings.Builder
	for _, line := range lines {
		fmt.Fprintln(&b, line)
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "FLANNEL_OPTIONS=\"%s\"\n", strings.Join(options, " "))
	}
	return public(flannelConfig, b.String(), flannelRestarts...)
}
