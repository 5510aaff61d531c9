package store

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// plan is what a new rollout is going to be.
type plan struct {
	kind   fleet.OperationKind
	policy fleet.Policy
	hosts  []fleet.Placed
	old    fleet.Operation // the one that is retried
}

const (
	clusterPolicySQL = `SELECT policy FROM cluster WHERE tenant = $1 AND name = $2`

	membersToArrangeSQL = `SELECT address, join_order, labels FROM host WHERE tenant = $1 AND cluster = $2`

	retryOfSQL = selectOperations + `WHERE o.tenant = $1 AND o.retry_of = $2 AND o.id IS DISTINCT FROM nullif($3, '')::uuid ORDER BY o.id DESC LIMIT 1`

	// Hosts that were never looked at are tried: they may take one.
	takeNoDeploySQL = `SELECT address, count(*) OVER () FROM host
		WHERE tenant = $1 AND address = ANY ($2) AND os <> '' AND NOT ostree AND NOT bootc ORDER BY address LIMIT $3`

	// Canaries that succeeded are not tried again, so their soak goes on from there.
	writePolicySQL = `UPDATE rollout SET policy = $2, approved = $3, approved_by = $4, canaries_done = greatest(
			(SELECT canaries_done FROM rollout WHERE operation_id = nullif($5, '')::uuid),
			(SELECT max(finished) FROM host_run WHERE operation_id = nullif($5, '')::uuid AND canary AND state = 'succeeded' AND finished IS NOT NULL))
		WHERE operation_id = $1`

	// A host that was deleted since it was read leaves no gap: a command goes by position up
	// to the number of hosts.
	insertHostRunsSQL = `INSERT INTO host_run (operation_id, tenant, address, position, canary, stages, holds)
		SELECT $1, h.tenant, h.address, row_number() OVER (ORDER BY m.place) - 1, m.canary, $5 AND (h.ostree OR h.bootc), $6
		FROM unnest($3::text[], $4::boolean[]) WITH ORDINALITY AS m (address, canary, place)
		JOIN host h ON h.tenant = $2 AND h.address = m.address`
)

// namedHosts is how many hosts a refusal names.
const namedHosts = 5

// retried fills in what a retry takes from the operation that it repeats, and
// gives that one. It must be a rollout or a command that has ended without success
// (Conflict).
func (s *Store) retried(ctx context.Context, q querier, n NewOperation) (NewOperation, fleet.Operation, error) {
	if n.RetryOf == "" {
		return n, fleet.Operation{}, nil
	}
	old, err := s.operation(ctx, q, operationSQL, n.RetryOf)
	switch {
	case err != nil:
		return n, old, err
	case old.Kind == fleet.KindCommand && !reflect.DeepEqual(n.Policy, fleet.Policy{}):
		return n, old, fleet.InvalidField("policy", "cannot be given: operation %s is a command, which has none", old.ID)
	case !old.Kind.Counted():
		return n, old, fleet.Errorf(fleet.Conflict, "operation %s is a %s; a rollout can be retried, a %s is started again", old.ID, old.Kind, old.Kind)
	case !old.State.Ended():
		return n, old, fleet.Errorf(fleet.Conflict, "operation %s has not ended; it can be retried when it has", old.ID)
	case old.State == fleet.OperationSucceeded:
		return n, old, fleet.Errorf(fleet.Conflict, "operation %s has succeeded; there is nothing to retry", old.ID)
	}
	n.Kind, n.Cluster, n.Host, n.Version = old.Kind, old.Cluster, old.Host, old.Version
	if old.Command != nil {
		n.Command = &NewCommand{Command: *old.Command}
	}
	return n, old, nil
}

// notRetried refuses to retry an operation twice: the hosts that it left undone are
// those of its retry now, and what that one did would be done again. id is the
// retry that is being put on record, "" for none.
func (s *Store) notRetried(ctx context.Context, q querier, n NewOperation, id string) error {
	if n.RetryOf == "" {
		return nil
	}
	retry, err := one(ctx, q, scanOperation, retryOfSQL, s.tenant, n.RetryOf, id)
	switch {
	case isNoRows(err):
		return nil
	case err != nil:
		return err
	case retry.State == fleet.OperationSucceeded:
		return fleet.Errorf(fleet.Conflict, "operation %s was retried by %s, which has succeeded; there is nothing to retry", n.RetryOf, retry.ID)
	}
	e := fleet.Errorf(fleet.Conflict, "operation %s was retried by %s; retry that one", n.RetryOf, retry.ID)
	if !retry.State.Ended() {
		e.Holder = &retry
	}
	return e
}

// plan decides which hosts an operation on a cluster has, in which order, and by which
// policy.
func (s *Store) plan(ctx context.Context, q querier, n NewOperation, old fleet.Operation) (p plan, err error) {
	p = plan{kind: n.Kind, old: old}
	switch {
	case n.RetryOf != "":
		err = s.planRetry(ctx, q, n, &p)
	case n.Kind == fleet.KindCommand:
		err = s.planCommand(ctx, q, n, &p)
	default:
		err = s.planNew(ctx, q, n, &p)
	}
	if err == nil && n.Kind == fleet.KindDeploy {
		err = s.takeDeploys(ctx, q, p.addresses())
	}
	return p, err
}

func (s *Store) planNew(ctx context.Context, q querier, n NewOperation, p *plan) error {
	var defaults fleet.Policy
	if err := q.QueryRow(ctx, clusterPolicySQL, s.tenant, n.Cluster).Scan(&defaults); err != nil {
		return orNotFound(err, "cluster", n.Cluster)
	}
	members, err := collect(ctx, q, pgx.RowToStructByPos[fleet.Member], membersToArrangeSQL, s.tenant, n.Cluster)
	if err != nil {
		return err
	}
	p.policy = n.Policy.Over(defaults)
	if err := p.policy.Check("policy"); err != nil { // each may be right, and not both together
		return err
	}
	p.hosts, err = p.policy.Arrange(members)
	return err
}

func (s *Store) planRetry(ctx context.Context, q querier, n NewOperation, p *plan) (err error) {
	if p.policy, err = replace(p.old.Policy, n.Policy); err != nil {
		return err
	}
	runs, err := collect(ctx, q, scanHostRun, hostRunsSQL, s.tenant, p.old.ID)
	if err != nil {
		return err
	}
	members, err := collect(ctx, q, pgx.RowTo[string], membersSQL, s.tenant, n.Cluster)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, m := range members {
		there[m] = true
	}
	p.hosts = fleet.Unfinished(slices.DeleteFunc(runs, func(r fleet.HostRun) bool { return !there[r.Address] }))
	if len(p.hosts) == 0 {
		return fleet.Errorf(fleet.Conflict, "no host of operation %s is left to retry: each has succeeded or is no member of cluster %q any more", p.old.ID, n.Cluster)
	}
	return nil
}

// replace gives a policy with the members of changes in place of its own. Those
// that chose and ordered the hosts may be given, but not changed (Invalid).
func replace(policy, changes fleet.Policy) (fleet.Policy, error) {
	out := changes.Over(policy)
	settled := changes.Settled()
	slices.Sort(settled)
	for _, name := range settled {
		if !bytes.Equal(member(policy, name), member(out, name)) {
			return policy, fleet.InvalidField("policy."+name, "cannot be changed any more: it has decided which hosts the operation has, and in which order")
		}
	}
	return out, out.Check("policy")
}

// member gives a member of a policy by its name in JSON, nil when it is not set.
func member(p fleet.Policy, name string) json.RawMessage {
	var members map[string]json.RawMessage
	if text, err := json.Marshal(p); err == nil {
		_ = json.Unmarshal(text, &members) // Marshal wrote it
	}
	return members[name]
}

func (p plan) addresses() []string {
	out := make([]string, len(p.hosts))
	for i, h := range p.hosts {
		out[i] = h.Address
	}
	return out
}

// takeDeploys refuses hosts that are known to have neither OSTree nor bootc.
func (s *Store) takeDeploys(ctx context.Context, q querier, addresses []string) error {
	rows, err := q.Query(ctx, takeNoDeploySQL, s.tenant, addresses, namedHosts)
	if err != nil {
		return err
	}
	var names []string
	var name string
	var count int
	if _, err := pgx.ForEachRow(rows, []any{&name, &count}, func() error { names = append(names, name); return nil }); err != nil || count == 0 {
		return err
	}
	e := fleet.Errorf(fleet.Conflict, "%d of %d hosts have neither OSTree nor bootc, so they cannot take a deploy: %s; leave them out with policy.selector", count, len(addresses), someOf(names, count))
	e.Fields = []fleet.FieldError{{Field: "policy.selector", Detail: "chooses hosts that cannot take a deploy"}}
	return e
}

func (s *Store) writePlan(ctx context.Context, q querier, id string, p plan) error {
	if _, err := q.Exec(ctx, writePolicySQL, id, p.policy, orNull(p.old.Approved), p.old.ApprovedBy, p.old.ID); err != nil {
		return err
	}
	canary := make([]bool, len(p.hosts))
	for i, h := range p.hosts {
		canary[i] = h.Canary
	}
	stages := p.kind == fleet.KindUpgrade || p.kind == fleet.KindDeploy
	_, err := q.Exec(ctx, insertHostRunsSQL, id, s.tenant, p.addresses(), canary, stages, p.kind.Holds())
	return err
}
