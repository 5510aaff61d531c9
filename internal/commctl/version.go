package commctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"commissaire/internal/version"
)

func (a *App) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of commctl", Args: cobra.NoArgs,
		Example: "  commctl version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.Out, "commctl %s (%s)\n", version.Version, version.Commit())
			return err
		},
	}
}
