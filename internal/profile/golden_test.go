package profile_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/profile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden: everything that each profile puts on each system, byte for byte, in
// testdata/golden/PROFILE/VARIANT/SYSTEM.txt.
func TestGolden(t *testing.T) {
	t.Parallel()
	require.ElementsMatch(t, profile.Names(), slices.Collect(maps.Keys(variants)), "every profile has variants")
	written := map[string]bool{}
	for _, name := range profile.Names() {
		for variant := range variants[name] {
			for system := range systems {
				path := filepath.Join("testdata/golden", name, variant, system+".txt")
				written[path] = true
				c, err := render(t, name, system, variant)
				again, _ := render(t, name, system, variant)
				require.Equal(t, show(c, err), show(again, err), "the same input gives the same content")
				compare(t, path, show(c, err))
			}
		}
	}
	files, err := filepath.Glob("testdata/golden/*/*/*")
	require.NoError(t, err)
	for _, file := range files {
		require.True(t, written[file], "%s belongs to no case", file)
	}
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, path)
}

// show prints a content for people, with its secrets.
func show(c profile.Content, err error) string {
	var b strings.Builder
	if err != nil {
		fmt.Fprintf(&b, "refused as %s: %v\n", fleet.KindOf(err), err)
	}
	for _, argv := range c.Repositories {
		fmt.Fprintf(&b, "before packages: %s\n", strings.Join(argv, " "))
	}
	for _, group := range c.Packages {
		fmt.Fprintf(&b, "packages: %s\n", strings.Join(group, " "))
	}
	for _, f := range c.Files {
		fmt.Fprintf(&b, "--- %s %04o %s", f.Path, f.Mode, f.Owner)
		if f.Secret {
			b.WriteString(" secret")
		}
		if f.Conceal {
			b.WriteString(" conceal")
		}
		if f.Unit {
			b.WriteString(" unit")
		}
		fmt.Fprintf(&b, " restarts: %s\n%s", strings.Join(f.Restarts, " "), f.Content.Reveal())
	}
	if len(c.Files) > 0 {
		b.WriteString("---\n")
	}
	for _, name := range c.Services {
		fmt.Fprintf(&b, "service: %s\n", name)
	}
	for _, note := range c.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	return b.String()
}

// TestEverySystemHasACase: a new family of systems, or a new type of network, needs
// one.
func TestEverySystemHasACase(t *testing.T) {
	t.Parallel()
	for _, f := range hostos.Families() {
		h, ok := systems[f.Name()]
		require.True(t, ok, "the family %s has no system", f.Name())
		got, err := hostos.FamilyOf(h.OS, h.OSTree, h.Bootc, h.PackageManager)
		require.NoError(t, err)
		require.Equal(t, f, got)
	}
	seen := map[fleet.NetworkType]bool{}
	for _, change := range variants[profile.Atomic2017] {
		in := input(systems["dnf"])
		change(t, &in)
		seen[in.Network.Type] = true
	}
	for _, kind := range profile.Networks() {
		_, err := fleet.ParseNetworkType(string(kind))
		require.NoError(t, err)
		require.True(t, seen[kind], "the network type %s has no variant", kind)
	}
	require.Contains(t, profile.Networks(), fleet.NetworkFlannelEtcd)
	require.Contains(t, profile.Networks(), fleet.NetworkFlannelServer)
}
