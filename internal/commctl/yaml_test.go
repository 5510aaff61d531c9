package commctl

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// testdata/yaml holds JSON values, one a line, and what PyYAML 6.0.3 makes of each:
// yaml.safe_dump(value, default_flow_style=False, allow_unicode=True, width=10**9).
func TestYAMLIsThatOfPyYAML(t *testing.T) {
	t.Parallel()
	values, err := os.ReadFile("testdata/yaml/values.jsonl")
	require.NoError(t, err)
	expected, err := os.ReadFile("testdata/yaml/pyyaml.txt")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(values)), "\n")
	texts := strings.Split(strings.TrimSuffix(string(expected), "=====\n"), "=====\n")
	require.Len(t, texts, len(lines))
	for i, line := range lines {
		require.Equal(t, texts[i], yamlOf(t, line), line)
	}
}

func TestYAMLOfTextThatCannotBePrinted(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"reason":"a\nb"}`:             "reason: \"a\\nb\"\n",
		`{"reason":"\u001b[2Jx"}`:       "reason: \"\\x1b[2Jx\"\n",
		`{"reason":"a\u009bb"}`:         "reason: \"a\\u009bb\"\n",
		`{"reason":"a\u202eb"}`:         "reason: \"a\\u202eb\"\n",
		`{"reason":"\u0000 \"q\" \\ "}`: "reason: \"\\x00 \\\"q\\\" \\\\ \"\n",
		`{"reason":"caf\u00e9"}`:        "reason: café\n",
	} {
		got := yamlOf(t, in)
		require.Equal(t, want, got)
		var a, b any
		require.NoError(t, yaml.Unmarshal([]byte(got), &a), got)
		require.NoError(t, yaml.Unmarshal([]byte(in), &b)) // JSON is YAML
		require.Equal(t, b, a)
	}
}

func yamlOf(t *testing.T, text string) string {
	t.Helper()
	value, err := decode([]byte(text))
	require.NoError(t, err)
	var b bytes.Buffer
	writeYAML(&b, value)
	return b.String()
}
