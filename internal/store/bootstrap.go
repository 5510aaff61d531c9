package store

import (
	"context"

	"commissaire/internal/fleet"
)

// Surroundings are what a bootstrap of a host goes by, beside the host itself.
type Surroundings struct {
	Cluster string // "" for a host in none
	Profile string // of the cluster, "" for that of the installation
	// Network is that of the cluster; else the default one, as it was in 2017.
	Network fleet.Network
	// Manager is the container manager of the cluster with all its options; its name is
	// "" when there is none.
	Manager fleet.ContainerManager
}

const surroundingsSQL = `SELECT coalesce(c.name, ''), coalesce(c.profile, ''),
		coalesce(n.name, $3), coalesce(n.type, $4), coalesce(n.options, '{}'), coalesce(m.name, '')
	FROM host h LEFT JOIN cluster c ON c.tenant = h.tenant AND c.name = h.cluster
		LEFT JOIN LATERAL (
			SELECT name, type, options FROM network WHERE tenant = h.tenant AND name IN (c.network, $3) ORDER BY name <> c.network LIMIT 1
		) n ON true
		LEFT JOIN container_manager m ON m.tenant = c.tenant AND m.name = c.container_manager AND m.checking IS NULL
	WHERE h.tenant = $1 AND h.address = $2`

const hostProfileSQL = `SELECT coalesce(c.profile, '')
	FROM host h LEFT JOIN cluster c ON c.tenant = h.tenant AND c.name = h.cluster WHERE h.tenant = $1 AND h.address = $2`

// HostProfile gives the profile of a host's cluster; "" for that of the installation, also
// of a host that is gone.
func (s *Store) HostProfile(ctx context.Context, address string) (name string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, hostProfileSQL, s.tenant, address).Scan(&name)
		if isNoRows(err) {
			return nil
		}
		return err
	})
	return name, err
}

// Surroundings gives what a bootstrap of a host goes by.
func (s *Store) Surroundings(ctx context.Context, address string) (found Surroundings, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		found = Surroundings{}
		manager := ""
		err := q.QueryRow(ctx, surroundingsSQL, s.tenant, address, fleet.DefaultNetwork, string(fleet.NetworkFlannelEtcd)).Scan(
			&found.Cluster, &found.Profile, &found.Network.Name, &found.Network.Type, &found.Network.Options, &manager)
		if err != nil || manager == "" {
			return orNotFound(err, "host", address)
		}
		found.Manager, err = s.openContainerManager(ctx, q, manager, "")
		if fleet.KindOf(err) == fleet.NotFound {
			return nil // deleted in between
		}
		return err
	})
	return found, err
}
