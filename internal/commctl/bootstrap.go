package commctl

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

var bootstrapView = view[client.HostBootstrap]{
	name: func(b client.HostBootstrap) string { return b.Name },
	columns: []column[client.HostBootstrap]{
		{head: "HOST", cell: func(b client.HostBootstrap) string { return b.Name }},
		{head: "STATUS", cell: func(b client.HostBootstrap) string { return string(b.Status) }},
		{head: "STARTED", cell: func(b client.HostBootstrap) string { return shortTime(b.StartedAt) }},
		{head: "TOOK", cell: func(b client.HostBootstrap) string { return took(b.StartedAt, b.FinishedAt) }},
	},
}

func (a *App) hostBootstrap() *cobra.Command {
	return group("bootstrap", "Make a host ready to be managed", a.hostBootstrapStart(), a.hostBootstrapStatus())
}

func (a *App) hostBootstrapStart() *cobra.Command {
	cmd := &cobra.Command{
		Use: "start HOST", Short: "Bootstrap a host again, for instance one that failed", Args: cobra.ExactArgs(1),
		Example: "  commctl host bootstrap start --watch 192.0.2.10",
	}
	format, w := outputFlag(cmd, ""), waitOptions(cmd)
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		record, err := fetch[client.HostBootstrap](cmd.Context(), func(ctx context.Context) (*http.Response, error) {
			return c.BootstrapHost(ctx, address, client.IgnoredBody{})
		})
		if err != nil {
			return err
		}
		if !w.given() {
			return renderOne(a, *format, bootstrapView, record)
		}
		chosen := &client.ListOperationsParams{Host: &address, Kind: pointer(client.OperationKind("bootstrap"))}
		op, err := begun(cmd.Context(), c, chosen, "", true)
		if err != nil {
			return err
		}
		return a.stay(cmd.Context(), *w, *format, op.Id)
	})
}

func (a *App) hostBootstrapStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status HOST", Short: "Show the latest bootstrap of a host", Args: cobra.ExactArgs(1),
		Example: "  commctl host bootstrap status 192.0.2.10",
	}
	format := outputFlag(cmd, formatTable)
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		record, err := fetch[client.HostBootstrap](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.GetHostBootstrap(ctx, address) })
		if err != nil {
			return err
		}
		return renderOne(a, *format, bootstrapView, record)
	})
}
