package commctl

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) hostBastion() *cobra.Command {
	return group("bastion", "Through which other host a host is reached", a.hostBastionSet(), a.hostBastionUnset())
}

func (a *App) hostBastionSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set HOST BASTION", Short: "Reach a host through another one", Args: cobra.ExactArgs(2),
		Example: "  commctl host bastion set 192.0.2.10 192.0.2.1",
	}
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		bastion, err := a.address(cmd.Context(), rest[0])
		if err != nil {
			return err
		}
		return a.putHostBastion(cmd.Context(), address, bastion)
	})
}

func (a *App) hostBastionUnset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset HOST", Short: "Reach a host straight, or through the bastion of its cluster", Args: cobra.ExactArgs(1),
		Example: "  commctl host bastion unset 192.0.2.10",
	}
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		return a.putHostBastion(cmd.Context(), address, "")
	})
}

func (a *App) putHostBastion(ctx context.Context, address, bastion string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return order(ctx, func(ctx context.Context) (*http.Response, error) {
		return c.PutHostBastion(ctx, address, client.HostBastion{Bastion: bastion})
	})
}

func (a *App) clusterBastion() *cobra.Command {
	return group("bastion", "Through which host the hosts of a cluster are reached", a.clusterBastionSet(), a.clusterBastionUnset())
}

func (a *App) clusterBastionSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME BASTION", Short: "Reach the hosts of a cluster through another host", Args: nameArgs(cobra.ExactArgs(2), 0, 1),
		Example: "  commctl cluster bastion set web 192.0.2.1",
	}
	cmd.Flags().BoolVar(&a.noResolve, "no-resolve", false, "use host names as they are, not their IPv4 addresses")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		bastion, err := a.address(cmd.Context(), args[1])
		if err != nil {
			return err
		}
		return a.putClusterBastion(cmd.Context(), args[0], bastion)
	}
	return cmd
}

func (a *App) clusterBastionUnset() *cobra.Command {
	return &cobra.Command{
		Use: "unset NAME", Short: "Reach the hosts of a cluster straight", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl cluster bastion unset web",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.putClusterBastion(cmd.Context(), args[0], "")
		},
	}
}

// putClusterBastion wants a cluster that is there: a PUT would make one.
func (a *App) putClusterBastion(ctx context.Context, name, bastion string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := order(ctx, func(ctx context.Context) (*http.Response, error) { return c.GetCluster(ctx, name) }); err != nil {
		return err
	}
	return order(ctx, func(ctx context.Context) (*http.Response, error) {
		return c.PutCluster(ctx, name, client.ClusterPut{Bastion: &bastion})
	})
}
