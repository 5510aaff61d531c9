package commctl

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

// idempotencyKey makes a request the same act however often it is sent, also to
// the next endpoint.
func idempotencyKey() *string { return pointer("commctl-" + rand.Text()) }

const exampleID = "019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d"

// steering makes the verb of an act that has nothing to say besides.
func (a *App) steering(act, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use: act + " OPERATION", Short: short, Args: operationArgs(cobra.ExactArgs(1)),
		Example: "  commctl operations " + act + " web\n  commctl operations " + act + " " + exampleID,
	}
	format := outputFlag(cmd, formatTable)
	return a.onOperation(cmd, func(cmd *cobra.Command, c *client.ClientWithResponses, id string, _ []string) error {
		key, body := idempotencyKey(), client.NoMembers{}
		op, err := fetch[client.Operation](cmd.Context(), func(ctx context.Context) (*http.Response, error) {
			switch act {
			case "pause":
				return c.PauseOperation(ctx, id, &client.PauseOperationParams{IdempotencyKey: key}, body)
			case "resume":
				return c.ResumeOperation(ctx, id, &client.ResumeOperationParams{IdempotencyKey: key}, body)
			}
			return c.ApproveOperation(ctx, id, &client.ApproveOperationParams{IdempotencyKey: key}, body)
		})
		if err != nil {
			return err
		}
		return renderOne(a, *format, operationView, op)
	})
}

func (a *App) operationsCancel() *cobra.Command {
	var body client.CancelPost
	cmd := &cobra.Command{
		Use: "cancel OPERATION", Short: "End an operation early", Args: operationArgs(cobra.ExactArgs(1)),
		Long: `End an operation early. No other host begins, and it ends when the hosts at work
have.

With --force their running commands are ended at once. An upgrade that is cut off may
leave packages half configured; such a host is failed until a bootstrap or another
operation finds it well.`,
		Example: "  commctl operations cancel --wait web",
	}
	format := outputFlag(cmd, formatTable)
	cmd.Flags().BoolVar(&body.Force, "force", false, "end running commands on the hosts at once")
	var wait bool
	cmd.Flags().BoolVar(&wait, "wait", false, "stay until it has ended")
	return a.onOperation(cmd, func(cmd *cobra.Command, c *client.ClientWithResponses, id string, _ []string) error {
		op, err := fetch[client.Operation](cmd.Context(), func(ctx context.Context) (*http.Response, error) {
			return c.CancelOperation(ctx, id, &client.CancelOperationParams{IdempotencyKey: idempotencyKey()}, body)
		})
		if err == nil && wait {
			if err = a.awaitState(cmd.Context(), id, "cancelled", 0); err == nil {
				op, err = getOperation(cmd.Context(), c, id)
			}
		}
		if err != nil {
			return err
		}
		return renderOne(a, *format, operationView, op)
	})
}

func (a *App) operationsRetry() *cobra.Command {
	cmd := &cobra.Command{
		Use: "retry OPERATION", Short: "Do what an operation left undone, in a new one", Args: operationArgs(cobra.ExactArgs(1)),
		Long: `Begin a new operation with the hosts that failed or were not tried, in the same order
and by the same policy. Flags change members of the policy.`,
		Example: "  commctl operations retry --watch " + exampleID + "\n  commctl operations retry --dry-run " + exampleID + "\n  commctl operations retry --max-failures 2 " + exampleID,
	}
	format := outputFlag(cmd, "")
	policy, w := a.policyOptions(cmd), waitOptions(cmd)
	var dryRun bool
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be done and change nothing")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "wait")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "watch")
	cmd.RunE = policy.blaming(func(cmd *cobra.Command, args []string) error {
		p, err := policy.read(cmd.Context())
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		id, err := findOperation(cmd.Context(), c, a.Err, args[0])
		if err != nil {
			return err
		}
		body := client.RetryPost{Policy: p}
		if dryRun {
			plan, err := fetch[json.RawMessage](cmd.Context(), func(ctx context.Context) (*http.Response, error) {
				return c.RetryOperation(ctx, id, &client.RetryOperationParams{DryRun: &dryRun}, body)
			})
			if err != nil {
				return err
			}
			return a.printPlan(plan, *format)
		}
		params := &client.RetryOperationParams{IdempotencyKey: idempotencyKey()}
		op, err := begin[client.Operation](cmd.Context(), a, beginning{
			what: "retry of operation " + id, look: "commctl operations list -o wide", // has a column for it
			send: func(ctx context.Context, c *client.ClientWithResponses) (*http.Response, error) {
				return c.RetryOperation(ctx, id, params, body)
			},
		})
		if err != nil {
			return err
		}
		return a.stayOrShow(cmd.Context(), *w, *format, op)
	})
	return cmd
}
