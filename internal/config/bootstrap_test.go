package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
	"commissaire/internal/profile"
)

func TestBootstrapProfile(t *testing.T) {
	t.Parallel()
	require.Equal(t, profile.Default, config.Defaults().BootstrapProfile)
	for _, name := range profile.Names() {
		c, err := load(t, []string{"--no-config-file", "--bootstrap-profile", name}, nil)
		require.NoError(t, err)
		require.Equal(t, name, c.BootstrapProfile)
	}
	for _, name := range []string{"", "atomic"} {
		_, err := load(t, []string{"--no-config-file", "--bootstrap-profile", name}, nil)
		require.ErrorContains(t, err, "bootstrap-profile: must be none, container-host or atomic-2017")
	}
}

// TestOldEtcd: what an old file says of etcd is what flannel goes by.
func TestOldEtcd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, url, cert, key, ca string }{
		"list":        {`{"storage_handlers": [{"type": "memory"}, {"type": "commissaire.storage.etcd", "server_url": "https://e:2379", "certificate_path": "/c", "certificate-key-path": "/k", "certificate_ca_path": "/a", "models": ["*"]}]}`, "https://e:2379", "/c", "/k", "/a"},
		"one":         {`{"storage-handlers": {"type": "etcd", "server-url": "http://e:2379"}}`, "http://e:2379", "", "", ""},
		"2016":        {`{"register-store-handler": {"name": "commissaire.store.etcd", "server_url": "http://e:2379"}}`, "http://e:2379", "", "", ""},
		"own setting": {`{"storage_handlers": [{"type": "etcd", "server_url": "http://old"}], "etcd-server-url": "http://new"}`, "http://new", "", "", ""},
		"no etcd":     {`{"storage_handlers": [{"type": "kubernetes", "server_url": "http://x"}]}`, "", "", "", ""},
		"nonsense":    {`{"storage_handlers": ["etcd", 1, null, {"type": 1}]}`, "", "", "", ""},
		"null":        {`{"storage_handlers": null}`, "", "", "", ""},
	} {
		got, err := load(t, []string{"-c", write(t, "c.conf", c.file)}, nil)
		require.NoError(t, err, name)
		require.Equal(t, []string{c.url, c.cert, c.key, c.ca}, []string{got.EtcdServerURL, got.EtcdCertificatePath, got.EtcdCertificateKeyPath, got.EtcdCertificateCAPath}, name)
		require.Len(t, got.Warnings, 1, name)
	}
	_, err := load(t, []string{"-c", write(t, "c.conf", `{"storage_handlers": [{"type": "etcd", "certificate_path": "/c"}]}`)}, nil)
	require.ErrorContains(t, err, "etcd-certificate-path: must be set together with etcd-certificate-key-path")
}
