package secret

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOpenKeyFile: a file either seals and opens, or the error is about the file
// and shows nothing of what is in it.
func FuzzOpenKeyFile(f *testing.F) {
	for _, text := range []string{"", "{}", "null", "[]", `{"primaryKeyId":1,"key":[]}`, `{"primaryKeyId":1}`, `{"primaryKeyId":1,"key":[{"keyData":{"typeUrl":"type.googleapis.com/google.crypto.tink.AesGcmKey","value":"GhAAAQIDBAUGBwgJCgsMDQ4P","keyMaterialType":"SYMMETRIC"},"status":"ENABLED","keyId":1,"outputPrefixType":"TINK"}]}`, `{"primaryKeyId":"hunter2"}`, "hunter2"} {
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), "seal.key")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		s, err := OpenKeyFile(path)
		if err != nil {
			require.Contains(t, err.Error(), path)
			require.Less(t, len(err.Error()), len(path)+300)
			require.NotContains(t, err.Error(), "hunter2")
			return
		}
		sealed, err := s.Seal(NewText([]byte("x")), "row")
		require.NoError(t, err)
		opened, err := s.Open(sealed, "row")
		require.NoError(t, err)
		require.Equal(t, []byte("x"), opened.Reveal())
	})
}
