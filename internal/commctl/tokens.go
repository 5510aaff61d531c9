package commctl

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

func (a *App) tokensCommand() *cobra.Command {
	cmd := group("tokens", "API tokens", a.tokensList(), a.tokensCreate(), a.tokensGet(), a.tokensRevoke())
	cmd.Aliases = []string{"token"}
	return cmd
}

var tokenView = view[client.Token]{
	name: func(t client.Token) string { return t.Id },
	columns: []column[client.Token]{
		{head: "ID", cell: func(t client.Token) string { return t.Id }},
		{head: "NAME", cell: func(t client.Token) string { return t.Name }},
		{head: "OWNER", cell: func(t client.Token) string { return t.Owner }},
		{head: "ROLE", cell: func(t client.Token) string { return string(t.Role) }},
		{head: "EXPIRES", cell: func(t client.Token) string { return shortTime(t.ExpiresAt) }},
		{head: "REVOKED", cell: func(t client.Token) string { return shortTime(t.RevokedAt) }},
		{head: "LAST-USED", cell: func(t client.Token) string { return shortTime(t.LastUsedAt) }},
		{head: "CREATED", wide: true, cell: func(t client.Token) string { return shortTime(t.CreatedAt) }},
		{head: "OPERATIONS", wide: true, cell: func(t client.Token) string { return strings.Join(t.Operations, ",") }},
	},
}

func (a *App) tokensList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List your API tokens; an admin sees those of everybody", Args: cobra.NoArgs,
		Example: "  commctl tokens list",
	}
	format := outputFlag(cmd, formatTable)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		tokens, err := fetch[[]client.Token](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.ListTokens(ctx) })
		if err != nil {
			return err
		}
		return renderList(a, *format, tokenView, tokens)
	}
	return cmd
}

var newTokenView = view[client.NewToken]{
	name: func(t client.NewToken) string { return t.Token }, // which is not shown again; its id is in the list
	columns: []column[client.NewToken]{
		{head: "ID", cell: func(t client.NewToken) string { return t.Id }},
		{head: "NAME", cell: func(t client.NewToken) string { return t.Name }},
		{head: "ROLE", cell: func(t client.NewToken) string { return string(t.Role) }},
		{head: "EXPIRES", cell: func(t client.NewToken) string { return shortTime(t.ExpiresAt) }},
		{head: "TOKEN", cell: func(t client.NewToken) string { return t.Token }},
	},
}

func (a *App) tokensCreate() *cobra.Command {
	var body client.TokenPost
	var role string
	expires := fleet.DefaultTokenLife
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make an API token for yourself", Args: cobra.ExactArgs(1),
		Long: `Make an API token for yourself. NAME says what it is for. The token is printed now and
never again: put it into the configuration file as "token".

It may do what you may, or less: all that --role may, and of that only --operation
when given. These are operationIds of the API document, such as upgradeCluster; the
server has it at /openapi.yaml.`,
		Example: "  commctl tokens create laptop\n  commctl tokens create --role operator --operation upgradeCluster,getOperation --expires 720h ci >token",
	}
	format := outputFlag(cmd, "")
	choiceFlag(cmd, &role, "role", "", []string{"viewer", "operator", "admin"}, "`ROLE` of the token: viewer, operator or admin (default yours)")
	cmd.Flags().StringSliceVar(&body.Operations, "operation", nil, "it may use this `OPERATION` of the API only; may be repeated")
	cmd.Flags().DurationVar(&expires, "expires", expires, "how long it is good, at most "+lasting(fleet.MaxTokenLife))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		body.Name, body.Role, body.ExpiresIn = args[0], client.Role(role), fleet.Lasting(expires)
		made, err := fetch[client.NewToken](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.CreateToken(ctx, body) })
		if err != nil {
			return err
		}
		if *format != "" {
			return renderOne(a, *format, newTokenView, made)
		}
		fmt.Fprintf(a.Err, "Token %s of %s, role %s, good until %s. It is not shown again:\n", made.Id, legible(made.Owner), made.Role, shortTime(made.ExpiresAt))
		_, err = fmt.Fprintln(a.Out, legible(made.Token))
		return err
	}
	return cmd
}

func (a *App) tokensGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get TOKEN-ID", Short: "Show an API token, without its secret", Args: tokenArgs(cobra.ExactArgs(1), "cmst", "tokens"),
		Example: "  commctl tokens get -o wide k3v9q2m4x7c1b8n0",
	}
	format := outputFlag(cmd, formatTable)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		token, err := fetch[client.Token](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.GetToken(ctx, tokenID(args[0])) })
		if err != nil {
			return err
		}
		return renderOne(a, *format, tokenView, token)
	}
	return cmd
}

func (a *App) tokensRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN-ID...", Short: "Revoke API tokens; they are refused from now on", Args: tokenArgs(cobra.MinimumNArgs(1), "cmst", "tokens"),
		Example: "  commctl tokens revoke k3v9q2m4x7c1b8n0",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return eachOf(cmd.Context(), args, func(ctx context.Context, id string) (*http.Response, error) { return c.RevokeToken(ctx, tokenID(id)) })
		},
	}
}

// tokenText is what a token and the argument TOKEN-ID look like: the id alone, or the
// text that was handed out, PREFIX_ID_SECRET.
var tokenText = regexp.MustCompile(`^(?:(cmst|cmsj)_)?([a-z0-9]{16})(?:_.*)?$`)

// tokenID takes the id out of the text of a token; the secret stays here.
func tokenID(text string) string {
	return tokenText.FindStringSubmatch(strings.TrimSpace(text))[2]
}

// tokenArgs checks arguments that are ids of tokens of a kind. An argument that is
// refused is not repeated: it may be a secret, as it may be in the path of a request.
func tokenArgs(check cobra.PositionalArgs, prefix, kind string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return err
		}
		for _, arg := range args {
			parts := tokenText.FindStringSubmatch(strings.TrimSpace(arg))
			switch {
			case parts == nil:
				return fmt.Errorf("TOKEN-ID must be 16 small letters and digits, or the text of a token; 'commctl %s list' shows them", kind)
			case parts[1] != "" && parts[1] != prefix:
				return fmt.Errorf("this is the text of another kind of token: those of 'commctl %s' begin with %s_", kind, prefix)
			}
		}
		return nil
	}
}

// eachOf sends a request for each name, until one is refused.
func eachOf(ctx context.Context, names []string, request func(ctx context.Context, name string) (*http.Response, error)) error {
	for _, name := range names {
		if err := order(ctx, func(ctx context.Context) (*http.Response, error) { return request(ctx, name) }); err != nil {
			return err
		}
	}
	return nil
}
