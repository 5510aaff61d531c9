package commctl

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// rolloutFlags are what the start of a restart, an upgrade or a deploy takes since
// there are policies. Without -o, --dry-run, --wait and --watch it is the old verb.
type rolloutFlags struct {
	*waitFlags
	policy *policyFlags
	format *format
	dryRun bool
}

func (a *App) rolloutOptions(cmd *cobra.Command) *rolloutFlags {
	r := &rolloutFlags{format: outputFlag(cmd, ""), policy: a.policyOptions(cmd), waitFlags: waitOptions(cmd)}
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "show what would be done and change nothing")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "wait")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "watch")
	return r
}

// startRollout begins a rollout. version is that of a deploy, "" of the others.
func (a *App) startRollout(ctx context.Context, kind, cluster, version string, r *rolloutFlags) error {
	policy, err := r.policy.read(ctx)
	if err != nil {
		return err
	}
	if !r.dryRun && !r.waitFlags.given() && *r.format == "" {
		body := map[string]any{}
		if version != "" {
			body["version"] = version
		}
		if r.policy.given() {
			body["policy"] = policy
		}
		running, err := a.oldOrder(ctx, route("cluster", cluster, kind), body)
		if err != nil || !running {
			return err
		}
		return a.tellRunning(ctx, kind, cluster)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	key, dryRun := idempotencyKey(), (*bool)(nil)
	if r.dryRun {
		key, dryRun = nil, &r.dryRun
	}
	var requestID string
	text, err := fetch[json.RawMessage](ctx, func(ctx context.Context) (response *http.Response, err error) {
		body := client.RolloutPut{Policy: policy}
		switch fleet.OperationKind(kind) {
		case fleet.KindDeploy:
			response, err = c.DeployCluster(ctx, cluster, &client.DeployClusterParams{DryRun: dryRun, IdempotencyKey: key}, client.DeployPut{Version: version, Policy: policy})
		case fleet.KindUpgrade:
			response, err = c.UpgradeCluster(ctx, cluster, &client.UpgradeClusterParams{DryRun: dryRun, IdempotencyKey: key}, body)
		default:
			response, err = c.RestartCluster(ctx, cluster, &client.RestartClusterParams{DryRun: dryRun, IdempotencyKey: key}, body)
		}
		if err == nil && response.StatusCode == http.StatusCreated {
			requestID = response.Header.Get("X-Request-Id")
		}
		return response, err
	})
	if err != nil {
		return err
	}
	if r.dryRun {
		return a.printPlan(text, *r.format)
	}
	op, err := begun(ctx, c, ofCluster(kind, cluster), requestID)
	if err != nil {
		return err
	}
	if requestID == "" {
		fmt.Fprintln(a.Err, runsAlready(op))
	}
	return a.stayOrShow(ctx, *r.waitFlags, *r.format, op)
}

func ofCluster(kind, cluster string) *client.ListOperationsParams {
	return &client.ListOperationsParams{Cluster: &cluster, Kind: pointer(client.OperationKind(kind))}
}

// tellRunning tells which operation runs already, which the record of old clients
// does not. A server that does not know operations by their ids is one of theirs.
func (a *App) tellRunning(ctx context.Context, kind, cluster string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	op, err := begun(ctx, c, ofCluster(kind, cluster), "")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		fmt.Fprintf(a.Err, "%s of %s runs already\n", kind, cluster)
		return nil
	}
	_, err = fmt.Fprintln(a.Err, runsAlready(op))
	return err
}

// runsAlready says in a line which operation runs, how it stands, and that it may be
// another than was asked for: it goes by the policy that it was begun with.
func runsAlready(op client.Operation) string {
	parts := []string{title(op) + " runs already: operation " + op.Id, operationState(op)}
	if waiting := waitingFor(op); waiting != "" {
		parts = append(parts, "waiting: "+waiting)
	}
	if op.Policy != nil && op.Policy.Selector != nil && *op.Policy.Selector != "" {
		parts = append(parts, "only hosts with "+*op.Policy.Selector)
	}
	return cell(strings.Join(parts, ", ") + "; to see it: commctl operations watch " + op.Id)
}

// stayOrShow waits for an operation when that is wanted, and else shows it.
func (a *App) stayOrShow(ctx context.Context, w waitFlags, f format, op client.Operation) error {
	if w.given() {
		return a.stay(ctx, w, f, op.Id)
	}
	op, err := a.operation(ctx, op.Id)
	if err != nil {
		return err
	}
	return renderOne(a, f, operationView, op)
}

func (a *App) operation(ctx context.Context, id string) (client.Operation, error) {
	c, err := a.client()
	if err != nil {
		return client.Operation{}, err
	}
	return getOperation(ctx, c, id)
}

// begun finds the operation that a request of the old API began, whose answer does
// not name it: that with the id of the request, or else, since one ran already, the
// newest.
func begun(ctx context.Context, c *client.ClientWithResponses, chosen *client.ListOperationsParams, requestID string) (client.Operation, error) {
	chosen.Limit = pointer(10)
	page, err := fetch[client.OperationPage](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListOperations(ctx, chosen) })
	if err != nil {
		return client.Operation{}, err
	}
	for _, op := range page.Operations {
		if op.RequestId == requestID || requestID == "" {
			return op, nil
		}
	}
	return client.Operation{}, exitf(exitNotFound, "it was begun, but it is not among the newest operations")
}
