package profile_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/profile"
	"commissaire/internal/secret"
)

// TestRefusals: what cannot work is refused before anything is done, and names the
// member to blame.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const leak = "hunter2"
	for _, c := range []struct {
		name, profile, base string
		change              func(in *profile.Input)
		kind                fleet.Kind
		field               string
	}{
		{"profile", "atomic", "", nil, fleet.Invalid, "profile"},
		{"system", profile.ContainerHost, "plain", func(in *profile.Input) { in.Host = fleet.Host{OS: "plan9"} }, fleet.NotReady, ""},
		{"mirror", profile.ContainerHost, "plain", func(in *profile.Input) { in.Settings.RegistryMirror = "mirror" }, fleet.Invalid, "registry_mirror"},
		{"mirror's password", profile.ContainerHost, "plain", func(in *profile.Input) { in.Settings.RegistryMirror = "https://u:" + leak + "@x" }, fleet.Invalid, "registry_mirror"},
		{"mirror of a node", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Settings.RegistryMirror = "ftp://x" }, fleet.Invalid, "registry_mirror"},
		{"openshift", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.Type = "openshift" }, fleet.Invalid, "options.kubelet"},
		{"no server", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.ServerURL = "" }, fleet.Invalid, "options.server_url"},
		{"http", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.ServerURL = "http://x" }, fleet.Invalid, "options.server_url"},
		{"no CA", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.CA = nil }, fleet.Invalid, "options.certificate_ca_path"},
		{"bad CA", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.CA = []byte(leak) }, fleet.Invalid, "options.certificate_ca_path"},
		{"key as CA", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.CA = file(t, "client.key") }, fleet.Invalid, "options.certificate_ca_path"},
		{"no token", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.BootstrapToken = secret.Text{} }, fleet.Invalid, "options.kubelet_bootstrap_token"},
		{"bad token", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.BootstrapToken = secret.NewText([]byte(leak + "\n")) }, fleet.Invalid, "options.kubelet_bootstrap_token"},
		{"DNS", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Manager.ClusterDNS = "dns" }, fleet.Invalid, "options.cluster_dns"},
		{"IPv6", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Host.Address = "2001:db8::1" }, fleet.NotReady, ""},
		{"underscore", profile.ContainerHost, "kubelet", func(in *profile.Input) { in.Host.Address = "a_b" }, fleet.NotReady, ""},
		{"network", profile.Atomic2017, "etcd", func(in *profile.Input) { in.Network.Type = "vxlan" }, fleet.Invalid, "network.type"},
		{"no etcd", profile.Atomic2017, "etcd", func(in *profile.Input) { in.Settings.Etcd.URL = "" }, fleet.Invalid, "etcd.server_url"},
		{"etcd", profile.Atomic2017, "etcd", func(in *profile.Input) { in.Settings.Etcd.URL = `http://x/";reboot` }, fleet.Invalid, "etcd.server_url"},
		{"etcd's key", profile.Atomic2017, "etcd-tls", func(in *profile.Input) { in.Settings.Etcd.Key = secret.NewText([]byte(leak)) }, fleet.Invalid, "etcd.certificate_path"},
		{"etcd's certificate", profile.Atomic2017, "etcd-tls", func(in *profile.Input) { in.Settings.Etcd.Cert = nil }, fleet.Invalid, "etcd.certificate_path"},
		{"etcd's CA", profile.Atomic2017, "etcd-tls", func(in *profile.Input) { in.Settings.Etcd.CA = []byte("x") }, fleet.Invalid, "etcd.certificate_ca_path"},
		{"no flannel", profile.Atomic2017, "server", func(in *profile.Input) { in.Network.Options = nil }, fleet.Invalid, "network.options.address"},
		{"flannel", profile.Atomic2017, "server", func(in *profile.Input) { in.Network.Options["address"] = "x --y" }, fleet.Invalid, "network.options.address"},
		{"flannel's type", profile.Atomic2017, "server", func(in *profile.Input) { in.Network.Options["address"] = 7 }, fleet.Invalid, "network.options.address"},
		{"token by http", profile.Atomic2017, "kube-token", func(in *profile.Input) { in.Manager.ServerURL = "http://x" }, fleet.Invalid, "options.server_url"},
		{"no login", profile.Atomic2017, "kube-token", func(in *profile.Input) { in.Manager.BootstrapToken = secret.Text{} }, fleet.Invalid, "options.kubelet_bootstrap_token"},
		{"no key", profile.Atomic2017, "kube-cert", func(in *profile.Input) { in.Manager.ClientKey = secret.Text{} }, fleet.Invalid, "options.certificate_path"},
		{"old CA", profile.Atomic2017, "kube-token", func(in *profile.Input) { in.Manager.CA = []byte("x") }, fleet.Invalid, "options.certificate_ca_path"},
	} {
		in := input(systems["dnf"])
		if c.change != nil {
			variants[c.profile][c.base](t, &in)
			c.change(&in)
		}
		content, err := profile.Render(c.profile, in)
		require.Error(t, err, c.name)
		require.Equal(t, c.kind, fleet.KindOf(err), "%s: %v", c.name, err)
		require.Empty(t, content)
		require.NotContains(t, err.Error(), leak)
		var e *fleet.Error
		require.ErrorAs(t, err, &e)
		if c.field != "" {
			require.Len(t, e.Fields, 1, c.name)
			require.Equal(t, c.field, e.Fields[0].Field, "%s: %v", c.name, err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"none", "container-host", "atomic-2017"}, profile.Names())
	require.Contains(t, profile.Names(), profile.Default)
	c, err := profile.Render(profile.None, profile.Input{Host: fleet.Host{OS: "plan9"}})
	require.NoError(t, err, "any host can be looked at")
	require.Empty(t, c)
}

// setting is a line as files of settings may have it: nothing in it is expanded.
var setting = regexp.MustCompile("^[A-Z_]+=(\"[^\"'`$\\\\]*\"|'[^\"'`$\\\\]*'|/etc/docker)$")

var (
	registries = regexp.MustCompile(`^\[\[registry\]\]\nlocation = "docker.io"\n\n\[\[registry.mirror\]\]\nlocation = "[^"\\ ]+"\ninsecure = (true|false)\n$`)
	hostsTOML  = regexp.MustCompile(`^server = "https://registry-1.docker.io"\n\n\[host."[^"\\ ]+"\]\n  capabilities = \["pull", "resolve"\]\n$`)
)

// FuzzRender: whatever somebody sets, no file gets lines or values that it must not
// have.
func FuzzRender(f *testing.F) {
	f.Add("http://192.0.2.1:2379", "192.0.2.1:8888", mirror, api)
	f.Add("https://[2001:db8::1]:2379/x", "[::1]:1", "http://a/b%20c", "https://a")
	f.Add("http://a", "a", "http://a/b%22%0Ac", "https://[::1%25%22]")
	f.Add("http://x\"\nA=b", "a b", "http://a'b", "https://$(x)")
	f.Fuzz(func(t *testing.T, etcd, remote, mirror, server string) {
		for name, of := range variants {
			for variant, change := range of {
				in := input(systems["dnf"])
				change(t, &in)
				if in.Settings.RegistryMirror != "" && name == profile.ContainerHost {
					in.Host.PackageManager = "apt"
				}
				in.Settings.Etcd.URL, in.Settings.RegistryMirror = etcd, mirror
				if in.Network.Options != nil {
					in.Network.Options["address"] = remote
				}
				if in.Manager != nil {
					in.Manager.ServerURL = server
				}
				c, err := profile.Render(name, in)
				if err != nil {
					if fleet.KindOf(err) != fleet.Invalid {
						t.Fatalf("%s %s: %v", name, variant, err)
					}
					continue
				}
				checkLines(t, c)
			}
		}
	})
}

func checkLines(t *testing.T, c profile.Content) {
	for _, f := range c.Files {
		content := string(f.Content.Reveal())
		settings := strings.HasPrefix(f.Path, "/etc/sysconfig/") || f.Path == "/etc/kubernetes/config" || f.Path == "/etc/kubernetes/kubelet"
		for line := range strings.Lines(content) {
			if settings && !setting.MatchString(strings.TrimSuffix(line, "\n")) {
				t.Fatalf("%s: %q", f.Path, line)
			}
			if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%s: %q", f.Path, line)
			}
		}
		if strings.Contains(f.Path, "/registries.conf.d/") && !registries.MatchString(content) || strings.HasSuffix(f.Path, "/hosts.toml") && !hostsTOML.MatchString(content) {
			t.Fatalf("%s: %q", f.Path, content)
		}
	}
}
