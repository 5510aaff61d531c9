package authn

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckUsers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.json")
	spec := Spec{Name: oldPackage + "httpbasicauth", Options: map[string]any{"filepath": path}}
	require.ErrorContains(t, CheckUsers(spec), "users of "+path+": ")
	for text, want := range map[string]string{
		`{`:                                "not of the form",
		`{"a": {"hash": "hunter2"}}`:       `user "a": the hash is not bcrypt`,
		`{"a": {"hash": "$2b$04$` + `x"}}`: `user "a": the hash is not bcrypt`,
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		err := CheckUsers(spec)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
	require.NoError(t, os.WriteFile(path, []byte(`{}`), 0o600))
	require.NoError(t, CheckUsers(spec))

	// What Build refuses is told there, and other plug-ins have no users.
	require.NoError(t, CheckUsers(Spec{Name: "nonesuch"}))
	require.NoError(t, CheckUsers(Spec{Name: "httpbasicauth"}))
	require.NoError(t, CheckUsers(Spec{Name: "httpbasicauth", Options: map[string]any{"filepath": 5}}))
	require.NoError(t, CheckUsers(Spec{Name: "apitoken"}))
}
