package commctl

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

func (a *App) joinTokensCommand() *cobra.Command {
	cmd := group("join-tokens", "Tokens with which one machine each adds itself", a.joinTokensList(), a.joinTokensCreate(), a.joinTokensRevoke())
	cmd.Aliases = []string{"join-token"}
	return cmd
}

var joinTokenView = view[client.JoinToken]{
	name: func(t client.JoinToken) string { return t.Id },
	columns: []column[client.JoinToken]{
		{head: "ID", cell: func(t client.JoinToken) string { return t.Id }},
		{head: "STATE", cell: func(t client.JoinToken) string { return good(t.RevokedAt, t.UsedAt, t.ExpiresAt, time.Now()) }},
		{head: "CLUSTER", cell: func(t client.JoinToken) string { return t.Cluster }},
		{head: "EXPIRES", cell: func(t client.JoinToken) string { return shortTime(t.ExpiresAt) }},
		{head: "USED-BY", cell: func(t client.JoinToken) string { return t.UsedBy }},
		{head: "BY", cell: func(t client.JoinToken) string { return t.CreatedBy }},
		{head: "USER", wide: true, cell: func(t client.JoinToken) string { return t.RemoteUser }},
		{head: "CREATED", wide: true, cell: func(t client.JoinToken) string { return shortTime(t.CreatedAt) }},
		{head: "USED", wide: true, cell: func(t client.JoinToken) string { return shortTime(t.UsedAt) }},
	},
}

func (a *App) joinTokensList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List join tokens, used or not", Args: cobra.NoArgs,
		Example: "  commctl join-tokens list",
	}
	format := outputFlag(cmd, formatTable)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		tokens, err := fetch[[]client.JoinToken](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.ListJoinTokens(ctx) })
		if err != nil {
			return err
		}
		return renderList(a, *format, joinTokenView, tokens)
	}
	return cmd
}

var newJoinTokenView = view[client.NewJoinToken]{
	name: func(t client.NewJoinToken) string { return t.Token }, // which is not shown again; its id is in the list
	columns: []column[client.NewJoinToken]{
		{head: "ID", cell: func(t client.NewJoinToken) string { return t.Id }},
		{head: "CLUSTER", cell: func(t client.NewJoinToken) string { return t.Cluster }},
		{head: "EXPIRES", cell: func(t client.NewJoinToken) string { return shortTime(t.ExpiresAt) }},
		{head: "TOKEN", cell: func(t client.NewJoinToken) string { return t.Token }},
		{head: "PUBLIC-KEY", wide: true, cell: func(t client.NewJoinToken) string { return t.PublicKey }},
	},
}

func (a *App) joinTokensCreate() *cobra.Command {
	var body client.JoinTokenPost
	expires := fleet.DefaultJoinTokenLife
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token with which one machine adds itself", Args: cobra.NoArgs,
		Long: `Make a token with which one machine adds itself. It is printed now and never again.
The machine must let the public key in that comes with it ('-o json' prints both);
'commctl user-data' makes cloud-init do all of that.`,
		Example: "  commctl join-tokens create --cluster web --expires 2h -o json",
	}
	format := outputFlag(cmd, "")
	cmd.Flags().StringVarP(&body.Cluster, "cluster", "c", "", "`NAME` of the cluster to join")
	cmd.Flags().StringVarP(&body.RemoteUser, "remote-user", "r", "", "`USER` who logs in to the machine (default root)")
	cmd.Flags().DurationVar(&expires, "expires", expires, "how long it is good, at most "+lasting(fleet.MaxJoinTokenLife))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		body.ExpiresIn = fleet.Lasting(expires)
		made, err := fetch[client.NewJoinToken](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.CreateJoinToken(ctx, body) })
		if err != nil {
			return err
		}
		if *format != "" {
			return renderOne(a, *format, newJoinTokenView, made)
		}
		fmt.Fprintf(a.Err, "Join token %s, good until %s. Public key for authorized_keys of %s:\n%s\nThe token is not shown again:\n",
			made.Id, shortTime(made.ExpiresAt), legible(made.RemoteUser), legible(made.PublicKey))
		_, err = fmt.Fprintln(a.Out, legible(made.Token))
		return err
	}
	return cmd
}

func (a *App) joinTokensRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN-ID...", Short: "Revoke join tokens; hosts that used them stay", Args: tokenArgs(cobra.MinimumNArgs(1), "cmsj", "join-tokens"),
		Example: "  commctl join-tokens revoke k3v9q2m4x7c1b8n0",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return eachOf(cmd.Context(), args, func(ctx context.Context, id string) (*http.Response, error) {
				return c.RevokeJoinToken(ctx, tokenID(id))
			})
		},
	}
}

// good says how a join token stands: revoked, used, expired or good.
func good(revoked, used, expires string, now time.Time) string {
	switch {
	case revoked != "":
		return "revoked"
	case used != "":
		return "used"
	case parseTime(expires).Before(now):
		return "expired"
	}
	return "good"
}
