package store

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// ClusterView is a cluster with its members.
type ClusterView struct {
	fleet.Cluster
	Members []string // addresses, in join order
	Counts  fleet.HostCounts
}

// ClusterPut creates or changes a cluster; nil leaves a member as it is, or at
// its default in a new one.
type ClusterPut struct {
	Name             string
	Network          *string
	ContainerManager *string
	Profile          *string
	Bastion          *string // address of a host, "" for none
}

const (
	clustersSQL = `SELECT name FROM cluster WHERE tenant = $1 ORDER BY name`

	clusterViewSQL = `SELECT c.name, c.network, c.container_manager, c.profile, coalesce(c.bastion, ''), c.created,
			coalesce(array_agg(h.address ORDER BY h.join_order, h.address) FILTER (WHERE h.address IS NOT NULL), '{}'),
			count(h.address), count(h.address) FILTER (WHERE h.state = $3)
		FROM cluster c LEFT JOIN host h ON h.tenant = c.tenant AND h.cluster = c.name
		WHERE c.tenant = $1 AND c.name = $2
		GROUP BY c.tenant, c.name`

	// A new cluster whose network does not exist gets the default one; "" is kept (contract §3.1).
	putClusterSQL = `INSERT INTO cluster AS c (tenant, name, network, container_manager, profile)
		VALUES ($1, $2,
			CASE WHEN $3 = '' OR EXISTS (SELECT FROM network n WHERE n.tenant = $1 AND n.name = $3) THEN $3::text ELSE $5 END,
			coalesce($4::text, ''), coalesce($6::text, ''))
		ON CONFLICT ON CONSTRAINT cluster_pk DO UPDATE SET
			network = coalesce($3, c.network), container_manager = coalesce($4, c.container_manager),
			profile = coalesce($6, c.profile)
		RETURNING name, network, container_manager, profile, coalesce(bastion, ''), created`

	// The foreign key would lock the members in any order, so they are locked
	// in ours before.
	claimClusterSQL = `SELECT FROM cluster WHERE tenant = $1 AND name = $2 FOR UPDATE`
	claimMembersSQL = `SELECT address FROM host WHERE tenant = $1 AND cluster = $2 ORDER BY address FOR NO KEY UPDATE`

	noticeSQL = `UPDATE rollout SET ` + steered

	deleteClusterSQL = `DELETE FROM cluster WHERE tenant = $1 AND name = $2`
)

// Clusters lists the names, sorted.
func (s *Store) Clusters(ctx context.Context) (names []string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		names, err = collect(ctx, q, pgx.RowTo[string], clustersSQL, s.tenant)
		return err
	})
	return names, err
}

// Cluster gives one cluster with its members and how many are available.
func (s *Store) Cluster(ctx context.Context, name string) (v ClusterView, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		v, err = s.clusterView(ctx, q, name)
		return err
	})
	return v, err
}

func (s *Store) clusterView(ctx context.Context, q querier, name string) (ClusterView, error) {
	var v ClusterView
	var created pgtype.Timestamptz
	err := q.QueryRow(ctx, clusterViewSQL, s.tenant, name, string(fleet.HostActive)).Scan(
		&v.Name, &v.Network, &v.ContainerManager, &v.Profile, &v.Bastion, &created, &v.Members, &v.Counts.Total, &v.Counts.Available)
	v.Created = utc(created)
	return v, orNotFound(err, "cluster", name)
}

// PutCluster creates a cluster, or changes what is given in an existing one and
// keeps its members.
func (s *Store) PutCluster(ctx context.Context, put ClusterPut) (c fleet.Cluster, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		var created pgtype.Timestamptz
		err := q.QueryRow(ctx, putClusterSQL, s.tenant, put.Name, put.Network, put.ContainerManager, fleet.DefaultNetwork, put.Profile).Scan(
			&c.Name, &c.Network, &c.ContainerManager, &c.Profile, &c.Bastion, &created)
		c.Created = utc(created)
		if err != nil || put.Bastion == nil || *put.Bastion == c.Bastion {
			return err
		}
		c.Bastion = *put.Bastion
		return s.setClusterBastion(ctx, q, put.Name, c.Bastion)
	})
	return c, err
}

// DeleteCluster deletes a cluster. Its hosts stay as they are, in no cluster and with
// no container manager; its operations stay on record, and one that runs stops by itself (see
// Claim), also when it is paused. Nodes that workers must remove are pending operations,
// one for each, which are given.
func (s *Store) DeleteCluster(ctx context.Context, name string, by Requester) (ops []fleet.Operation, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if err := s.notice(ctx, q, name); err != nil {
			return err
		}
		o, err := s.orderRemoval(ctx, q, whichHosts{cluster: name}, by)
		if err != nil {
			return err
		}
		_, err = one(ctx, q, scanNothing, claimClusterSQL, s.tenant, name)
		if err != nil {
			return orNotFound(err, "cluster", name)
		}
		members, err := collect(ctx, q, pgx.RowTo[string], claimMembersSQL, s.tenant, name)
		if err != nil {
			return err
		}
		if ops, err = s.removal(ctx, q, o, members); err != nil {
			return err
		}
		_, err = q.Exec(ctx, deleteClusterSQL, s.tenant, name)
		return err
	})
	return ops, err
}

// notice makes the unfinished rollout of a cluster look at it again, as if it had
// been steered. An operation that is put on record at the same time finds the
// cluster gone at its first look.
func (s *Store) notice(ctx context.Context, q querier, cluster string) error {
	op, err := one(ctx, q, scanOperation, unfinishedSQL, s.tenant, cluster, "", "")
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, _, err := s.lockTurn(ctx, q, op.ID); err != nil {
		return err
	}
	_, err = q.Exec(ctx, noticeSQL, op.ID)
	return err
}
