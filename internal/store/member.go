package store

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

const (
	// The row of the cluster is the lock of its list of members.
	lockClusterSQL = `SELECT container_manager FROM cluster WHERE tenant = $1 AND name = $2 FOR NO KEY UPDATE`

	hasMemberSQL = `SELECT EXISTS (SELECT FROM host h WHERE h.tenant = c.tenant AND h.cluster = c.name AND h.address = $3)
		FROM cluster c WHERE c.tenant = $1 AND c.name = $2`

	membersSQL = `SELECT address FROM host WHERE tenant = $1 AND cluster = $2 ORDER BY join_order, address`

	// In the order of addresses, so that two that lock several do not deadlock.
	lockHostsSQL = `SELECT address, coalesce(cluster, ''), state FROM host
		WHERE tenant = $1 AND address = ANY ($2) ORDER BY address FOR NO KEY UPDATE`

	joinSQL = `UPDATE host SET cluster = $3,
			join_order = (SELECT coalesce(max(join_order), 0) + 1 FROM host WHERE tenant = $1 AND cluster = $3)
		WHERE tenant = $1 AND address = $2`

	leaveSQL = `UPDATE host SET cluster = NULL WHERE tenant = $1 AND cluster = $2 AND address = $3`

	leaveOthersSQL = `UPDATE host SET cluster = NULL WHERE tenant = $1 AND cluster = $2 AND address <> ALL ($3)`

	setMembersSQL = `UPDATE host h SET cluster = $2, join_order = m.place
		FROM unnest($3::text[]) WITH ORDINALITY AS m (address, place)
		WHERE h.tenant = $1 AND h.address = m.address`
)

// Members lists the addresses of a cluster's hosts in join order.
func (s *Store) Members(ctx context.Context, cluster string) ([]string, error) {
	v, err := s.Cluster(ctx, cluster)
	return v.Members, err
}

// HasMember says whether a host is in a cluster. Only a missing cluster is
// NotFound.
func (s *Store) HasMember(ctx context.Context, cluster, address string) (is bool, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, hasMemberSQL, s.tenant, cluster, address).Scan(&is)
		return orNotFound(err, "cluster", cluster)
	})
	return is, err
}

// AddMember puts a host into a cluster, at the end of its list, and registers it with
// the cluster's container manager. A member stays one without further checks. The host
// must be active or disassociated (NotReady) and in no other cluster (Conflict), and a
// container manager must be able to hold it (Conflict). Where workers must ask that, it
// is a pending operation, which is given.
func (s *Store) AddMember(ctx context.Context, cluster, address string, by Requester) (ops []fleet.Operation, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		ops = nil
		o, err := s.orderJoin(ctx, q, cluster, []string{address}, by)
		if err != nil {
			return err
		}
		manager, err := s.lockCluster(ctx, q, cluster)
		if err != nil {
			return err
		}
		hosts, err := s.lockHosts(ctx, q, []string{address})
		if err != nil {
			return err
		}
		if hosts[address].cluster == cluster {
			if len(o.ops) > 0 {
				return errAgain // it came in between
			}
			return nil
		}
		if err := mayJoin(hosts, cluster, address); err != nil {
			return err
		}
		if _, err := q.Exec(ctx, joinSQL, s.tenant, address, cluster); err != nil {
			return err
		}
		ops, err = s.joined(ctx, q, manager, []string{address}, o)
		return err
	})
	return ops, err
}

// RemoveMember takes a host out of a cluster and away from its container manager; one
// that is not in it, or not known at all, is fine. The state of the host stays. A node
// that workers must remove is a pending operation, which is given.
func (s *Store) RemoveMember(ctx context.Context, cluster, address string, by Requester) (ops []fleet.Operation, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		ops = nil
		o, err := s.orderRemoval(ctx, q, whichHosts{cluster: cluster, addresses: []string{address}}, by)
		if err != nil {
			return err
		}
		if _, err := s.lockCluster(ctx, q, cluster); err != nil {
			return err
		}
		hosts, err := s.lockHosts(ctx, q, []string{address})
		if err != nil {
			return err
		}
		if hosts[address].cluster != cluster {
			if len(o.ops) > 0 {
				return errAgain // it left in between
			}
			return nil
		}
		if ops, err = s.removal(ctx, q, o, []string{address}); err != nil {
			return err
		}
		_, err = q.Exec(ctx, leaveSQL, s.tenant, cluster, address)
		return err
	})
	return ops, err
}

// ReplaceMembers sets the members of a cluster to new, in that order, if they
// are old now, as sets (Conflict otherwise). Hosts that join must exist, be
// ready, and be in no other cluster, and its container manager must be able to hold
// them; one that does not fit refuses the whole. Hosts that leave stay registered with
// the container manager (contract §3.3). ops are as in AddMember.
func (s *Store) ReplaceMembers(ctx context.Context, cluster string, old, new []string, by Requester) (v ClusterView, ops []fleet.Operation, err error) {
	new = withoutRepeats(new)
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		o, err := s.orderJoin(ctx, q, cluster, new, by)
		if err != nil {
			return err
		}
		manager, err := s.lockCluster(ctx, q, cluster)
		if err != nil {
			return err
		}
		current, err := collect(ctx, q, pgx.RowTo[string], membersSQL, s.tenant, cluster)
		if err != nil {
			return err
		}
		if !sameSet(old, current) {
			return fleet.Errorf(fleet.Conflict, "the members of cluster %q are not those in \"old\" any more; read them and try again", cluster)
		}
		hosts, err := s.lockHosts(ctx, q, slices.Concat(current, new))
		if err != nil {
			return err
		}
		var joining []string
		for _, address := range new {
			if hosts[address].cluster == cluster {
				continue
			}
			if err := mayJoin(hosts, cluster, address); err != nil {
				return err
			}
			joining = append(joining, address)
		}
		if _, err := q.Exec(ctx, leaveOthersSQL, s.tenant, cluster, new); err != nil {
			return err
		}
		if _, err := q.Exec(ctx, setMembersSQL, s.tenant, cluster, new); err != nil {
			return err
		}
		if ops, err = s.joined(ctx, q, manager, joining, o); err != nil {
			return err
		}
		v, err = s.clusterView(ctx, q, cluster)
		return err
	})
	return v, ops, err
}

// lockCluster keeps the members of a cluster as they are until the transaction
// ends, and gives its container manager.
func (s *Store) lockCluster(ctx context.Context, q querier, name string) (manager string, err error) {
	err = q.QueryRow(ctx, lockClusterSQL, s.tenant, name).Scan(&manager)
	return manager, orNotFound(err, "cluster", name)
}

// membership is what joining depends on.
type membership struct {
	cluster string
	state   fleet.HostState
}

func (s *Store) lockHosts(ctx context.Context, q querier, addresses []string) (map[string]membership, error) {
	return s.memberships(ctx, q, lockHostsSQL, addresses)
}

func (s *Store) memberships(ctx context.Context, q querier, sql string, addresses []string) (map[string]membership, error) {
	rows, err := q.Query(ctx, sql, s.tenant, addresses)
	if err != nil {
		return nil, err
	}
	hosts := map[string]membership{}
	var address string
	var m membership
	_, err = pgx.ForEachRow(rows, []any{&address, &m.cluster, &m.state}, func() error {
		hosts[address] = m
		return nil
	})
	return hosts, err
}

func mayJoin(hosts map[string]membership, cluster, address string) error {
	h, known := hosts[address]
	switch {
	case !known:
		return notFound("host", address)
	case h.cluster != "":
		return fleet.Errorf(fleet.Conflict, "host %q is in cluster %q; take it out there before it joins %q", address, h.cluster, cluster)
	case !h.state.ReadyToJoin():
		return fleet.Errorf(fleet.NotReady, "host %q is %s; it can join a cluster once it is active or disassociated", address, h.state)
	}
	return nil
}

func withoutRepeats(in []string) []string {
	out := make([]string, 0, len(in))
	seen := map[string]bool{}
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func sameSet(a, b []string) bool {
	sorted := func(in []string) []string {
		out := slices.Clone(in)
		slices.SortFunc(out, strings.Compare)
		return slices.Compact(out)
	}
	return slices.Equal(sorted(a), sorted(b))
}
