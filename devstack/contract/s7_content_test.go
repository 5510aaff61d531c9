package contract

import (
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// TestBootstrapContent replays what was put on hosts, which is the profile atomic-2017.
func TestBootstrapContent(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	cert, key := ours.issue(t, "commissaire")
	s := ownSite(t, harness.Options{
		Machines: []remotetest.HostConfig{
			{Name: "rhel", OS: remotetest.OS{ID: "rhel", VersionID: "7.9"}},
			{Name: "fedora", OS: remotetest.OS{ID: "fedora", VersionID: "25"}},
			{Name: "atomic", OS: remotetest.OS{ID: "fedora", VersionID: "25", OSTree: true}},
			{Name: "node", OS: remotetest.OS{ID: "centos", VersionID: "7"}},
		},
		Env: []string{
			"COMMISSAIRE_BOOTSTRAP_PROFILE=atomic-2017", "COMMISSAIRE_ETCD_SERVER_URL=https://192.0.2.1:2379",
			"COMMISSAIRE_ETCD_CERTIFICATE_PATH=" + put(t, "etcd.crt", cert), "COMMISSAIRE_ETCD_CERTIFICATE_KEY_PATH=" + put(t, "etcd.key", key),
			"COMMISSAIRE_ETCD_CERTIFICATE_CA_PATH=" + put(t, "etcd-ca.crt", ours.pem()),
		},
	})
	rhel, fedora, atomic, node := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1], s.Fleet.Hosts()[2], s.Fleet.Hosts()[3]
	s.put(t, "network/served", `{"type": "flannel_server", "options": {"address": "192.0.2.2:8888"}}`).status(http.StatusCreated)
	k := newKubeAPI(t)
	authority := put(t, "kube-ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate().Raw}))
	s.put(t, "containermanager/kube", `{"type": "kubernetes", "options": `+k.options(t, M{
		"insecure_skip_tls_verify": false, "certificate_ca_path": authority, "active_when": "registered", "kubelet_bootstrap_token": "hidden.kubelet",
	})+`}`).status(http.StatusCreated)
	s.put(t, "cluster/served", `{"network": "served"}`).status(http.StatusCreated)
	s.put(t, "cluster/nodes", `{"container_manager": "kube"}`).status(http.StatusCreated)
	add := func(cluster string, h *remotetest.Host) {
		body := s.HostBody(h)
		body["cluster"] = cluster
		s.put(t, "host/"+h.Address(), jsonOf(t, body)).status(http.StatusCreated)
		s.until(t, "the bootstrap of "+h.Name(), func() bool { return s.operation(t, "kind=bootstrap&host="+h.Address())["finished_at"] != "" })
		op := s.operation(t, "kind=bootstrap&host="+h.Address())
		require.Equal(t, "succeeded", op["state"], "%s: %v", h.Name(), op["reason"])
	}
	s.put(t, "cluster/web", "").status(http.StatusCreated)
	add("web", rhel)
	add("served", fedora)
	for _, unit := range []string{"flanneld", "docker"} { // which the image has
		require.NoError(t, os.WriteFile(filepath.Join(atomic.Dir(), "units", unit+".unit"), nil, 0o600))
	}
	add("web", atomic)
	add("nodes", node)

	of := func(h *remotetest.Host, path string) string { return readFile(t, filepath.Join(h.Dir(), "root", path)) }
	// did is what changed a host, without what every bootstrap does.
	did := func(h *remotetest.Host) (did []string) {
		entries, err := h.Ledger()
		require.NoError(t, err)
		for _, e := range entries {
			if e.What != "boot" && e.What != "uname" {
				did = append(did, e.What+" "+e.Args)
			}
		}
		return did
	}
	ends := func(h *remotetest.Host, what, with string) func(*testing.T) {
		return func(t *testing.T) {
			require.Len(t, slices.DeleteFunc(did(h), func(d string) bool { return !strings.HasPrefix(d, what) || !strings.HasSuffix(d, with) }), 1)
		}
	}
	for id, pkg := range map[string]string{"7-6": "libselinux-python", "7-7": "flannel", "7-8": "docker"} {
		fact(t, id, func(t *testing.T) {
			ends(rhel, "yum ", " "+pkg)(t)
			ends(fedora, "dnf ", " "+pkg)(t)
			require.NotContains(t, strings.Join(did(atomic), "\n"), "install")
		})
	}
	fact(t, "7-9", ends(node, "yum ", " kubernetes-node"))
	fact(t, "7-10", func(t *testing.T) {
		require.Equal(t, "subscription-manager repos --enable=rhel-7-server-extras-rpms --enable=rhel-7-server-optional-rpms", did(rhel)[0])
		require.NotContains(t, strings.Join(did(fedora), "\n"), "repos")
	})
	fact(t, "7-11", func(t *testing.T) {
		for _, path := range []string{"/etc/sysconfig/docker", "/etc/sysconfig/flanneld", "/etc/etcd/client.crt", "/etc/etcd/key.crt", "/etc/etcd/cacert.pem"} {
			for _, h := range []*remotetest.Host{rhel, fedora, atomic, node} {
				require.NotEmpty(t, of(h, path))
			}
		}
		for _, path := range []string{"/etc/kubernetes/config", "/etc/kubernetes/kubelet", "/var/lib/kubelet/kubeconfig"} {
			require.NotEmpty(t, of(node, path))
		}
		for _, unit := range []string{"docker", "flanneld", "kubelet", "kube-proxy"} {
			require.True(t, node.UnitActive(unit), unit)
		}
	})
	fact(t, "7-12", func(t *testing.T) {
		require.Equal(t, []string{
			"systemctl enable -- flanneld", "systemctl restart -- flanneld", "systemctl enable -- docker", "systemctl restart -- docker",
			"systemctl enable -- kubelet", "systemctl restart -- kubelet", "systemctl enable -- kube-proxy", "systemctl restart -- kube-proxy",
		}, did(node)[len(did(node))-8:])
	})
	fact(t, "7-13", func(t *testing.T) {
		require.Equal(t, "OPTIONS='--registry-mirror=http://127.0.0.1:8080 --selinux-enabled --log-driver=journald'\nDOCKER_CERT_PATH=/etc/docker\n", of(rhel, "/etc/sysconfig/docker"))
	})
	fact(t, "7-14", func(t *testing.T) {
		require.Contains(t, of(rhel, "/etc/sysconfig/flanneld"), `FLANNEL_ETCD="https://192.0.2.1:2379"
FLANNEL_ETCD_ENDPOINTS="https://192.0.2.1:2379"
FLANNEL_ETCD_KEY="/atomic01/network"
FLANNEL_ETCD_PREFIX="/atomic01/network"
`)
	})
	fact(t, "7-15", func(t *testing.T) {
		require.True(t, strings.HasPrefix(of(fedora, "/etc/sysconfig/flanneld"), `FLANNEL_OPTIONS="--remote=192.0.2.2:8888 `))
	})
	fact(t, "7-16", func(t *testing.T) {
		require.Contains(t, of(fedora, "/etc/sysconfig/flanneld"), "--remote-keyfile=/etc/etcd/key.crt --remote-certfile=/etc/etcd/client.crt")
		require.Contains(t, of(rhel, "/etc/sysconfig/flanneld"), "--etcd-keyfile=/etc/etcd/key.crt --etcd-certfile=/etc/etcd/client.crt --etcd-cafile=/etc/etcd/cacert.pem")
		require.Equal(t, string(key), of(rhel, "/etc/etcd/key.crt"))
		info, err := os.Stat(filepath.Join(rhel.Dir(), "root/etc/etcd/key.crt"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	})
	fact(t, "7-17", func(t *testing.T) {
		require.Equal(t, "KUBELET_ADDRESS=\"--address=0.0.0.0\"\nKUBELET_HOSTNAME=\"--hostname_override="+node.Address()+"\"\nKUBELET_API_SERVER=\"--api_servers="+k.URL+"\"\n", of(node, "/etc/kubernetes/kubelet"))
		require.Equal(t, "KUBE_MASTER=\"--master="+k.URL+"\"\n", of(node, "/etc/kubernetes/config"))
		login := of(node, "/var/lib/kubelet/kubeconfig")
		for _, text := range []string{"commissairenode", "hidden.kubelet", k.URL, "certificate-authority-data"} {
			require.Contains(t, login, text)
		}
		require.NotContains(t, login, "hidden-9", "the token of commissaire is no host's")
		require.NotContains(t, login, "insecure-skip-tls-verify: true")
	})
	fact(t, "6.3-9", func(t *testing.T) {
		lacks := ownSite(t, harness.Options{Machines: []remotetest.HostConfig{{Name: "h", OS: remotetest.OS{ID: "fedora", VersionID: "25"}}}})
		h := lacks.Fleet.Hosts()[0]
		lacks.put(t, "cluster/web", `{"profile": "atomic-2017"}`).status(http.StatusCreated)
		lacks.put(t, "host/"+h.Address(), jsonOf(t, lacks.HostBody(h))).status(http.StatusCreated)
		lacks.until(t, "the end of the bootstrap", func() bool { return lacks.operation(t, "kind=bootstrap&host="+h.Address())["finished_at"] != "" })
		require.Equal(t, "failed", lacks.get(t, "host/"+h.Address()).object()["status"])
		require.Contains(t, lacks.operation(t, "kind=bootstrap&host="+h.Address())["reason"], "etcd.server_url is missing")
		require.Zero(t, h.Count("dnf", ""))
	})
}
