package commctl

import (
	"cmp"
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
	put := func(ctx context.Context, c *client.ClientWithResponses, dryRun *bool, key *string, edit ...client.RequestEditorFn) (*http.Response, error) {
		body := client.RolloutPut{Policy: policy}
		switch fleet.OperationKind(kind) {
		case fleet.KindDeploy:
			return c.DeployCluster(ctx, cluster, &client.DeployClusterParams{DryRun: dryRun, IdempotencyKey: key}, client.DeployPut{Version: version, Policy: policy}, edit...)
		case fleet.KindUpgrade:
			return c.UpgradeCluster(ctx, cluster, &client.UpgradeClusterParams{DryRun: dryRun, IdempotencyKey: key}, body, edit...)
		}
		return c.RestartCluster(ctx, cluster, &client.RestartClusterParams{DryRun: dryRun, IdempotencyKey: key}, body, edit...)
	}
	if r.dryRun {
		plan, err := fetch[json.RawMessage](ctx, func(ctx context.Context) (*http.Response, error) { return put(ctx, c, &r.dryRun, nil) })
		if err != nil {
			return err
		}
		return a.printPlan(plan, *r.format)
	}
	key := idempotencyKey()
	requestID, created := *key, false // also of an order whose answer was lost
	order := beginning{what: kind + " of " + cluster, look: listOf(cluster)}
	order.send = func(ctx context.Context, c *client.ClientWithResponses) (*http.Response, error) {
		response, err := put(ctx, c, nil, key, withRequestID(*key))
		if err == nil && response.StatusCode == http.StatusCreated {
			created = true
			requestID = cmp.Or(response.Header.Get(requestIDHeader), requestID) // a proxy may take another
		}
		return response, err
	}
	if _, err := begin[json.RawMessage](ctx, a, order); err != nil {
		return err
	}
	op, err := begun(ctx, c, ofCluster(kind, cluster), requestID, !created)
	switch {
	case err != nil && passing(err):
		return order.unknown(inWords(err))
	case err != nil:
		return err
	case op.RequestId != requestID:
		fmt.Fprintln(a.Err, runsAlready(op))
	}
	return a.stayOrShow(ctx, *r.waitFlags, *r.format, op)
}

const requestIDHeader = "X-Request-Id"

// withRequestID has the server note an id with the operation that a request begins.
func withRequestID(id string) client.RequestEditorFn {
	return func(_ context.Context, r *http.Request) error {
		r.Header.Set(requestIDHeader, id)
		return nil
	}
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
	op, err := begun(ctx, c, ofCluster(kind, cluster), "", true)
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

// stayOrShow waits for an operation that was just begun when that is wanted, and else
// shows it, as it was begun when the server is away now.
func (a *App) stayOrShow(ctx context.Context, w waitFlags, f format, op client.Operation) error {
	if w.given() {
		err := a.stay(ctx, w, f, op.Id)
		if err != nil && passing(err) { // which would say that it may be begun again
			err = unlessEnded(op.Id, err)
		}
		return err
	}
	now, err := a.operation(ctx, op.Id)
	switch {
	case err == nil:
		op = now
	case !passing(err):
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
// not name it: that with the id of the request, or else, if one may have run already,
// the newest.
func begun(ctx context.Context, c *client.ClientWithResponses, chosen *client.ListOperationsParams, requestID string, orNewest bool) (client.Operation, error) {
	chosen.Limit = pointer(10)
	page, err := fetch[client.OperationPage](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListOperations(ctx, chosen) })
	if err != nil {
		return client.Operation{}, err
	}
	for _, op := range page.Operations {
		if requestID != "" && op.RequestId == requestID {
			return op, nil
		}
	}
	if orNewest && len(page.Operations) > 0 {
		return page.Operations[0], nil
	}
	return client.Operation{}, exitf(exitNotFound, "it was begun, but it is not among the newest operations")
}
