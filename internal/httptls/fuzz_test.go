package httptls_test

import (
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/httptls"
)

// FuzzFiles: whatever is in the files of certificates and keys, there are settings
// or an error that says which file it is about and shows no more than a line.
func FuzzFiles(f *testing.F) {
	for _, kind := range []string{"CERTIFICATE", "X509 CRL", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PUBLIC KEY"} {
		f.Add(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("no ASN.1")})))
	}
	f.Add("")
	f.Add("-----BEGIN CERTIFICATE-----\n")
	f.Add("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----\n")
	file := filepath.Join(f.TempDir(), "file.pem")
	logger := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		if err := httptls.CheckAuthorities(file, logger); err != nil {
			require.Contains(t, err.Error(), file)
			require.Less(t, len(err.Error()), 500+len(text))
		}
		config, err := httptls.Config(httptls.Files{Cert: file, Key: file, ClientVerify: file}, logger)
		if err != nil {
			require.Contains(t, err.Error(), file)
			require.Less(t, len(err.Error()), 500+2*len(file)+len(text))
			return
		}
		require.NotNil(t, config)
	})
}
