package commctl

import (
	"net/http"

	"github.com/spf13/cobra"
)

// clusterOperation makes the group of a kind of operation: start and status.
func (a *App) clusterOperation(kind, short string) *cobra.Command {
	return group(kind, short, a.clusterStart(kind), a.clusterStatus(kind))
}

func (a *App) clusterStart(kind string) *cobra.Command {
	cmd := &cobra.Command{Use: "start NAME", Short: "Begin the " + kind + " of a cluster, or show the one that runs", Args: nameArgs(cobra.ExactArgs(1), 0, 1)}
	start, args := "  commctl cluster "+kind+" start ", "web"
	if kind == "deploy" {
		cmd.Use, cmd.Args = "start NAME VERSION", nameArgs(cobra.ExactArgs(2), 0, 1)
		args += " 43.20261120.0"
	}
	cmd.Example = start + args + "\n" +
		start + "--dry-run " + args + "\n" +
		start + "--watch --max-unavailable 10% --canary 1 --canary-then approve " + args
	options := a.rolloutOptions(cmd)
	cmd.RunE = options.policy.blaming(func(cmd *cobra.Command, args []string) error {
		return a.startRollout(cmd.Context(), kind, args[0], optional(args, 1), options)
	})
	return cmd
}

func (a *App) clusterStatus(kind string) *cobra.Command {
	return &cobra.Command{
		Use: "status NAME", Short: "Show the latest " + kind + " of a cluster", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl cluster " + kind + " status web",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.old(cmd.Context(), http.MethodGet, route("cluster", args[0], kind), nil)
		},
	}
}
