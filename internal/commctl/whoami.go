package commctl

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

var callerView = view[client.Caller]{
	name: func(c client.Caller) string { return c.Name },
	columns: []column[client.Caller]{
		{head: "NAME", cell: func(c client.Caller) string { return c.Name }},
		{head: "ROLE", cell: func(c client.Caller) string { return c.Role }},
		{head: "BY", cell: func(c client.Caller) string { return c.Method }},
		{head: "FROM", cell: func(c client.Caller) string { return c.Address }},
	},
}

func (a *App) whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "whoami", Short: "Show who you are to the server, and your role", Args: cobra.NoArgs,
		Example: "  commctl whoami",
	}
	format := outputFlag(cmd, formatTable)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		caller, err := fetch[client.Caller](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.Whoami(ctx) })
		if err != nil {
			return err
		}
		return renderOne(a, *format, callerView, caller)
	}
	return cmd
}
