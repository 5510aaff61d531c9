package options_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
)

const (
	address    = "https://10.2.0.1:6443"
	secretWord = "s3cr3t-w0rd"
)

func TestDefaults(t *testing.T) {
	t.Parallel()
	o, err := options.Parse(map[string]any{"server_url": address})
	require.NoError(t, err)
	require.Equal(t, options.Options{ServerURL: address, ActiveWhen: options.Ready, ReadyTimeout: options.DefaultReadyTimeout}, o)
}

func TestEveryOption(t *testing.T) {
	t.Parallel()
	// As they come out of a JSON body.
	var given map[string]any
	require.NoError(t, json.Unmarshal([]byte(`{"server_url": "`+address+`", "token": " `+secretWord+`\n", "certificate_path": "/a", "certificate_key_path": "/b",
		"certificate_ca_path": "/c", "insecure_skip_tls_verify": false, "active_when": "registered", "ready_timeout": "90s", "max_unavailable": "10%"}`), &given))
	o, err := options.Parse(given)
	require.NoError(t, err)
	require.Equal(t, secretWord, string(o.Token.Reveal()), "a token read from a file ends with a line break")
	require.NotContains(t, o.Token.String(), secretWord)
	require.Equal(t, []string{address, "/a", "/b", "/c", options.Registered}, []string{o.ServerURL, o.Cert, o.CertKey, o.CA, o.ActiveWhen})
	require.Equal(t, 90*time.Second, o.ReadyTimeout)
	require.Equal(t, fleet.Percent(10), o.MaxUnavailable)
	require.False(t, o.Insecure)

	o, err = options.Parse(map[string]any{"kubeconfig": "it has the CA", "kubelet": true, "kubelet_bootstrap_token": secretWord + "\n", "cluster_dns": "10.96.0.10"})
	require.NoError(t, err)
	require.True(t, o.Kubelet)
	require.False(t, o.Insecure)
	require.Equal(t, []string{secretWord, "10.96.0.10"}, []string{string(o.KubeletToken.Reveal()), o.ClusterDNS})
	require.NotContains(t, o.KubeletToken.String(), secretWord)

	o, err = options.Parse(map[string]any{"kubeconfig": "not looked at", "insecure_skip_tls_verify": true, "ready_timeout": 30, "max_unavailable": 3})
	require.NoError(t, err)
	require.Equal(t, "not looked at", string(o.Kubeconfig.Reveal()))
	require.Equal(t, 30*time.Second, o.ReadyTimeout)
	require.Equal(t, fleet.Count(3), o.MaxUnavailable)
	require.True(t, o.Insecure)
}

// TestFlags: commctl -o NAME=true gives a text.
func TestFlags(t *testing.T) {
	t.Parallel()
	for _, given := range []any{true, "true", false, "false"} {
		o, err := options.Parse(map[string]any{
			"kubeconfig": "x", "insecure_skip_tls_verify": given, "kubelet": given, "kubelet_bootstrap_token": secretWord,
		})
		require.NoError(t, err)
		want := given == true || given == "true"
		require.Equal(t, []bool{want, want}, []bool{o.Insecure, o.Kubelet}, "%#v", given)
	}
	for _, given := range []any{"", "True", "yes", "1", 1, nil} {
		_, err := options.Parse(map[string]any{"kubeconfig": "x", "insecure_skip_tls_verify": given, "kubelet": given, "kubelet_bootstrap_token": secretWord})
		requireBlamed(t, err, "insecure_skip_tls_verify", "kubelet")
	}
}

func TestMaxUnavailable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		given any
		want  *fleet.Amount // nil is refused
	}{
		{1, fleet.Count(1)}, {7.0, fleet.Count(7)}, {"5", fleet.Count(5)}, {"100%", fleet.Percent(100)}, {"1%", fleet.Percent(1)}, {json.Number("12"), fleet.Count(12)},
		{0, nil}, {"0%", nil}, {-1, nil}, {1.5, nil}, {"101%", nil}, {"", nil}, {"many", nil}, {true, nil}, {nil, nil}, {[]any{1}, nil}, {map[string]any{"value": 1}, nil}, {1e12, nil},
	} {
		o, err := options.Parse(map[string]any{"server_url": address, "max_unavailable": c.given})
		if c.want == nil {
			requireBlamed(t, err, "max_unavailable")
			continue
		}
		require.NoError(t, err, "%v", c.given)
		require.Equal(t, c.want, o.MaxUnavailable)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given  map[string]any
		blamed []string
	}{
		"nothing":               {nil, []string{"server_url"}},
		"unknown":               {map[string]any{"server_url": address, "apiserver": secretWord}, []string{"apiserver"}},
		"v0's spelling":         {map[string]any{"server_url": address, "Token": secretWord}, []string{"Token"}},
		"no strings":            {map[string]any{"server_url": 1, "token": []any{secretWord}, "kubeconfig": nil}, []string{"kubeconfig", "server_url", "token"}},
		"no flag":               {map[string]any{"server_url": address, "insecure_skip_tls_verify": "yes"}, []string{"insecure_skip_tls_verify"}},
		"active when":           {map[string]any{"server_url": address, "active_when": "soon"}, []string{"active_when"}},
		"active when what":      {map[string]any{"server_url": address, "active_when": 1}, []string{"active_when"}},
		"no time":               {map[string]any{"server_url": address, "ready_timeout": "soon"}, []string{"ready_timeout"}},
		"no time at all":        {map[string]any{"server_url": address, "ready_timeout": 0}, []string{"ready_timeout"}},
		"for too long":          {map[string]any{"server_url": address, "ready_timeout": "61m"}, []string{"ready_timeout"}},
		"no address":            {map[string]any{"server_url": "10.2.0.1:6443"}, []string{"server_url"}},
		"password in it":        {map[string]any{"server_url": "https://u:" + secretWord + "@10.2.0.1"}, []string{"server_url"}},
		"token in the clear":    {map[string]any{"server_url": "http://10.2.0.1", "token": secretWord}, []string{"server_url"}},
		"certificate, too":      {map[string]any{"server_url": "http://10.2.0.1", "certificate_path": "/a", "certificate_key_path": "/b"}, []string{"server_url"}},
		"token with a line":     {map[string]any{"server_url": address, "token": secretWord + "\nX-Other: y"}, []string{"token"}},
		"kubelet, but no token": {map[string]any{"server_url": address, "certificate_ca_path": "/a", "kubelet": true}, []string{"kubelet_bootstrap_token"}},
		"kubelet, but no CA":    {map[string]any{"server_url": address, "kubelet": true, "kubelet_bootstrap_token": secretWord}, []string{"certificate_ca_path"}},
		"kubelet of what kind":  {map[string]any{"server_url": address, "kubelet": "yes"}, []string{"kubelet"}},
		"kubelet's wild token":  {map[string]any{"server_url": address, "kubelet_bootstrap_token": secretWord + " x"}, []string{"kubelet_bootstrap_token"}},
		"name of the DNS":       {map[string]any{"server_url": address, "cluster_dns": "dns.example"}, []string{"cluster_dns"}},
		"no key":                {map[string]any{"server_url": address, "certificate_path": "/a"}, []string{"certificate_key_path"}},
		"no certificate":        {map[string]any{"server_url": address, "certificate_key_path": "/a"}, []string{"certificate_path"}},
		"CA and insecure":       {map[string]any{"server_url": address, "certificate_ca_path": "/a", "insecure_skip_tls_verify": true}, []string{"insecure_skip_tls_verify"}},
		"all of it twice": {map[string]any{"server_url": address, "token": secretWord, "certificate_path": "/a", "certificate_key_path": "/b", "certificate_ca_path": "/c", "kubeconfig": secretWord},
			[]string{"certificate_ca_path", "certificate_key_path", "certificate_path", "server_url", "token"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, err := options.Parse(c.given)
			requireBlamed(t, err, c.blamed...)
			require.Equal(t, options.Options{}, o)
		})
	}
}

// requireBlamed wants an error that names just these options, and tells nothing secret.
func requireBlamed(t *testing.T, err error, want ...string) {
	t.Helper()
	var e *fleet.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, fleet.Invalid, e.Kind)
	blamed := map[string]bool{}
	for _, f := range e.Fields {
		blamed[strings.TrimPrefix(f.Field, "options.")] = true
		require.NotContains(t, f.Detail, secretWord)
		require.Equal(t, options.Field(strings.TrimPrefix(f.Field, "options.")), f.Field)
	}
	require.Equal(t, want, slices.Sorted(maps.Keys(blamed)), "%v", err)
	require.NotContains(t, err.Error(), secretWord)
}

func TestServer(t *testing.T) {
	t.Parallel()
	for _, good := range []string{address, "http://10.2.0.1:8080", "https://[2001:db8::1]:6443/", "https://kube.example.com/prefix"} {
		u, err := options.Server(good)
		require.NoError(t, err)
		require.Equal(t, good, u.String())
	}
	for _, bad := range []string{"", "10.2.0.1:6443", "kube.example.com", "file:///etc/passwd", "https://:6443", "https://", "ftp://10.2.0.1", "https://u@10.2.0.1", "https://10.2.0.1:x", "https://\n"} {
		_, err := options.Server(bad)
		require.Error(t, err, "%q", bad)
	}
}
