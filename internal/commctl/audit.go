package commctl

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

var auditView = view[client.AuditEntry]{
	name: func(e client.AuditEntry) string { return e.RequestId },
	columns: []column[client.AuditEntry]{
		{head: "AT", cell: func(e client.AuditEntry) string { return shortTime(e.At) }},
		{head: "WHO", cell: func(e client.AuditEntry) string { return e.Principal }},
		{head: "ROLE", cell: func(e client.AuditEntry) string { return e.Role }},
		{head: "FROM", cell: func(e client.AuditEntry) string { return e.Address }},
		{head: "OPERATION", cell: func(e client.AuditEntry) string { return e.Operation }},
		{head: "PATH", cell: func(e client.AuditEntry) string { return e.Path }},
		{head: "STATUS", cell: func(e client.AuditEntry) string {
			if e.Status == 0 {
				return ""
			}
			return strconv.Itoa(e.Status)
		}},
		{head: "SUBJECT", cell: func(e client.AuditEntry) string { return e.Subject }},
		{head: "BY", wide: true, cell: func(e client.AuditEntry) string { return e.Method }},
		{head: "REQUEST", wide: true, cell: func(e client.AuditEntry) string { return e.RequestId }},
	},
}

func (a *App) auditCommand() *cobra.Command {
	var who, operation string
	var limit int
	cmd := &cobra.Command{
		Use: "audit", Short: "List who changed what, and who read credentials, newest first", Args: cobra.NoArgs,
		Example: "  commctl audit --who alice\n  commctl audit --operation getHostCreds -n 0 -o json",
	}
	format := outputFlag(cmd, formatTable)
	cmd.Flags().StringVar(&who, "who", "", "only what this `USER` did")
	cmd.Flags().StringVar(&operation, "operation", "", "only this `OPERATION` of the API, such as putHost")
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "list at most `N`; 0 lists all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return errors.New("--limit must not be below 0")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		params := &client.ListAuditParams{Principal: given(who), Operation: given(operation)}
		var all []client.AuditEntry
		for {
			params.Limit = pointer(1000)
			if limit > 0 {
				params.Limit = pointer(min(1000, limit-len(all)))
			}
			page, err := fetch[client.AuditPage](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.ListAudit(ctx, params) })
			if err != nil {
				return err
			}
			all = append(all, page.Entries...)
			if page.Next == "" || len(all) == limit {
				return renderList(a, *format, auditView, all)
			}
			params.Cursor = &page.Next
		}
	}
	return cmd
}
