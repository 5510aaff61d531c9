package commctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

func (a *App) operationsCommand() *cobra.Command {
	cmd := group("operations", "What was and is done to clusters and hosts",
		a.operationsList(), a.operationsGet(), a.operationsHosts(), a.operationsSteps(), a.operationsWatch(),
		a.steering("pause", "Begin no other host for now; those at work finish"),
		a.steering("resume", "Go on after a pause"),
		a.steering("approve", "Let the others follow the canaries"),
		a.operationsCancel(), a.operationsRetry(), a.operationsPolicy(),
	)
	cmd.Aliases = []string{"operation", "op"}
	cmd.Long = `What was and is done to clusters and hosts.

` + operationWords + ` So is it with 'logs' and 'wait'.`
	return cmd
}

var operationView = view[client.Operation]{
	name: func(o client.Operation) string { return o.Id },
	columns: []column[client.Operation]{
		{head: "ID", cell: func(o client.Operation) string { return o.Id }},
		{head: "KIND", cell: func(o client.Operation) string { return string(o.Kind) }},
		{head: "OF", cell: func(o client.Operation) string { return o.Cluster + o.Host + o.Source }},
		{head: "STATE", cell: operationState},
		{head: "DONE", cell: func(o client.Operation) string {
			if o.Progress == nil {
				return ""
			}
			return fmt.Sprintf("%d/%d", o.Progress.Succeeded, o.Progress.Total)
		}},
		{head: "BY", cell: func(o client.Operation) string { return o.RequestedBy }},
		{head: "CREATED", cell: func(o client.Operation) string { return shortTime(o.CreatedAt) }},
		{head: "TOOK", cell: func(o client.Operation) string { return took(o.StartedAt, o.FinishedAt) }},
		{head: "VERSION", wide: true, cell: func(o client.Operation) string { return o.Version }},
		{head: "COMMAND", wide: true, cell: func(o client.Operation) string { return argvOf(o, argvInTable) }},
		{head: "RETRY-OF", wide: true, cell: func(o client.Operation) string { return o.RetryOf }},
		{head: "FOUND", wide: true, cell: syncFound},
		{head: "WAITING", wide: true, cell: waitingFor},
		{head: "REASON", wide: true, cell: func(o client.Operation) string { return o.Reason }},
	},
}

// listedOperationView is without what only single operations are answered with.
var listedOperationView = view[client.Operation]{name: operationView.name, columns: without(operationView.columns, "DONE")}

func without[T any](columns []column[T], head string) (rest []column[T]) {
	for _, c := range columns {
		if c.head != head {
			rest = append(rest, c)
		}
	}
	return rest
}

// operationState is the state, and what a person must know about it besides.
func operationState(o client.Operation) string {
	switch {
	case fleet.OperationState(o.State).Ended():
	case o.CancelRequestedAt != "":
		return string(o.State) + ", cancelled"
	case o.Paused:
		return string(o.State) + ", paused"
	}
	return string(o.State)
}

// waitingFor is what an operation waits for. Once it is cancelled that is one thing
// only; what the record says may be from before, but of a command, which waits for
// nothing else.
func waitingFor(o client.Operation) string {
	cancelled := o.CancelRequestedAt != "" && !fleet.OperationState(o.State).Ended()
	switch {
	case cancelled && fleet.OperationKind(o.Kind) == fleet.KindCommand && o.Waiting != "":
		return o.Waiting
	case cancelled:
		return "ends when the hosts at work have ended"
	}
	return o.Waiting
}

// waitingText is what an operation waits for, and the command that lets it go on
// where a person must.
func waitingText(o client.Operation) string {
	text := waitingFor(o)
	verb := ""
	switch {
	case fleet.OperationState(o.State).Ended() || o.CancelRequestedAt != "":
	case o.Paused:
		verb = "resume"
	case strings.Contains(text, "waits for approval"): // the planner's words
		verb = "approve"
	}
	if verb == "" {
		return text
	}
	return fmt.Sprintf("%s; to go on: commctl operations %s %s", cmp.Or(text, "paused"), verb, o.Id)
}

var hostRunView = view[client.HostRun]{
	name: func(h client.HostRun) string { return h.Address },
	columns: []column[client.HostRun]{
		{head: "HOST", cell: func(h client.HostRun) string { return h.Address }},
		{head: "STATE", cell: func(h client.HostRun) string { return h.State }},
		{head: "CANARY", cell: func(h client.HostRun) string { return yes(h.Canary) }},
		{head: "STARTED", cell: func(h client.HostRun) string { return shortTime(h.StartedAt) }},
		{head: "TOOK", cell: func(h client.HostRun) string { return took(h.StartedAt, h.FinishedAt) }},
		{head: "REASON", cell: func(h client.HostRun) string { return cmp.Or(h.Reason, h.Waiting) }}, // why it ended so, or does not go on
		{head: "SLOT", wide: true, cell: func(h client.HostRun) string { return number(int64(h.Slot)) }},
		{head: "TARGET", wide: true, cell: func(h client.HostRun) string { return h.Target }},
	},
}

var stepView = view[client.Step]{
	name: func(s client.Step) string { return s.Name },
	columns: []column[client.Step]{
		{head: "HOST", cell: func(s client.Step) string { return s.Address }},
		{head: "STEP", cell: func(s client.Step) string { return s.Name }},
		{head: "STATE", cell: func(s client.Step) string { return s.State }},
		{head: "EXIT", cell: func(s client.Step) string {
			if s.ExitCode == nil {
				return ""
			}
			return strconv.Itoa(*s.ExitCode)
		}},
		{head: "STARTED", cell: func(s client.Step) string { return shortTime(s.StartedAt) }},
		{head: "TOOK", cell: func(s client.Step) string { return took(s.StartedAt, s.FinishedAt) }},
		{head: "ATTEMPT", wide: true, cell: func(s client.Step) string { return strconv.Itoa(s.Attempt) }},
		{head: "BYTES", wide: true, cell: func(s client.Step) string { return strconv.FormatInt(s.OutputSize, 10) }},
		{head: "REASON", wide: true, cell: func(s client.Step) string { return s.Reason }},
	},
}

// yes shows a truth, number a number; what is not so is nothing.
func yes(is bool) string {
	if is {
		return "yes"
	}
	return ""
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func (a *App) operationsList() *cobra.Command {
	var p client.ListOperationsParams
	var since, until string
	var limit int
	var cluster, host, kind, state, by string
	var kinds []string
	for _, k := range fleet.Kinds {
		kinds = append(kinds, string(k))
	}
	cmd := &cobra.Command{
		Use: "list", Short: "List operations, newest first", Args: cobra.NoArgs,
		Example: "  commctl operations list --cluster web\n  commctl operations list --state running -o name\n  commctl operations list --since 24h --state failed -o wide",
	}
	format := outputFlag(cmd, formatTable)
	flags := cmd.Flags()
	flags.StringVarP(&cluster, "cluster", "c", "", "only those on this cluster: `NAME`")
	flags.StringVar(&host, "host", "", "only those on this host: `ADDRESS`")
	choiceFlag(cmd, &kind, "kind", "", kinds, "only this `KIND`: "+strings.Join(kinds[:len(kinds)-1], ", ")+" or "+kinds[len(kinds)-1])
	choiceFlag(cmd, &state, "state", "", operationStates, "only in this `STATE`: pending, running, succeeded, failed or cancelled")
	flags.StringVar(&by, "by", "", "only what this `USER` asked for")
	flags.StringVar(&since, "since", "", "only those asked for since a `TIME`, or so long ago: 2026-11-20T14:00:00Z, 24h")
	flags.StringVar(&until, "until", "", "only those asked for before a `TIME`, or longer ago")
	flags.IntVarP(&limit, "limit", "n", 50, "list at most `N`; 0 lists all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		if p.Since, err = moment("since", since); err != nil {
			return err
		}
		if p.Until, err = moment("until", until); err != nil {
			return err
		}
		if limit < 0 {
			return errors.New("--limit must not be below 0")
		}
		p.Cluster, p.Host, p.RequestedBy = given(cluster), given(host), given(by)
		p.Kind, p.State = given(client.OperationKind(kind)), given(client.OperationState(state))
		var all []client.Operation
		for {
			p.Limit = pointer(200)
			if limit > 0 {
				p.Limit = pointer(min(200, limit-len(all)))
			}
			page, err := fetch[client.OperationPage](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.ListOperations(ctx, &p) })
			if err != nil {
				return err
			}
			all = append(all, page.Operations...)
			if page.Next == "" || len(all) == limit {
				if len(all) == 0 {
					a.tellNone(cmd.Context(), c, cluster, host)
				}
				return renderList(a, *format, listedOperationView, all)
			}
			p.Cursor = &page.Next
		}
	}
	return cmd
}

// tellNone says that no operation is to be listed, and whether that may be for a name
// that was mistyped. What cannot be found out is left out.
func (a *App) tellNone(ctx context.Context, c *client.ClientWithResponses, cluster, host string) {
	parts := []string{"no operations"}
	look := func(what, name string, request send) {
		if name == "" {
			return
		}
		_, _, err := exchange(ctx, request)
		var refused *exitError
		switch {
		case err == nil:
			parts = append(parts, what+" "+name+" exists")
		case errors.As(err, &refused) && refused.code == exitNotFound:
			parts = append(parts, "there is no "+what+" "+name)
		}
	}
	look("cluster", cluster, func(ctx context.Context) (*http.Response, error) { return c.GetCluster(ctx, cluster) })
	look("host", host, func(ctx context.Context) (*http.Response, error) { return c.GetHost(ctx, host) })
	fmt.Fprintln(a.Err, "commctl:", legible(strings.Join(parts, "; ")))
}

var operationStates = []string{"pending", "running", "succeeded", "failed", "cancelled"}

// moment reads a time, or how long ago it was; nil for "".
func moment(flag, text string) (*string, error) {
	if text == "" {
		return nil, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return pointer(time.Now().Add(-ago).UTC().Format(time.RFC3339)), nil
	}
	for _, layout := range []string{time.RFC3339, fleet.TimeFormat, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return pointer(t.UTC().Format(time.RFC3339Nano)), nil
		}
	}
	return nil, fmt.Errorf("--%s must be a time such as 2026-11-20T14:00:00Z or 2026-11-20, or how long ago such as 24h", flag)
}

func (a *App) operationsGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get OPERATION", Short: "Show an operation, which hosts failed, and what to do next", Args: operationArgs(cobra.ExactArgs(1)),
		Example: "  commctl operations get web\n  commctl operations get -o json 019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d",
	}
	format := outputFlag(cmd, "")
	return a.onOperation(cmd, func(cmd *cobra.Command, c *client.ClientWithResponses, id string, _ []string) error {
		op, err := getOperation(cmd.Context(), c, id)
		if err != nil {
			return err
		}
		if *format != "" {
			return renderOne(a, *format, operationView, op)
		}
		if err := a.describe(op); err != nil {
			return err
		}
		if err := a.printWaiting(cmd.Context(), c, op); err != nil {
			return err
		}
		return a.printFailures(cmd.Context(), c, a.Out, op)
	})
}

// describe prints all that is to say about an operation itself, a line each.
func (a *App) describe(op client.Operation) error {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-14s %s\n", name+":", cell(value))
		}
	}
	who := func(at, by string) string {
		if by == "" {
			return shortTime(at)
		}
		return shortTime(at) + " by " + by
	}
	line("Operation", op.Id)
	line("Kind", string(op.Kind))
	line("Cluster", op.Cluster)
	line("Host", op.Host)
	line("Source", op.Source)
	line("Dry run", yes(op.DryRun))
	line("Version", op.Version)
	line("Command", argvOf(op, argvInLine))
	line("Selector", op.Selector)
	line("Timeout", op.Timeout)
	line("At once", number(int64(op.AtOnce)))
	line("State", operationState(op))
	line("Reason", op.Reason)
	line("Waiting", waitingText(op))
	line("Hosts", progressText(op.Progress))
	line("Found", syncFound(op))
	if op.Policy != nil {
		line("Policy", policyOf(*op.Policy))
	}
	line("Created", who(op.CreatedAt, op.RequestedBy))
	line("Started", shortTime(op.StartedAt))
	if op.Paused {
		line("Paused", who(op.PausedAt, op.PausedBy))
	}
	line("Approved", who(op.ApprovedAt, op.ApprovedBy))
	line("Cancelled", who(op.CancelRequestedAt, op.CancelRequestedBy))
	line("Expected end", shortTime(op.ExpectedEnd))
	line("Ended", shortTime(op.FinishedAt))
	line("Took", took(op.StartedAt, op.FinishedAt))
	line("Retry of", op.RetryOf)
	_, err := io.WriteString(a.Out, b.String())
	return err
}

var waitingHostView = view[client.HostRun]{
	name: func(h client.HostRun) string { return h.Address },
	columns: []column[client.HostRun]{
		{head: "WAITING", cell: func(h client.HostRun) string { return h.Address }},
		{head: "FOR", long: true, cell: func(h client.HostRun) string { return h.Waiting }},
	},
}

// printWaiting tells which hosts at work do not go on, and why.
func (a *App) printWaiting(ctx context.Context, c *client.ClientWithResponses, op client.Operation) error {
	if fleet.OperationState(op.State) != fleet.OperationRunning {
		return nil
	}
	hosts, err := operationHosts(ctx, c, op.Id, string(fleet.HostRunRunning))
	if err != nil {
		return err
	}
	waiting := slices.DeleteFunc(hosts, func(h client.HostRun) bool { return h.Waiting == "" })
	if len(waiting) == 0 {
		return nil
	}
	fmt.Fprintln(a.Out)
	return renderList(a, formatTable, waitingHostView, waiting)
}

func progressText(p *client.Progress) string {
	if p == nil {
		return ""
	}
	parts := []string{fmt.Sprintf("%d/%d done", p.Succeeded, p.Total)}
	for _, n := range []struct {
		count int
		what  string
	}{{p.Failed, "failed"}, {p.Running, "running"}, {p.Staging, "staging"}, {p.Staged, "staged"}, {p.Pending, "pending"}, {p.Skipped, "skipped"}} {
		if n.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.count, n.what))
		}
	}
	return strings.Join(parts, ", ")
}

func (a *App) operationsHosts() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use: "hosts OPERATION", Short: "List the hosts of an operation in the order they are worked on", Args: operationArgs(cobra.ExactArgs(1)),
		Example: "  commctl operations hosts web\n  commctl operations hosts --state failed -o name 019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d",
	}
	format := outputFlag(cmd, formatTable)
	states := []string{"pending", "staging", "staged", "running", "succeeded", "failed", "skipped"}
	choiceFlag(cmd, &state, "state", "", states, "only in this `STATE`: pending, staging, staged, running, succeeded, failed or skipped")
	return a.onOperation(cmd, func(cmd *cobra.Command, c *client.ClientWithResponses, id string, _ []string) error {
		hosts, err := operationHosts(cmd.Context(), c, id, state)
		if err != nil {
			return err
		}
		return renderList(a, *format, hostRunView, hosts)
	})
}

func (a *App) operationsSteps() *cobra.Command {
	cmd := &cobra.Command{
		Use: "steps OPERATION [HOST]", Short: "List the steps of an operation in the order they began", Args: operationArgs(cobra.RangeArgs(1, 2)),
		Example: "  commctl operations steps 019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d 192.0.2.10",
	}
	format := outputFlag(cmd, formatTable)
	return a.onOperation(cmd, func(cmd *cobra.Command, c *client.ClientWithResponses, id string, rest []string) error {
		steps, err := operationSteps(cmd.Context(), c, id, optional(rest, 0))
		if err != nil {
			return err
		}
		return renderList(a, *format, stepView, steps)
	})
}

// optional is an argument, "" when it was not given.
func optional(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

func (a *App) operationsWatch() *cobra.Command {
	w := waitFlags{watch: true}
	cmd := &cobra.Command{
		Use: "watch OPERATION", Short: "Show an operation while it goes on", Args: operationArgs(cobra.ExactArgs(1)),
		Long: `Show an operation while it goes on, until it has ended. On a terminal the hosts at
work stand one below the other, with a summary in the last line; elsewhere each thing
that happens is a line. An operation that has ended is told from its beginning.

Ctrl-C leaves the operation to itself: it goes on. The exit code is 5 when the
operation failed or was cancelled.`,
		Example: "  commctl operations watch web\n  commctl operations watch " + exampleID,
	}
	format := outputFlag(cmd, "")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "how long to stay at most, such as 30m; then the exit code is 6 (default as long as it takes)")
	return a.onOperation(cmd, func(cmd *cobra.Command, _ *client.ClientWithResponses, id string, _ []string) error {
		return a.stay(cmd.Context(), w, *format, id)
	})
}
