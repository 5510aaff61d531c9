package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// HostPut registers a host.
type HostPut struct {
	Address     string
	Port        int               // 0 means 22 for a new host and no change for a known one
	Cluster     string            // "" for none
	HostKey     string            // authorized_keys form, "" leaves it to the first contact
	Labels      map[string]string // of a new host; a known one keeps its own
	Source      string            // "" means none for a new host and no change for a known one
	Bastion     string            // the same
	Creds       secret.HostCreds
	RequestedBy string
	RequestID   string
}

// hostColumns are what scanHost reads.
const hostColumns = `h.address, h.port, coalesce(h.cluster, ''), h.state, h.reason, h.state_since, coalesce(h.state_operation::text, ''),
		h.os, h.os_version, h.ostree, h.bootc, h.package_manager, h.cpus, h.memory, h.space, h.boot_id, h.last_check, h.labels, h.source,
		coalesce(h.host_key, ''), coalesce(h.host_key_print, ''), h.host_key_pinned, h.bootstrapped, h.created,
		h.watch_state, h.watch_reason, h.watch_since, h.watch_failures, h.watched, h.rebooted, coalesce(h.bastion, '')`

const (
	hostsSQL = `SELECT ` + hostColumns + ` FROM host h WHERE h.tenant = $1 ORDER BY h.address`

	hostSQL = `SELECT ` + hostColumns + ` FROM host h WHERE h.tenant = $1 AND h.address = $2`

	clusterExistsSQL = `SELECT EXISTS (SELECT FROM cluster WHERE tenant = $1 AND name = $2)`

	insertHostSQL = `INSERT INTO host (tenant, address, port, cluster, join_order, state, state_operation, labels, source)
		VALUES ($1, $2, $3, $4, (SELECT coalesce(max(join_order), 0) + 1 FROM host WHERE tenant = $1 AND cluster = $4), $5, $6, coalesce($7::jsonb, '{}'), $8)
		ON CONFLICT ON CONSTRAINT host_pk DO NOTHING`

	setPortSQL = `UPDATE host SET port = $3 WHERE tenant = $1 AND address = $2`

	unfinishedIDsOfHostSQL = `SELECT id FROM operation WHERE tenant = $1 AND host = $2 AND finished IS NULL AND kind <> 'unregister'`

	unfinishedOfHostSQL = `SELECT EXISTS (SELECT FROM operation WHERE tenant = $1 AND host = $2 AND finished IS NULL AND kind <> 'unregister')`

	deleteHostSQL = `DELETE FROM host WHERE tenant = $1 AND address = $2`
)

// Hosts lists all hosts, sorted by address.
func (s *Store) Hosts(ctx context.Context) (hosts []fleet.Host, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		hosts, err = collect(ctx, q, scanHost, hostsSQL, s.tenant)
		return err
	})
	return hosts, err
}

// Host gives one host.
func (s *Store) Host(ctx context.Context, address string) (h fleet.Host, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		h, err = s.host(ctx, q, address)
		return err
	})
	return h, err
}

func (s *Store) host(ctx context.Context, q querier, address string) (fleet.Host, error) {
	rows, err := q.Query(ctx, hostSQL, kept, s.tenant, address)
	if err != nil {
		return fleet.Host{}, err
	}
	h, err := pgx.CollectExactlyOneRow(rows, scanHost)
	return h, orNotFound(err, "host", address)
}

func scanHost(row pgx.CollectableRow) (fleet.Host, error) { return scanHostAnd(row) }

// scanHostAnd reads columns behind hostColumns, too.
func scanHostAnd(row pgx.CollectableRow, more ...any) (fleet.Host, error) {
	var h fleet.Host
	var key fleet.HostKey
	var since, check, pinned, bootstrapped, created, found, watched, rebooted pgtype.Timestamptz
	err := row.Scan(append([]any{&h.Address, &h.Port, &h.Cluster, &h.State, &h.Reason, &since, &h.OperationID,
		&h.OS, &h.OSVersion, &h.OSTree, &h.Bootc, &h.PackageManager, &h.CPUs, &h.Memory, &h.Space, &h.BootID, &check, &h.Labels, &h.Source,
		&key.Key, &key.Fingerprint, &pinned, &bootstrapped, &created,
		&h.Watch.State, &h.Watch.Reason, &found, &h.Watch.Failures, &watched, &rebooted, &h.Bastion}, more...)...)
	h.StateSince, h.LastCheck, h.Bootstrapped, h.Created = utc(since), utc(check), utc(bootstrapped), utc(created)
	h.Watch.Since, h.Watch.Checked, h.Watch.Rebooted = utc(found), utc(watched), utc(rebooted)
	if pinned.Valid {
		key.Pinned = utc(pinned)
		h.HostKey = &key
	}
	return h, err
}

// PutHost registers a host: the host, its sealed credentials, its membership
// and the pending operation that bootstraps it, with the host key pinned if one
// is given, or none of them. The operation is nil when the host was there already
// and what is given agrees with it (same key; same cluster and pinned host key, if
// given); only another port is taken over then, since a wrong one could not be
// mended otherwise, and another source or bastion. All else is a Conflict, as an unknown cluster is (contract
// §3.4). A host key that cannot be read is Invalid, and so is an address that cannot be
// the name of a node, in a cluster whose container manager has nodes.
func (s *Store) PutHost(ctx context.Context, put HostPut) (h fleet.Host, op *fleet.Operation, err error) {
	var print string
	if put.HostKey != "" {
		if put.HostKey, print, err = parseHostKey(put.HostKey); err != nil {
			return h, nil, err
		}
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		h, op, err = s.putHost(ctx, q, put, print)
		return err
	})
	if err != nil {
		return fleet.Host{}, nil, err
	}
	return h, op, nil
}

// putHost wants the host key as parseHostKey gives it, and its fingerprint.
func (s *Store) putHost(ctx context.Context, q querier, put HostPut, print string) (h fleet.Host, op *fleet.Operation, err error) {
	if put.Cluster != "" {
		if err := s.clusterExists(ctx, q, put.Cluster); err != nil {
			return h, nil, err
		}
	}
	h, err = s.host(ctx, q, put.Address)
	if fleet.KindOf(err) == fleet.NotFound {
		if op, err = s.insertHost(ctx, q, put); err != nil {
			return h, nil, err
		}
		if put.HostKey != "" {
			if _, err := s.pin(ctx, q, put.Address, put.HostKey, print); err != nil {
				return h, nil, err
			}
		}
		h, err = s.host(ctx, q, put.Address)
		return h, op, err
	}
	if err != nil {
		return h, nil, err
	}
	if err := s.agrees(ctx, q, h, put); err != nil {
		return h, nil, err
	}
	if put.Source != "" && put.Source != h.Source {
		h.Source = put.Source
		if err := s.setSource(ctx, q, put.Address, put.Source); err != nil {
			return h, nil, err
		}
	}
	if put.Bastion != "" && put.Bastion != h.Bastion {
		h.Bastion = put.Bastion
		if err := s.setHostBastion(ctx, q, put.Address, put.Bastion); err != nil {
			return h, nil, err
		}
	}
	if put.Port == 0 || put.Port == h.Port {
		return h, nil, nil
	}
	h.Port = put.Port
	tag, err := q.Exec(ctx, setPortSQL, s.tenant, put.Address, put.Port)
	if err == nil && tag.RowsAffected() == 0 {
		return h, nil, errAgain // deleted in between
	}
	return h, nil, err
}

// clusterExists is a Conflict when it does not: the request names it beside what it
// is about (contract §3.4).
func (s *Store) clusterExists(ctx context.Context, q querier, name string) error {
	var known bool
	if err := q.QueryRow(ctx, clusterExistsSQL, s.tenant, name).Scan(&known); err != nil || known {
		return err
	}
	e := fleet.Errorf(fleet.Conflict, "cluster %q does not exist; create it first", name)
	e.Fields = []fleet.FieldError{{Field: "cluster", Detail: "does not exist"}}
	return e
}

func (s *Store) agrees(ctx context.Context, q querier, h fleet.Host, put HostPut) error {
	stored, err := s.creds(ctx, q, put.Address)
	if fleet.KindOf(err) == fleet.NotFound {
		return errAgain // deleted in between
	}
	if err != nil {
		return err
	}
	if !stored.PrivateKey.Equal(put.Creds.PrivateKey) {
		return fleet.Errorf(fleet.Conflict, "host %q is registered with another private key; replace its credentials with PUT /api/v0/host/%s/creds (commctl host creds set), or delete it first", put.Address, put.Address)
	}
	if put.Cluster != "" && put.Cluster != h.Cluster {
		return fleet.Errorf(fleet.Conflict, "host %q is not in cluster %q; change the members of the cluster instead", put.Address, put.Cluster)
	}
	if put.HostKey != "" && (h.HostKey == nil || put.HostKey != h.HostKey.Key) {
		e := fleet.Errorf(fleet.Conflict, "the host key in the request is not pinned for host %q; check it, then pin it with PUT /api/v0/host/%s/hostkey", put.Address, put.Address)
		e.Fields = []fleet.FieldError{{Field: "host_key", Detail: "is not the one that is pinned"}}
		return e
	}
	return nil
}

func (s *Store) insertHost(ctx context.Context, q querier, put HostPut) (*fleet.Operation, error) {
	op, created, err := s.insertOperation(ctx, q, NewOperation{
		Kind: fleet.KindBootstrap, Host: put.Address, RequestedBy: put.RequestedBy, RequestID: put.RequestID,
	})
	if err != nil {
		return nil, err
	}
	switch {
	case !created && op.Kind == fleet.KindUnregister: // of the host that was deleted
		return nil, held(op, "")
	case !created:
		return nil, errAgain // somebody else registers this host right now
	}
	var cluster *string
	if put.Cluster != "" {
		cluster = &put.Cluster
		if _, err := s.lockCluster(ctx, q, put.Cluster); err != nil {
			return nil, errAgain // deleted in between
		}
		var manager string
		var t fleet.ContainerManagerType
		if err := q.QueryRow(ctx, clusterManagerSQL, s.tenant, put.Cluster).Scan(&manager, &t); err != nil {
			return nil, err
		}
		if t.HasNodes() {
			if err := fleet.CheckNodeName(put.Address); err != nil {
				return nil, err
			}
		}
	}
	if put.Port == 0 {
		put.Port = fleet.DefaultPort
	}
	tag, err := q.Exec(ctx, insertHostSQL, s.tenant, put.Address, put.Port, cluster, string(fleet.HostInvestigating), op.ID, put.Labels, put.Source)
	if err != nil {
		return nil, err
	}
	if tag.RowsAffected() == 0 {
		return nil, errAgain
	}
	if put.Bastion != "" {
		if err := s.setHostBastion(ctx, q, put.Address, put.Bastion); err != nil {
			return nil, err
		}
	}
	if err := s.writeCreds(ctx, q, insertCredsSQL, put.Address, put.Creds); err != nil {
		return nil, err
	}
	if _, err := q.Exec(ctx, insertHostRunSQL, op.ID, s.tenant, put.Address); err != nil {
		return nil, err
	}
	op, err = s.operation(ctx, q, operationSQL, op.ID)
	return &op, err
}

// DeleteHost removes a host with its credentials and membership. Its unfinished
// operations (a bootstrap, a register) are cancelled in the same transaction and given
// back, so that the caller can cancel their workflows. A node that workers must remove
// is a pending operation, which is given as ordered. A bastion of others is a Conflict.
func (s *Store) DeleteHost(ctx context.Context, address string, by Requester) (cancelled, ordered []fleet.Operation, err error) {
	reason := "host removed"
	if by.Name != "" {
		reason = fmt.Sprintf("host removed by %s", by.Name)
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		// Operations before the host, to keep the order of locks. When one starts
		// between the two, all begins again.
		ids, err := collect(ctx, q, pgx.RowTo[string], unfinishedIDsOfHostSQL, s.tenant, address)
		if err != nil {
			return err
		}
		cancelled = []fleet.Operation{}
		for _, id := range ids { // one at most, by operation_one_per_host
			op, err := s.endOperation(ctx, q, id, fleet.OperationCancelled, reason)
			if err != nil {
				return err
			}
			cancelled = append(cancelled, op)
		}
		o, err := s.orderRemoval(ctx, q, whichHosts{addresses: []string{address}}, by)
		if err != nil {
			return err
		}
		if _, err := s.lockHosts(ctx, q, []string{address}); err != nil {
			return err
		}
		if err := s.servesNobody(ctx, q, address); err != nil {
			return err
		}
		if ordered, err = s.removal(ctx, q, o, []string{address}); err != nil {
			return err
		}
		tag, err := q.Exec(ctx, deleteHostSQL, s.tenant, address)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return notFound("host", address)
		}
		late, err := one(ctx, q, pgx.RowTo[bool], unfinishedOfHostSQL, s.tenant, address)
		if err == nil && late {
			return errAgain
		}
		return err
	})
	return cancelled, ordered, err
}
