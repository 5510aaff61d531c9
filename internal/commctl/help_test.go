package commctl

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestHelp compares the help of every command with testdata/help, one file each.
func TestHelp(t *testing.T) {
	t.Parallel()
	const dir = "testdata/help"
	golden := map[string]bool{}
	walk(newTestApp(t).App.root(), func(path string, cmd *cobra.Command) {
		name := strings.ReplaceAll(path, " ", "-") + ".txt"
		golden[name] = true
		t.Run(path, func(t *testing.T) {
			a := newTestApp(t)
			require.Zero(t, a.Run(t.Context(), append(strings.Fields(path)[1:], "--help")))
			require.Empty(t, a.errs.String())
			require.NotEmpty(t, cmd.Short, "Short says in a line what it does")
			require.NotRegexp(t, `\.$`, cmd.Short)
			if cmd.Runnable() && !cmd.HasSubCommands() {
				require.NotEmpty(t, cmd.Example, "a command that does something has an example")
			}
			for _, line := range strings.Split(a.out.String(), "\n") {
				require.Equal(t, strings.TrimRight(line, " "), line, "no spaces at the end of a line")
			}
			file := filepath.Join(dir, name)
			if *update {
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(file, a.out.Bytes(), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), a.out.String(), "run with -update and read the diff")
		})
	})
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range files {
		if golden[f.Name()] {
			continue
		}
		if *update {
			require.NoError(t, os.Remove(filepath.Join(dir, f.Name())))
			continue
		}
		t.Errorf("%s is the help of a command that is not there", f.Name())
	}
}

// walk visits every command that help lists, but those that cobra makes.
func walk(cmd *cobra.Command, visit func(path string, cmd *cobra.Command)) {
	if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
		return
	}
	visit(cmd.CommandPath(), cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// testApp is an App without terminal and environment, and what it has written.
type testApp struct {
	*App
	out, errs *bytes.Buffer
	env       map[string]string
}

// newTestApp makes an App whose home is an empty directory.
func newTestApp(t *testing.T) *testApp {
	t.Helper()
	a := &testApp{out: &bytes.Buffer{}, errs: &bytes.Buffer{}, env: map[string]string{"HOME": t.TempDir()}}
	a.App = New(strings.NewReader(""), a.out, a.errs, func(name string) string { return a.env[name] })
	a.Ask = func(string, bool) (string, error) { return "", errNoTerminal }
	return a
}
