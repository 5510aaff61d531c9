package store

import (
	"context"

	"commissaire/internal/fleet"
)

const (
	putClusterPolicySQL = `UPDATE cluster SET policy = $3 WHERE tenant = $1 AND name = $2`
	hostLabelsSQL       = `SELECT labels FROM host WHERE tenant = $1 AND address = $2`
	putHostLabelsSQL    = `UPDATE host SET labels = $3 WHERE tenant = $1 AND address = $2`
)

// ClusterPolicy gives the policy that lies under that of every rollout of a cluster.
func (s *Store) ClusterPolicy(ctx context.Context, name string) (p fleet.Policy, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, clusterPolicySQL, s.tenant, name).Scan(&p)
		return orNotFound(err, "cluster", name)
	})
	return p, err
}

// PutClusterPolicy replaces the policy of a cluster; an empty one is none. It must
// have passed Check. Operations that are on record keep theirs.
func (s *Store) PutClusterPolicy(ctx context.Context, name string, p fleet.Policy) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, putClusterPolicySQL, s.tenant, name, p)
		if err == nil && tag.RowsAffected() == 0 {
			return notFound("cluster", name)
		}
		return err
	})
}

// HostLabels gives the labels of a host; none is an empty map.
func (s *Store) HostLabels(ctx context.Context, address string) (labels map[string]string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, hostLabelsSQL, s.tenant, address).Scan(&labels)
		return orNotFound(err, "host", address)
	})
	return labels, err
}

// PutHostLabels replaces the labels of a host. They must have passed CheckLabels.
func (s *Store) PutHostLabels(ctx context.Context, address string, labels map[string]string) error {
	if labels == nil {
		labels = map[string]string{}
	}
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, putHostLabelsSQL, s.tenant, address, labels)
		if err == nil && tag.RowsAffected() == 0 {
			return notFound("host", address)
		}
		return err
	})
}
