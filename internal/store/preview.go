package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// Preview is what an operation would be.
type Preview struct {
	Operation fleet.Operation // without ID and state
	Hosts     []PreviewHost   // in order
	Blocks    []string        // what would make it wait, or not begin
	Slots     int             // how many hosts would be away at once at most
}

// PreviewHost is a host of a preview.
type PreviewHost struct {
	fleet.Host
	Canary bool
	Blocks string // what would make it wait or fail, "" for nothing
	Node   bool   // as in Assignment
}

const previewHostsSQL = `SELECT ` + hostColumns + `,
		coalesce((SELECT format('operation %s (%s of %s) holds it', x.id, x.kind, coalesce('host ' || x.host, 'cluster ' || x.cluster))
			FROM host_run w JOIN operation x ON x.id = w.operation_id
			WHERE w.tenant = h.tenant AND w.address = h.address AND w.state IN ('staging', 'running') AND w.holds), ''),
		EXISTS (SELECT FROM cluster c LEFT JOIN container_manager m ON m.tenant = c.tenant AND m.name = c.container_manager AND m.checking IS NULL
			WHERE c.tenant = h.tenant AND c.name = h.cluster AND c.container_manager <> '' AND coalesce(m.type, '') <> 'trivial')
	FROM host h WHERE h.tenant = $1 AND h.address = ANY ($2)`

// PreviewOperation says what StartOperation would put on record, with its checks
// and in its order, and writes nothing. It is for rollouts.
func (s *Store) PreviewOperation(ctx context.Context, n NewOperation) (v Preview, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		v, err = s.preview(ctx, q, n)
		return err
	})
	return v, err
}

func (s *Store) preview(ctx context.Context, q querier, n NewOperation) (v Preview, err error) {
	n, old, err := s.retried(ctx, q, n)
	if err != nil {
		return v, err
	}
	if n.Kind == fleet.KindCommand {
		return v, fleet.Errorf(fleet.Conflict, "operation %s is a command, which has no preview: it is run on the hosts that are left, as it is", old.ID)
	}
	if n.Cluster == "" {
		return v, fleet.Errorf(fleet.Invalid, "only operations on a cluster have a preview")
	}
	if err := s.notRetried(ctx, q, n, ""); err != nil {
		return v, err
	}
	p, err := s.plan(ctx, q, n, old)
	if err != nil {
		return v, err
	}
	v.Operation = fleet.Operation{
		Tenant: s.tenant, Kind: n.Kind, Cluster: n.Cluster, Version: n.Version, Policy: p.policy, RetryOf: n.RetryOf, Hosts: len(p.hosts),
		RequestedBy: n.RequestedBy, RequestID: n.RequestID, Approved: old.Approved, ApprovedBy: old.ApprovedBy,
	}
	var budget string
	if v.Slots, budget, err = s.slots(ctx, q, n.Cluster, p); err != nil {
		return v, err
	}
	if budget != "" {
		v.Blocks = append(v.Blocks, budget)
	}
	holder, err := one(ctx, q, scanOperation, unfinishedSQL, s.tenant, n.Cluster, "", "")
	switch {
	case err == nil:
		v.Blocks = append(v.Blocks, inTheWay(holder))
	case !isNoRows(err):
		return v, err
	}
	if p.policy.Window != nil {
		if open, change := p.policy.Window.Next(time.Now()); !open {
			v.Blocks = append(v.Blocks, "the maintenance window is closed; it opens at "+change.Format(time.RFC3339))
		}
	}
	v.Hosts, err = s.previewHosts(ctx, q, p)
	if err != nil {
		return v, err
	}
	v.Blocks = append(v.Blocks, blocks(v.Hosts)...)
	return v, nil
}

// slots is how many hosts of a plan would be away at once at most. budget says so when
// it is the container manager that lets no more.
func (s *Store) slots(ctx context.Context, q querier, cluster string, p plan) (slots int, budget string, err error) {
	slots = p.policy.Slots(len(p.hosts))
	_, manager, amount, err := s.clusterNow(ctx, q, fleet.Operation{Cluster: cluster, Created: time.Now()})
	if err != nil || amount == nil {
		return slots, "", err
	}
	limit, err := s.limit(ctx, q, manager, *amount)
	if err != nil || limit >= slots {
		return slots, "", err
	}
	return limit, fmt.Sprintf("container manager %s lets %d of its nodes be away at once, over all rollouts", manager, limit), nil
}

func inTheWay(holder fleet.Operation) string {
	text := fmt.Sprintf("operation %s (%s of cluster %s) is %s", holder.ID, holder.Kind, holder.Cluster, holder.State)
	if !holder.Paused.IsZero() {
		text += ", paused by " + holder.PausedBy
	}
	return text
}

func (s *Store) previewHosts(ctx context.Context, q querier, p plan) ([]PreviewHost, error) {
	rows, err := collect(ctx, q, scanPreviewHost, previewHostsSQL, s.tenant, p.addresses())
	if err != nil {
		return nil, err
	}
	byAddress := map[string]PreviewHost{}
	for _, h := range rows {
		byAddress[h.Address] = h
	}
	out := make([]PreviewHost, 0, len(p.hosts))
	for _, placed := range p.hosts {
		h, there := byAddress[placed.Address]
		if !there {
			continue // deleted in between
		}
		h.Canary = placed.Canary
		out = append(out, h)
	}
	return out, nil
}

func scanPreviewHost(row pgx.CollectableRow) (v PreviewHost, err error) {
	v.Host, err = scanHostAnd(row, &v.Blocks, &v.Node)
	switch {
	case v.Blocks != "":
	case v.Bootstrapped.IsZero():
		v.Blocks = "it was never bootstrapped"
	case v.State == fleet.HostFailed:
		v.Blocks = "it is failed, and counts as away until its turn: " + v.Reason
	}
	return v, err
}

// blocks says in one sentence each which hosts are held, failed or not prepared.
func blocks(hosts []PreviewHost) (out []string) {
	var held, failed, fresh []string
	for _, h := range hosts {
		switch {
		case h.Blocks == "":
		case h.Bootstrapped.IsZero():
			fresh = append(fresh, h.Address)
		case h.State == fleet.HostFailed:
			failed = append(failed, h.Address)
		default:
			held = append(held, h.Address)
		}
	}
	for _, group := range []struct {
		what  string
		hosts []string
	}{{"held by another operation", held}, {"failed, and away until their turn", failed}, {"never bootstrapped", fresh}} {
		if len(group.hosts) > 0 {
			out = append(out, group.what+": "+someOf(group.hosts, len(group.hosts)))
		}
	}
	return out
}

// someOf names the first hosts of a list and counts the others.
func someOf(hosts []string, count int) string {
	text := strings.Join(hosts[:min(len(hosts), namedHosts)], ", ")
	if more := count - min(len(hosts), namedHosts); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
