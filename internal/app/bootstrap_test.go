package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
	"commissaire/internal/profile"
	"commissaire/internal/secret"
)

func TestBootstrapSettings(t *testing.T) {
	t.Parallel()
	c := config.Defaults()
	s, err := bootstrapSettings(c)
	require.NoError(t, err)
	require.Equal(t, profile.Settings{}, s)

	path := filepath.Join(t.TempDir(), "file")
	c.RegistryMirror, c.EtcdServerURL = "http://mirror", "https://etcd:2379"
	c.EtcdCertificatePath, c.EtcdCertificateKeyPath, c.EtcdCertificateCAPath = path, path, path
	_, err = bootstrapSettings(c)
	for _, setting := range []string{"etcd-certificate-path", "etcd-certificate-key-path", "etcd-certificate-ca-path"} {
		require.ErrorContains(t, err, setting)
	}
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<20+1), 0o600))
	_, err = bootstrapSettings(c)
	require.ErrorContains(t, err, "etcd-certificate-ca-path cannot be read on the machine of the worker: it is larger than 1 MB")
	c.EtcdCertificateCAPath = "/dev/zero"
	_, err = bootstrapSettings(c)
	require.ErrorContains(t, err, "etcd-certificate-ca-path cannot be read on the machine of the worker: it is no file")
	c.EtcdCertificateCAPath = path
	for _, content := range []string{"one", "two"} { // it may change
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		s, err = bootstrapSettings(c)
		require.NoError(t, err)
		require.True(t, s.Etcd.Key.Equal(secret.NewText([]byte(content))))
		s.Etcd.Key = secret.Text{}
		require.Equal(t, profile.Settings{RegistryMirror: "http://mirror", Etcd: profile.Etcd{URL: "https://etcd:2379", Cert: []byte(content), CA: []byte(content)}}, s)
	}
}
