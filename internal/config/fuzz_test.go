package config_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
)

// fromText reads settings from standard input alone.
func fromText(t *testing.T, text string) (*config.Loaded, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Flags(fs)
	require.NoError(t, fs.Set("config-file", "-"))
	return config.Load(fs, nil, strings.NewReader(text))
}

// FuzzFile: a configuration file in either language gives settings that can be
// shown, or an error.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"", "{}", "{", "[]", "null", "{} {}", "a", "&a [*a]", "? [x]\n: y", "7: 8", "---\n---\n",
		`{"listen-port": 8001, "listen_port": 8002}`, `{"listen-port": 1e400}`, `{"listen_port": "x"}`, `{"listen-prot": 1}`,
		`{"authentication-plugins": [{"name": "commissaire_http.authentication.httpbasicauth", "filepath": "conf/users.json"}]}`,
		`{"authentication-plugin": {"name": "x", "users": {"a": {"hash": "$2a$"}}}}`, `{"bus-uri": "redis://", "self-auths": ["/x"]}`,
		"listen-port: 8001\nauthentication-plugins:\n- name: oidc\n  url: https://x\n", "listen-port: 0o17\n", "listen-port: 2026-11-20\n",
		"authentication-plugins: [{name: a, b: {1: 2}}]\n", "a: &a [x]\n<<: *a\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := fromText(t, text)
		if err != nil {
			return
		}
		require.NoError(t, c.Validate())
		_, err = json.Marshal(c.View())
		require.NoError(t, err)
	})
}

// FuzzSecretInFile: whatever a secret is made of, quoted or not, no error shows it
// and neither does the view.
func FuzzSecretInFile(f *testing.F) {
	for _, text := range []string{"", "*", "&", "!", "!!int ", "!!binary ", "%", "@", "'", `"`, `"\x`, "[", "{", "|", ">", "- ", "? ", "0x", "`", "\t", "# "} {
		f.Add(text)
	}
	const marker = "hunter2"
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\n\r\u0085\u2028\u2029:,?") || !utf8.ValidString(text) {
			t.Skip("more than one value")
		}
		for _, file := range []string{
			"authentication-plugins:\n- name: x\n  token: " + text + marker + "\n",
			"authentication-plugins:\n- name: x\n  users:\n    a:\n      hash: " + text + marker + "\n",
			"listen-port: " + text + marker + "\n",
		} {
			c, err := fromText(t, file)
			if err != nil {
				require.NotContains(t, err.Error(), marker)
				continue
			}
			shown, err := json.Marshal(c.View())
			require.NoError(t, err)
			require.NotContains(t, string(shown), marker)
		}
	})
}
