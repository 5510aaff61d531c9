package profile_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/profile"
	"commissaire/internal/secret"
)

// systems has one for each family, and those that differ within theirs.
var systems = map[string]fleet.Host{
	"apt":        {OS: "debian", OSVersion: "12", PackageManager: "apt"},
	"dnf":        {OS: "fedora", OSVersion: "43", PackageManager: "dnf"},
	"yum":        {OS: "centos", OSVersion: "7", PackageManager: "yum"},
	"yum-rhel":   {OS: "rhel", OSVersion: "7.9", PackageManager: "yum"},
	"zypper":     {OS: "opensuse-leap", OSVersion: "15.6", PackageManager: "zypper"},
	"rpm-ostree": {OS: "fedora", OSVersion: "43", OSTree: true},
	"bootc":      {OS: "fedora", OSVersion: "43", OSTree: true, Bootc: true, PackageManager: "dnf"},
}

const (
	mirror = "http://mirror.example.org:5000/hub"
	api    = "https://192.0.2.10:6443"
	token  = "abcdef.0123456789abcdef"
)

// variants are what a profile can be asked for, each a change to input.
var variants = map[string]map[string]func(testing.TB, *profile.Input){
	profile.None: {
		"plain": func(testing.TB, *profile.Input) {},
	},
	profile.ContainerHost: {
		"plain":  func(testing.TB, *profile.Input) {},
		"mirror": func(_ testing.TB, in *profile.Input) { in.Settings.RegistryMirror = mirror },
		"manager": func(_ testing.TB, in *profile.Input) {
			in.Manager = &profile.Manager{Type: "openshift", ServerURL: api}
		},
		"kubelet": kubelet,
		"kubelet-dns-mirror": func(t testing.TB, in *profile.Input) {
			kubelet(t, in)
			in.Manager.ClusterDNS = "10.96.0.10"
			in.Settings.RegistryMirror = "https://mirror.example.org"
		},
	},
	profile.Atomic2017: {
		"etcd":     func(_ testing.TB, in *profile.Input) { in.Settings.Etcd.URL = "http://192.0.2.1:2379" },
		"etcd-tls": etcdTLS,
		"server": func(_ testing.TB, in *profile.Input) {
			flannelServer(in)
			in.Settings.RegistryMirror = mirror
		},
		"server-tls": func(t testing.TB, in *profile.Input) {
			etcdTLS(t, in)
			flannelServer(in)
		},
		"kube-token": func(t testing.TB, in *profile.Input) {
			etcdTLS(t, in)
			kubelet(t, in)
		},
		"kube-cert": func(t testing.TB, in *profile.Input) {
			flannelServer(in)
			in.Manager = &profile.Manager{Type: "kubernetes", ServerURL: api, ClientCert: file(t, "client.crt"), ClientKey: key(t)}
		},
		"kube-http": func(_ testing.TB, in *profile.Input) {
			flannelServer(in)
			in.Manager = &profile.Manager{Type: "kubernetes", ServerURL: "http://192.0.2.10:8080"}
		},
	},
}

func kubelet(t testing.TB, in *profile.Input) {
	in.Manager = &profile.Manager{
		Type: "kubernetes", ServerURL: api, CA: file(t, "ca.crt"), Kubelet: true, BootstrapToken: secret.NewText([]byte(token)),
	}
}

func etcdTLS(t testing.TB, in *profile.Input) {
	in.Settings.Etcd = profile.Etcd{URL: "https://192.0.2.1:2379", Cert: file(t, "client.crt"), Key: key(t), CA: file(t, "ca.crt")}
}

func flannelServer(in *profile.Input) {
	in.Network = fleet.Network{Name: "default", Type: fleet.NetworkFlannelServer, Options: map[string]any{"address": "192.0.2.1:8888"}}
}

// input is of a host of a system, without anything that a variant adds.
func input(host fleet.Host) profile.Input {
	host.Address = "192.0.2.20"
	return profile.Input{Host: host, Cluster: "web", Network: fleet.Network{Name: "default", Type: fleet.NetworkFlannelEtcd}}
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/pem/" + name)
	require.NoError(t, err)
	return b
}

func key(t testing.TB) secret.Text { return secret.NewText(file(t, "client.key")) }

// render gives the content of a variant on a system.
func render(t testing.TB, name, system, variant string) (profile.Content, error) {
	t.Helper()
	in := input(systems[system])
	variants[name][variant](t, &in)
	return profile.Render(name, in)
}

// fileOf gives the content of one file of a variant that must be possible.
func fileOf(t testing.TB, name, system, variant, path string) string {
	t.Helper()
	c, err := render(t, name, system, variant)
	require.NoError(t, err)
	for _, f := range c.Files {
		if f.Path == path {
			return string(f.Content.Reveal())
		}
	}
	t.Fatalf("no file %s", path)
	return ""
}
