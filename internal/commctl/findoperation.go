package commctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// Ids of operations are UUIDs of version 7 (RFC 9562): they begin with the time at
// which they were made, 48 bits of milliseconds.
var (
	wholeID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	// idPrefix has the first eight digits at least, which stand for about a minute.
	idPrefix    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{0,4}){0,3}(-[0-9a-f]{0,12})?$`)
	clusterName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// clockSlack is how far apart the clocks may be that make the id of an operation and
// the time of its creation.
const clockSlack = 10 * time.Minute

// operationWords say what an argument OPERATION may be.
const operationWords = `OPERATION is the id of an operation, or the beginning of it, eight digits or more, when
no other begins so; or the name of a cluster, which means the operation on it that has
not ended, a rollout before commands, else the latest.`

// operationArgs checks arguments the first of which is an operation.
func operationArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return err
		}
		if !clusterName.MatchString(args[0]) {
			return errors.New("OPERATION must be the name of a cluster, or an id such as " + exampleID + " or the beginning of one; 'commctl operations list' shows them")
		}
		return nil
	}
}

// findOperation gives the id of the operation that a person means: by its id, by the
// beginning of it, or by the cluster whose operation it is, the unfinished one or
// else the latest; see operationsOfCluster. Which one it is, is told to notice unless the id is whole.
func findOperation(ctx context.Context, c *client.ClientWithResponses, notice io.Writer, text string) (string, error) {
	if id := strings.ToLower(text); wholeID.MatchString(id) {
		return id, nil
	}
	found, err := operationsOfCluster(ctx, c, text)
	if err != nil {
		return "", err
	}
	if prefix := strings.ToLower(text); idPrefix.MatchString(prefix) {
		begin, err := operationsBeginning(ctx, c, prefix)
		if err != nil {
			return "", err
		}
		for _, op := range begin {
			found = with(found, op)
		}
	}
	switch {
	case len(found) == 0:
		return "", exitf(exitNotFound, "no operation of a cluster %s, and none whose id begins so with eight digits or more; 'commctl operations list' shows them", text)
	case len(found) > 1:
		return "", exitf(exitConflict, "%s may be %s (%s) or %s (%s); say more of the id", text, found[0].Id, title(found[0]), found[1].Id, title(found[1]))
	}
	op := found[0]
	fmt.Fprintf(notice, "Operation %s: %s, %s\n", op.Id, legible(title(op)), operationState(op))
	return op.Id, nil
}

// operationsOfCluster gives the operations that the name of a cluster may mean: the one
// under way that holds it, else the commands under way there, else the latest. Of hundreds
// of commands the first are enough to say that it is not clear.
func operationsOfCluster(ctx context.Context, c *client.ClientWithResponses, name string) (found []client.Operation, err error) {
	list := func(state *client.OperationState, limit int) ([]client.Operation, error) {
		page, err := fetch[client.OperationPage](ctx, func(ctx context.Context) (*http.Response, error) {
			return c.ListOperations(ctx, &client.ListOperationsParams{Cluster: &name, State: state, Limit: &limit})
		})
		return page.Operations, err
	}
	// In the order in which an operation goes through them, so that none is missed.
	for _, state := range []fleet.OperationState{fleet.OperationPending, fleet.OperationRunning} {
		of, err := list(pointer(client.OperationState(state)), 200)
		if err != nil {
			return nil, err
		}
		for _, op := range of {
			if fleet.OperationKind(op.Kind) != fleet.KindCommand {
				return []client.Operation{op}, nil
			}
			found = with(found, op)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return list(nil, 1)
}

// with adds an operation that is not there yet.
func with(all []client.Operation, op client.Operation) []client.Operation {
	if slices.ContainsFunc(all, func(o client.Operation) bool { return o.Id == op.Id }) {
		return all
	}
	return append(all, op)
}

// operationsBeginning gives the operations whose ids begin with a prefix, two at
// most. Only those of the time that it stands for are looked through.
func operationsBeginning(ctx context.Context, c *client.ClientWithResponses, prefix string) (found []client.Operation, err error) {
	digits := strings.ReplaceAll(prefix, "-", "")
	bound := func(fill string) time.Time {
		var ms int64
		_, _ = fmt.Sscanf((digits + strings.Repeat(fill, 12))[:12], "%x", &ms) // it is 12 hexadecimal digits
		return time.UnixMilli(ms)
	}
	since, until := bound("0").Add(-clockSlack), bound("f").Add(clockSlack)
	if year := until.UTC().Year(); year > 9999 {
		return nil, nil // no time that the API knows
	}
	params := &client.ListOperationsParams{
		Since: pointer(since.UTC().Format(time.RFC3339)), Until: pointer(until.UTC().Format(time.RFC3339)), Limit: pointer(200),
	}
	for {
		page, err := fetch[client.OperationPage](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListOperations(ctx, params) })
		if err != nil {
			return nil, err
		}
		for _, op := range page.Operations {
			if strings.HasPrefix(op.Id, prefix) {
				found = append(found, op)
			}
		}
		if page.Next == "" || len(found) > 1 {
			return found, nil
		}
		params.Cursor = &page.Next
	}
}

// onOperation makes a verb whose first argument is an operation.
func (a *App) onOperation(cmd *cobra.Command, run func(cmd *cobra.Command, c *client.ClientWithResponses, id string, rest []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		id, err := findOperation(cmd.Context(), c, a.Err, args[0])
		if err != nil {
			return err
		}
		return run(cmd, c, id, args[1:])
	}
	return cmd
}
