package authn

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzUsers: of a users file all users count or none, each with a hash that can be
// compared with in time, and no error shows a hash.
func FuzzUsers(f *testing.F) {
	hash := "$2a$12$" + strings.Repeat("a", 53)
	for _, text := range []string{
		"", "null", "[]", "{}", "{} {}", `{"a": null}`, `{"a": {"hash": 7}}`, `{"a": {"hash": "plaintext"}}`,
		`{"a": {"hash": "` + hash + `"}}`, `{"a": {"hash": "` + hash + `", "role": "viewer"}, "b": {"hash": "` + hash + `"}}`,
		`{"a": {"hash": "` + hash + `", "role": "king"}}`, `{"a:b": {"hash": "` + hash + `"}}`, `{"": {"hash": "` + hash + `"}}`,
		`{"a": {"hash": "$2a$31$` + strings.Repeat("a", 53) + `"}}`, `{"a": {"hash": "` + hash + `", "x": 1}}`, `{"a": {"hash": "` + hash,
	} {
		f.Add(text)
	}
	file := filepath.Join(f.TempDir(), "users.json")
	f.Fuzz(func(t *testing.T, text string) {
		write(t, file, text)
		set, err := newUserFile(BasicOptions{File: file}, slog.New(slog.DiscardHandler)).load()
		require.True(t, bcryptPattern.MatchString(set.dummy))
		if err != nil {
			require.Empty(t, set.users)
			var given map[string]map[string]any
			if json.Unmarshal([]byte(text), &given) != nil {
				return
			}
			for _, user := range given {
				if secret, _ := user["hash"].(string); len(secret) > 12 {
					require.NotContains(t, err.Error(), secret)
				}
			}
			return
		}
		for name, user := range set.users {
			require.NotEmpty(t, name)
			require.NotContains(t, name, ":")
			require.LessOrEqual(t, costOf(user.Hash), maxCost)
			require.LessOrEqual(t, len(set.padding(user.Hash)), maxCost)
			require.Contains(t, []string{"", "viewer", "operator", "admin"}, string(user.Role))
		}
	})
}
