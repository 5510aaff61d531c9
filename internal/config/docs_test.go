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

// TestDocs keeps the table of settings true: it is made from the struct.
func TestDocs(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("# Configuration\n\n" +
		"Every setting can be given as a flag (`--name`), as an environment variable, or as a member of the\n" +
		"configuration file (JSON, or YAML when it ends in `.yaml` or `.yml`; `-` and `_` are the same in names).\n" +
		"A flag beats the environment, the environment beats the file, the file beats the default. The file is\n" +
		"`" + config.DefaultFile + "` when that exists, else the one named by `--config-file` or `COMMISSAIRE_CONFIG_FILE`.\n" +
		"Unknown names are errors; in a file or the environment they name the nearest known one. Durations are written like `10s`, `5m`, `1h30m`.\n\n" +
		"This page is made from the settings themselves: `go test ./internal/config -run TestDocs -update`.\n\n" +
		"| setting | environment | default | what it does |\n|---|---|---|---|\n")
	for _, s := range config.Settings() {
		def := "`" + s.Default + "`"
		if s.Default == "" {
			def = ""
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", s.Name, s.Env, def, s.Usage)
	}
	if *update {
		require.NoError(t, os.MkdirAll("../../docs", 0o755))
		require.NoError(t, os.WriteFile(docs, []byte(b.String()), 0o644))
	}
	have, err := os.ReadFile(docs)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(have), "docs/configuration.md is out of date; run this test with -update")
}
