package commctl

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// TestDocs compares the table of commands in docs/commctl.md with the commands.
func TestDocs(t *testing.T) {
	t.Parallel()
	const file, begin, end = "../../docs/commctl.md", "<!-- commands -->\n", "<!-- end -->\n"
	var table strings.Builder
	table.WriteString("| `commctl …` | |\n|---|---|\n")
	walk(newTestApp(t).root(), func(_ string, cmd *cobra.Command) {
		if cmd.Runnable() && !cmd.HasSubCommands() {
			use := strings.TrimPrefix(strings.TrimSuffix(cmd.UseLine(), " [flags]"), "commctl ")
			fmt.Fprintf(&table, "| `%s` | %s |\n", strings.ReplaceAll(use, "|", `\|`), cmd.Short)
		}
	})
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, end)
	require.True(t, ok)
	want := before + begin + table.String() + end + after
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(text), "run with -update and read the diff")
}

// TestDocsHaveThePolicyFlags: docs/commctl.md says which member each flag gives.
func TestDocsHaveThePolicyFlags(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/commctl.md")
	require.NoError(t, err)
	_, policy, ok := strings.Cut(string(text), "\n## Policy\n")
	require.True(t, ok)
	policy, _, _ = strings.Cut(policy, "\n## ")
	cmd := &cobra.Command{}
	newTestApp(t).policyOptions(cmd)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Shorthand != "" {
			require.Contains(t, policy, "`-"+f.Shorthand+" ", f.Name)
			return
		}
		require.Regexp(t, "`--"+f.Name+"[ `=]", policy)
	})
}
