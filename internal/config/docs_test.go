package config_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/authn"
	"commissaire/internal/config"
	"commissaire/internal/hostsource"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md anew")

const docs = "../../docs/configuration.md"

// TestDocs keeps the tables of the page true. Each stands between two comments;
// the rest of the page is written by hand.
func TestDocs(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]string{"settings": settingsTable(), "plug-ins": pluginTable(), "sources": sourceTable()} {
		begins, ends := "<!-- "+name+": made by go test ./internal/config -run TestDocs -update -->\n", "<!-- end of "+name+" -->\n"
		page, err := os.ReadFile(docs)
		require.NoError(t, err)
		before, rest, ok := strings.Cut(string(page), begins)
		require.True(t, ok, "%s has no line %q", docs, begins)
		have, after, ok := strings.Cut(rest, ends)
		require.True(t, ok, "%s has no line %q", docs, ends)
		if *update {
			have = table
			require.NoError(t, os.WriteFile(docs, []byte(before+begins+table+ends+after), 0o644))
		}
		require.Equal(t, table, have, "docs/configuration.md is out of date; run this test with -update")
	}
}

func settingsTable() string {
	var b strings.Builder
	b.WriteString("| setting | environment | default | what it does |\n|---|---|---|---|\n")
	for _, s := range config.Settings() {
		name := "`" + s.Name + "`"
		if s.Flag != s.Name {
			name += ", `--" + s.Flag + "`"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", name, s.Env, code(s.Default), s.Usage)
	}
	return b.String()
}

func pluginTable() string {
	var b strings.Builder
	b.WriteString("| plug-in | option | default | what it is |\n|---|---|---|---|\n")
	for _, p := range authn.Plugins() {
		name := code(p.Name)
		for _, alias := range p.Aliases {
			name += ", " + code(alias)
		}
		fmt.Fprintf(&b, "| %s | | | %s |\n", name, p.Usage)
		for _, o := range p.Options {
			fmt.Fprintf(&b, "| | `%s` | %s | %s |\n", o.Name, code(o.Default), o.Usage)
		}
	}
	return b.String()
}

func sourceTable() string {
	var b strings.Builder
	b.WriteString("| option | default | what it is |\n|---|---|---|\n")
	for _, o := range hostsource.Options() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.Name, code(o.Default), o.Usage)
	}
	return b.String()
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}
