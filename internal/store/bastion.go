package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// Bastion is how to log in to a host through which others are reached.
type Bastion struct {
	Address string
	Port    int
	HostKey string // pinned, in authorized_keys form; "" before the first contact
	Creds   secret.HostCreds
}

const (
	// bastionOf is the address of the bastion of host h: its own, or that of its cluster.
	// What is a bastion itself is reached without that of its cluster.
	bastionOf = `coalesce(h.bastion, (SELECT k.bastion FROM cluster k WHERE k.tenant = h.tenant AND k.name = h.cluster AND k.bastion <> h.address
			AND NOT EXISTS (SELECT FROM host x WHERE x.tenant = h.tenant AND x.bastion = h.address)
			AND NOT EXISTS (SELECT FROM cluster x WHERE x.tenant = h.tenant AND x.bastion = h.address)), '')`

	bastionOfSQL = `SELECT ` + bastionOf + ` FROM host h WHERE h.tenant = $1 AND h.address = $2`

	bastionsSQL = `SELECT h.address, h.port, coalesce(h.host_key, ''), c.remote_user, c.sealed
		FROM host h JOIN host_creds c ON c.tenant = h.tenant AND c.address = h.address WHERE h.tenant = $1 AND h.address = ANY ($2)`

	wayToSQL = `SELECT h.bastion IS NOT NULL, coalesce(h.cluster, ''), ` + bastionOf + ` FROM host h WHERE h.tenant = $1 AND h.address = $2`

	setHostBastionSQL = `UPDATE host SET bastion = nullif($3, '') WHERE tenant = $1 AND address = $2`

	setClusterBastionSQL = `UPDATE cluster SET bastion = nullif($3, '') WHERE tenant = $1 AND name = $2`

	servedSQL = `SELECT (SELECT count(*) FROM host WHERE tenant = $1 AND bastion = $2), (SELECT count(*) FROM cluster WHERE tenant = $1 AND bastion = $2),
		ARRAY(SELECT address FROM host WHERE tenant = $1 AND bastion = $2 ORDER BY address LIMIT 3), ARRAY(SELECT name FROM cluster WHERE tenant = $1 AND bastion = $2 ORDER BY name LIMIT 3)`
)

// Bastion gives the host through which another one is reached, nil for none.
func (s *Store) Bastion(ctx context.Context, address string) (b *Bastion, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		name, err := one(ctx, q, pgx.RowTo[string], bastionOfSQL, s.tenant, address)
		if err != nil || name == "" {
			return orNotFound(err, "host", address)
		}
		found, err := s.bastions(ctx, q, []string{name})
		if err != nil {
			return err
		}
		if b = found[name]; b == nil {
			return fmt.Errorf("the credentials of %s, the bastion of host %s, cannot be opened", name, address)
		}
		return nil
	})
	return b, err
}

// bastions gives those whose credentials can be opened.
func (s *Store) bastions(ctx context.Context, q querier, addresses []string) (map[string]*Bastion, error) {
	found := map[string]*Bastion{}
	if len(addresses) == 0 {
		return found, nil
	}
	rows, err := q.Query(ctx, bastionsSQL, s.tenant, addresses)
	if err != nil {
		return nil, err
	}
	var b Bastion
	var box []byte
	_, err = pgx.ForEachRow(rows, []any{&b.Address, &b.Port, &b.HostKey, &b.Creds.RemoteUser, &box}, func() error {
		key, err := s.db.sealer.Open(box, credsRow(s.tenant, b.Address))
		if err != nil {
			return nil
		}
		it := b
		it.Creds.PrivateKey = key
		found[b.Address] = &it
		return nil
	})
	return found, err
}

// PutHostBastion says through which host another one is reached; "" for that of its
// cluster, or none.
func (s *Store) PutHostBastion(ctx context.Context, address, bastion string) error {
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		return s.setHostBastion(ctx, q, address, bastion)
	})
}

func (s *Store) setHostBastion(ctx context.Context, q querier, address, bastion string) error {
	if bastion != "" {
		hosts, err := s.lockHosts(ctx, q, []string{address, bastion})
		if err != nil {
			return err
		}
		if _, known := hosts[address]; !known {
			return notFound("host", address)
		}
		if bastion == address {
			return fleet.InvalidField("bastion", "is the host itself")
		}
		if err := s.mayBeBastion(ctx, q, bastion, ""); err != nil {
			return err
		}
		served, err := s.served(ctx, q, address)
		if err != nil {
			return err
		}
		if served != "" {
			return fleet.InvalidField("bastion", "host %s is itself the bastion of %s, and so can have none", address, served)
		}
	}
	tag, err := q.Exec(ctx, setHostBastionSQL, s.tenant, address, bastion)
	if err == nil && tag.RowsAffected() == 0 {
		return notFound("host", address)
	}
	return err
}

func (s *Store) setClusterBastion(ctx context.Context, q querier, cluster, bastion string) error {
	if bastion != "" {
		if _, err := s.lockHosts(ctx, q, []string{bastion}); err != nil {
			return err
		}
		if err := s.mayBeBastion(ctx, q, bastion, cluster); err != nil {
			return err
		}
	}
	_, err := q.Exec(ctx, setClusterBastionSQL, s.tenant, cluster, bastion)
	return err
}

// mayBeBastion wants the bastion locked, so that it gets none itself meanwhile. A member
// of cluster may take the place of that cluster's bastion.
func (s *Store) mayBeBastion(ctx context.Context, q querier, bastion, cluster string) error {
	type way struct {
		Own              bool
		Cluster, Through string
	}
	w, err := one(ctx, q, pgx.RowToStructByPos[way], wayToSQL, s.tenant, bastion)
	switch {
	case isNoRows(err):
		return fleet.InvalidField("bastion", "host %s does not exist; a bastion is a host of the inventory", bastion)
	case err == nil && w.Own:
		return fleet.InvalidField("bastion", "host %s is reached through a bastion itself; there is one at most on the way to a host", bastion)
	case err == nil && w.Through != "" && w.Cluster != cluster:
		// As a bastion it would be reached straight, which may not be possible.
		return fleet.InvalidField("bastion", "host %s is reached through a bastion itself, %s of its cluster %s; there is one at most on the way to a host", bastion, w.Through, w.Cluster)
	}
	return err
}

// served says whose bastion a host is, "2 hosts (a, b) and 1 cluster (web)", the first
// ones by name; "" of nobody.
func (s *Store) served(ctx context.Context, q querier, address string) (string, error) {
	var hosts, clusters int
	var firstHosts, firstClusters []string
	err := q.QueryRow(ctx, servedSQL, s.tenant, address).Scan(&hosts, &clusters, &firstHosts, &firstClusters)
	var parts []string
	count := func(n int, what string, first []string) {
		if n == 0 {
			return
		}
		if n > 1 {
			what += "s"
		}
		if n > len(first) {
			first = append(first, "…")
		}
		parts = append(parts, fmt.Sprintf("%d %s (%s)", n, what, strings.Join(first, ", ")))
	}
	count(hosts, "host", firstHosts)
	count(clusters, "cluster", firstClusters)
	return strings.Join(parts, " and "), err
}

// servesNobody is a Conflict when a host is a bastion of others.
func (s *Store) servesNobody(ctx context.Context, q querier, address string) error {
	served, err := s.served(ctx, q, address)
	if err != nil || served == "" {
		return err
	}
	return fleet.Errorf(fleet.Conflict, "host %q is the bastion of %s; give them another one first", address, served)
}
