package app

import (
	"errors"
	"fmt"

	"commissaire/internal/config"
	"commissaire/internal/containermgr"
	"commissaire/internal/profile"
	"commissaire/internal/secret"
)

// bootstrapSettings reads what the installation says of bootstraps. Its files are read
// each time, so that a new certificate needs no new worker.
func bootstrapSettings(c *config.Config) (profile.Settings, error) {
	s := profile.Settings{RegistryMirror: c.RegistryMirror, Etcd: profile.Etcd{URL: c.EtcdServerURL}}
	var key []byte
	var errs []error
	for _, f := range []struct {
		setting, path string
		into          *[]byte
	}{
		{"etcd-certificate-path", c.EtcdCertificatePath, &s.Etcd.Cert},
		{"etcd-certificate-key-path", c.EtcdCertificateKeyPath, &key},
		{"etcd-certificate-ca-path", c.EtcdCertificateCAPath, &s.Etcd.CA},
	} {
		if f.path == "" {
			continue
		}
		var err error
		if *f.into, err = containermgr.ReadFile(f.path); err != nil {
			errs = append(errs, fmt.Errorf("%s cannot be read on the machine of the worker: %w", f.setting, err))
		}
	}
	if key != nil {
		s.Etcd.Key = secret.NewText(key)
	}
	return s, errors.Join(errs...)
}
