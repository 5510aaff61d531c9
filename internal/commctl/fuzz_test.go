package commctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// What any text of a server comes out as is read as the same text.
func FuzzYAMLString(f *testing.F) {
	for _, text := range []string{"", "web", "a: b", "- x", "'", "2026-11-20T14:03:00.123456", "no", "\x1b[2J", "a\nb", "\u2028", "#", "1:30"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			t.Skip("JSON has no such text")
		}
		written := yamlString(text)
		require.Equal(t, written, legible(written), "no terminal is steered")
		require.NotContains(t, written, "\n")
		// Without the type, about which YAML 1.1 and 1.2 differ: 08 is a string in one.
		var read yaml.Node
		require.NoError(t, yaml.Unmarshal([]byte("k: "+written+"\n"), &read), written)
		require.Equal(t, text, read.Content[0].Content[1].Value, written)
	})
}

// An answer with an error becomes a line or more for the terminal, whatever it is.
func FuzzExplain(f *testing.F) {
	f.Add(400, []byte(`{"title":"Wrong","status":400,"detail":"no","errors":[{"field":"a","detail":"b"}],"holder":{"operation":"01a","url":"/x"}}`))
	f.Add(503, []byte(`{"title":"Away","status":503,"request_id":"r"}`))
	f.Add(403, []byte(`Forbidden`))
	f.Add(500, []byte(`{"title":7}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		require.NotEmpty(t, explain(status, body))
		if status < 200 || status > 299 {
			require.Error(t, failure(status, body))
			require.Error(t, refusal("GET", "/x", status, body))
		}
	})
}

func FuzzKubeconfig(f *testing.F) {
	f.Add("current-context: c\ncontexts: [{name: c, context: {user: u}}]\nusers: [{name: u, user: {token: t}}]\n")
	f.Add("current-context: c\ncontexts: [{name: c, context: {user: u}}]\nusers: [{name: u, user: {client-certificate-data: eA==, client-key-data: eA==}}]\n")
	f.Add("users: 7")
	f.Add("&a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/") {
			t.Skip("may name a file")
		}
		path := filepath.Join(t.TempDir(), "kube")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		c, err := readKubeconfig(path)
		if err == nil {
			require.True(t, c.token != "" || c.username != "" || c.certificate != nil)
		}
	})
}

func FuzzSplitSSH(f *testing.F) {
	f.Add("-p 2222 -v uptime")
	f.Add("-- -x")
	f.Add("-")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		options, command, err := splitSSH(args)
		if err != nil {
			return
		}
		sets(options, 'p')
		if len(options)+len(command) == len(args) {
			return
		}
		require.Equal(t, "--", args[len(options)])
		require.Len(t, args, len(options)+1+len(command))
	})
}
