package config_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

const docs = "../../docs/configuration.md"

// The table stands between these lines; the rest of the page is written by hand.
const (
	tableBegins = "<!-- settings: made by go test ./internal/config -run TestDocs -update -->\n"
	tableEnds   = "<!-- end of settings -->\n"
)

// TestDocs keeps the table of settings true: it is made from the struct.
func TestDocs(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("| setting | environment | default | what it does |\n|---|---|---|---|\n")
	for _, s := range config.Settings() {
		name, def := "`"+s.Name+"`", "`"+s.Default+"`"
		if s.Flag != s.Name {
			name += ", `--" + s.Flag + "`"
		}
		if s.Default == "" {
			def = ""
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", name, s.Env, def, s.Usage)
	}
	page, err := os.ReadFile(docs)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(page), tableBegins)
	require.True(t, ok, "%s has no line %q", docs, tableBegins)
	table, after, ok := strings.Cut(rest, tableEnds)
	require.True(t, ok, "%s has no line %q", docs, tableEnds)
	if *update {
		table = b.String()
		require.NoError(t, os.WriteFile(docs, []byte(before+tableBegins+table+tableEnds+after), 0o644))
	}
	require.Equal(t, b.String(), table, "docs/configuration.md is out of date; run this test with -update")
}
