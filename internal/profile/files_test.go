package profile_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/tools/clientcmd"

	"commissaire/internal/profile"
)

// every calls f with the content of each variant on each system that is possible.
func every(t *testing.T, f func(t *testing.T, name string, c profile.Content)) {
	t.Helper()
	for name, of := range variants {
		for variant := range of {
			for system := range systems {
				if c, err := render(t, name, system, variant); err == nil {
					t.Run(name+"/"+variant+"/"+system, func(t *testing.T) { f(t, name, c) })
				}
			}
		}
	}
}

// TestFilesAreSafe: what every file and every service must be, whoever reads it.
func TestFilesAreSafe(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, _ string, c profile.Content) {
		var paths []string
		for _, f := range c.Files {
			paths = append(paths, f.Path)
			require.True(t, path.IsAbs(f.Path) && path.Clean(f.Path) == f.Path, f.Path)
			require.Equal(t, "root:root", f.Owner)
			require.Equal(t, f.Secret, f.Mode == fs.FileMode(0o600), f.Path)
			require.Equal(t, strings.HasPrefix(f.Path, "/etc/systemd/"), f.Unit, f.Path)
			content := f.Content.Reveal()
			require.True(t, bytes.HasSuffix(content, []byte("\n")), f.Path)
			holds := bytes.Contains(content, []byte(token)) || bytes.Contains(content, []byte("PRIVATE KEY"))
			require.True(t, f.Secret || !holds, "%s shows a secret", f.Path)
		}
		slices.Sort(paths)
		require.Len(t, slices.Compact(paths), len(c.Files), "a file stands there twice")
		services := slices.Clone(c.Services)
		slices.Sort(services)
		require.Len(t, slices.Compact(services), len(c.Services), "a service stands there twice")
		for _, printed := range []string{fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c)} {
			require.NotContains(t, printed, token)
			require.NotContains(t, printed, "PRIVATE KEY")
		}
	})
}

// TestImagesStayAsTheyAre: nothing is installed on a host that boots images.
func TestImagesStayAsTheyAre(t *testing.T) {
	t.Parallel()
	for name, of := range variants {
		for variant := range of {
			for _, system := range []string{"rpm-ostree", "bootc"} {
				c, err := render(t, name, system, variant)
				require.NoError(t, err)
				require.Empty(t, c.Packages)
				require.Empty(t, c.Repositories)
			}
		}
	}
}

// kubeletConfiguration has the fields in use of kubelet.config.k8s.io/v1beta1, which
// refuses any that it does not know.
type kubeletConfiguration struct {
	APIVersion     string `yaml:"apiVersion"`
	Kind           string
	Authentication struct {
		Anonymous struct{ Enabled bool }
		Webhook   struct{ Enabled bool }
		X509      struct {
			ClientCAFile string `yaml:"clientCAFile"`
		} `yaml:"x509"`
	}
	Authorization            struct{ Mode string }
	CgroupDriver             string   `yaml:"cgroupDriver"`
	ClusterDNS               []string `yaml:"clusterDNS"`
	ClusterDomain            string   `yaml:"clusterDomain"`
	ContainerRuntimeEndpoint string   `yaml:"containerRuntimeEndpoint"`
	RotateCertificates       bool     `yaml:"rotateCertificates"`
}

func TestKubeletConfiguration(t *testing.T) {
	t.Parallel()
	for system, endpoint := range map[string]string{
		"apt": "unix:///run/containerd/containerd.sock", "zypper": "unix:///run/containerd/containerd.sock",
		"dnf": "unix:///var/run/crio/crio.sock", "bootc": "unix:///var/run/crio/crio.sock",
	} {
		var k kubeletConfiguration
		d := yaml.NewDecoder(strings.NewReader(fileOf(t, profile.ContainerHost, system, "kubelet-dns-mirror", "/var/lib/kubelet/config.yaml")))
		d.KnownFields(true)
		require.NoError(t, d.Decode(&k))
		require.Equal(t, "kubelet.config.k8s.io/v1beta1", k.APIVersion)
		require.Equal(t, "KubeletConfiguration", k.Kind)
		require.False(t, k.Authentication.Anonymous.Enabled)
		require.True(t, k.Authentication.Webhook.Enabled)
		require.Equal(t, "/etc/kubernetes/pki/ca.crt", k.Authentication.X509.ClientCAFile)
		require.Equal(t, "Webhook", k.Authorization.Mode)
		require.Equal(t, "systemd", k.CgroupDriver)
		require.Equal(t, endpoint, k.ContainerRuntimeEndpoint)
		require.True(t, k.RotateCertificates)
		require.Equal(t, []string{"10.96.0.10"}, k.ClusterDNS)
	}
}

// TestKubeconfigs: Kubernetes' own library reads them.
func TestKubeconfigs(t *testing.T) {
	t.Parallel()
	c, err := clientcmd.Load([]byte(fileOf(t, profile.ContainerHost, "apt", "kubelet", "/etc/kubernetes/bootstrap-kubelet.conf")))
	require.NoError(t, err)
	require.Equal(t, api, c.Clusters["web"].Server)
	require.Equal(t, "/etc/kubernetes/pki/ca.crt", c.Clusters["web"].CertificateAuthority)
	require.Equal(t, token, c.AuthInfos["kubelet-bootstrap"].Token)
	require.Equal(t, "web", c.Contexts[c.CurrentContext].Cluster)
	require.Equal(t, "kubelet-bootstrap", c.Contexts[c.CurrentContext].AuthInfo)

	const old = "/var/lib/kubelet/kubeconfig"
	c, err = clientcmd.Load([]byte(fileOf(t, profile.Atomic2017, "dnf", "kube-token", old)))
	require.NoError(t, err)
	require.Equal(t, file(t, "ca.crt"), c.Clusters["web"].CertificateAuthorityData)
	require.False(t, c.Clusters["web"].InsecureSkipTLSVerify)
	require.Equal(t, token, c.AuthInfos["commissairenode"].Token)
	require.NoError(t, clientcmd.Validate(*c))

	c, err = clientcmd.Load([]byte(fileOf(t, profile.Atomic2017, "dnf", "kube-cert", old)))
	require.NoError(t, err)
	require.True(t, c.Clusters["web"].InsecureSkipTLSVerify, "nobody gave a CA")
	require.Equal(t, "/etc/kubernetes/client.crt", c.AuthInfos["commissairenode"].ClientCertificate)

	c, err = clientcmd.Load([]byte(fileOf(t, profile.Atomic2017, "dnf", "kube-http", old)))
	require.NoError(t, err)
	require.False(t, c.Clusters["web"].InsecureSkipTLSVerify)
}

// TestSettingsAreReadAsMeant: what a shell, and systemd like it, makes of files of
// settings.
func TestSettingsAreReadAsMeant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ variant, file, name, want string }{
		{"etcd-tls", "/etc/sysconfig/flanneld", "FLANNEL_ETCD_ENDPOINTS", "https://192.0.2.1:2379"},
		{"etcd-tls", "/etc/sysconfig/flanneld", "FLANNEL_OPTIONS", "--etcd-keyfile=/etc/etcd/key.crt --etcd-certfile=/etc/etcd/client.crt --etcd-cafile=/etc/etcd/cacert.pem"},
		{"etcd", "/etc/sysconfig/flanneld", "FLANNEL_OPTIONS", ""},
		{"server", "/etc/sysconfig/flanneld", "FLANNEL_OPTIONS", "--remote=192.0.2.1:8888"},
		{"server", "/etc/sysconfig/docker", "OPTIONS", "--registry-mirror=" + mirror + " --selinux-enabled --log-driver=journald"},
		{"kube-token", "/etc/kubernetes/kubelet", "KUBELET_HOSTNAME", "--hostname_override=192.0.2.20"},
		{"kube-token", "/etc/kubernetes/config", "KUBE_MASTER", "--master=" + api},
	} {
		content := fileOf(t, profile.Atomic2017, "dnf", c.variant, c.file)
		out, err := exec.Command("sh", "-uc", content+"\n"+c.name+"=${"+c.name+"-}\n"+`printf %s "$`+c.name+`"`).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, c.want, string(out), c.name)
	}
}
