package commctl

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) sourceCommand() *cobra.Command {
	cmd := group("source", "Inventories of others that know facts of hosts", a.sourceList(), a.sourceSync())
	cmd.Aliases = []string{"sources"}
	return cmd
}

var sourceView = view[client.Source]{
	name: func(s client.Source) string { return s.Name },
	columns: []column[client.Source]{
		{head: "NAME", cell: func(s client.Source) string { return s.Name }},
		{head: "TYPE", cell: func(s client.Source) string { return s.Type }},
		{head: "HOSTS", cell: func(s client.Source) string { return strconv.Itoa(s.Hosts) }},
		{head: "REFRESH", cell: func(s client.Source) string { return s.Refresh }},
		{head: "LAST-SYNC", cell: func(s client.Source) string {
			return ofLastSync(s, func(o client.Operation) string { return shortTime(o.CreatedAt) })
		}},
		{head: "STATE", cell: func(s client.Source) string { return ofLastSync(s, operationState) }},
		{head: "FOUND", wide: true, cell: func(s client.Source) string { return ofLastSync(s, syncFound) }},
		{head: "REASON", long: true, cell: func(s client.Source) string {
			return ofLastSync(s, func(o client.Operation) string { return o.Reason })
		}},
	},
}

// ofLastSync gives something of the last sync, "" when there was none.
func ofLastSync(s client.Source, what func(client.Operation) string) string {
	if s.LastSync == nil {
		return ""
	}
	return what(*s.LastSync)
}

// syncFound says in a line what came of a sync.
func syncFound(o client.Operation) string {
	if o.Sync == nil {
		return ""
	}
	changed := "changed"
	if o.DryRun {
		changed = "would change"
	}
	parts := []string{fmt.Sprintf("%d %s, %d same", o.Sync.Changed, changed, o.Sync.Same)}
	if o.Sync.Missing > 0 {
		parts = append(parts, fmt.Sprintf("%d missing", o.Sync.Missing))
	}
	if n := len(o.Sync.Strangers) + o.Sync.More; n > 0 {
		parts = append(parts, fmt.Sprintf("%d not here", n))
	}
	return strings.Join(parts, ", ")
}

func (a *App) sourceList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the sources and how their last syncs went", Args: cobra.NoArgs,
		Example: "  commctl source list\n  commctl source list -o wide",
	}
	format := outputFlag(cmd, formatTable)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		all, err := fetch[[]client.Source](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.ListSources(ctx) })
		if err != nil {
			return err
		}
		return renderList(a, *format, sourceView, all)
	}
	return cmd
}

func (a *App) sourceSync() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sync SOURCE", Short: "Ask a source for facts of its hosts", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Long: `Ask a source for facts of its hosts. What has changed of a host is the output of its
step sync: 'commctl logs' shows it, and so does a dry run that is waited for. Hosts of
the source that are not here are in the operation.`,
		Example: "  commctl source sync --wait cmdb\n  commctl source sync --dry-run --wait -o json cmdb",
	}
	format, w := outputFlag(cmd, formatTable), waitOptions(cmd)
	var dryRun bool
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change no host, and say what would change")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		params := &client.SyncSourceParams{}
		if dryRun {
			params.DryRun = &dryRun
		}
		op, err := fetch[client.Operation](cmd.Context(), func(ctx context.Context) (*http.Response, error) {
			return c.SyncSource(ctx, args[0], params, client.IgnoredBody{})
		})
		if err != nil {
			return err
		}
		if w.given() {
			if err := a.stay(cmd.Context(), *w, *format, op.Id); err != nil || *format != formatTable {
				return err
			}
			return a.printSync(cmd.Context(), c, op.Id)
		}
		return renderOne(a, *format, listedOperationView, op)
	}
	return cmd
}

// printSync tells what came of a sync that has ended; after a dry run also what would
// change of each host.
func (a *App) printSync(ctx context.Context, c *client.ClientWithResponses, id string) error {
	op, err := getOperation(ctx, c, id)
	if err != nil {
		return err
	}
	found := syncFound(op)
	if op.DryRun {
		if err := a.logsOf(c, id).print(ctx); err != nil {
			return err
		}
		found += "; nothing was changed, this was a dry run"
	}
	_, err = fmt.Fprintln(a.Out, found)
	return err
}

func (a *App) hostSource() *cobra.Command {
	return group("source", "Which source knows facts of a host", a.hostSourceSet(), a.hostSourceUnset())
}

func (a *App) hostSourceSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set HOST SOURCE", Short: "Take facts of a host from a source, too", Args: nameArgs(cobra.ExactArgs(2), 1, 2),
		Example: "  commctl host source set 192.0.2.10 cmdb",
	}
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		return a.putSource(cmd.Context(), address, rest[0])
	})
}

func (a *App) hostSourceUnset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset HOST", Short: "Take facts of a host from nowhere else any more", Args: cobra.ExactArgs(1),
		Example: "  commctl host source unset 192.0.2.10",
	}
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		return a.putSource(cmd.Context(), address, "")
	})
}

func (a *App) putSource(ctx context.Context, address, source string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return order(ctx, func(ctx context.Context) (*http.Response, error) {
		return c.PutHostSource(ctx, address, client.HostSource{Source: source})
	})
}
