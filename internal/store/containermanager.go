package store

import (
	"context"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

const (
	containerManagersSQL = `SELECT name FROM container_manager WHERE tenant = $1 AND checking IS NULL ORDER BY name`

	containerManagerSQL = `SELECT name, type, options FROM container_manager WHERE tenant = $1 AND name = $2 AND checking IS NULL`

	// One that is being checked, perhaps by somebody who died over it, is overwritten.
	insertContainerManagerSQL = `INSERT INTO container_manager AS m (tenant, name, type, options, sealed, key_id, checking) VALUES ($1, $2, $3, $4, $5, $6, nullif($7, '')::uuid)
		ON CONFLICT ON CONSTRAINT container_manager_pk DO UPDATE SET type = excluded.type, options = excluded.options,
			sealed = excluded.sealed, key_id = excluded.key_id, checking = excluded.checking, created = now() WHERE m.checking IS NOT NULL
		RETURNING name, type, options`

	sealedContainerManagerSQL = `SELECT name, type, options, sealed FROM container_manager
		WHERE tenant = $1 AND name IN ($2::text, $2 || '` + nextSuffix + `') AND checking IS NOT DISTINCT FROM nullif($3, '')::uuid`

	checkedContainerManagerSQL = `UPDATE container_manager SET checking = NULL WHERE tenant = $1 AND name = $2 AND checking = $3`

	refusedContainerManagerSQL = `DELETE FROM container_manager WHERE tenant = $1 AND name IN ($2::text, $2 || '` + nextSuffix + `') AND checking = $3`

	// Registering waits for the lock and then finds no manager, so no node comes after
	// those that are locked.
	claimContainerManagerSQL = `SELECT FROM container_manager WHERE tenant = $1 AND name = $2 AND checking IS NULL FOR UPDATE`

	lockOperationsSQL = `SELECT host FROM operation WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE`

	unfinishedOfManagerSQL = `SELECT id FROM operation WHERE tenant = $1 AND manager = $2 AND finished IS NULL ORDER BY id`

	claimNodesOfManagerSQL = `SELECT FROM node WHERE tenant = $1 AND manager = $2 ORDER BY address FOR UPDATE`

	cordoningSQL = `SELECT DISTINCT operation_id::text FROM host_run WHERE tenant = $1 AND cordon_manager = $2 AND cordon IN ('out', 'restoring')`

	cordonsOutSQL = `SELECT count(*), coalesce((array_agg(address ORDER BY address))[:$3], '{}'), coalesce(array_agg(DISTINCT operation_id::text), '{}')
		FROM host_run WHERE tenant = $1 AND cordon_manager = $2 AND cordon IN ('out', 'restoring')`

	leaveCordonsSQL = `WITH cordoned AS (
			UPDATE host_run SET cordon = 'left' WHERE tenant = $1 AND cordon_manager = $2 AND cordon IN ('out', 'restoring')
			RETURNING tenant, operation_id, address, state)
		INSERT INTO event (tenant, operation_id, kind, address, state, reason)
		SELECT tenant, operation_id, 'host', address, state, $3 FROM cordoned`

	deleteContainerManagerSQL = `DELETE FROM container_manager WHERE tenant = $1 AND name IN ($2::text, $2 || '` + nextSuffix + `')`
)

// ContainerManagers lists the names, sorted.
func (s *Store) ContainerManagers(ctx context.Context) (names []string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		names, err = collect(ctx, q, pgx.RowTo[string], containerManagersSQL, s.tenant)
		return err
	})
	return names, err
}

// ContainerManager gives one container manager. Options that are secret show as
// secret.Redacted.
func (s *Store) ContainerManager(ctx context.Context, name string) (m fleet.ContainerManager, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, containerManagerSQL, s.tenant, name).Scan(&m.Name, &m.Type, &m.Options)
		return orNotFound(err, "container manager", name)
	})
	return m, err
}

// PutContainerManager creates a container manager and gives it as ContainerManager
// does. The same one again is fine; a different one of that name, also by its secrets
// alone, is a Conflict (see ReplaceContainerManager).
//
// One of a type that has nodes is not there for anybody before a worker has asked it:
// check then names this attempt, for ContainerManagerChecked or ContainerManagerRefused.
// It is "" when there is nothing to check.
func (s *Store) PutContainerManager(ctx context.Context, want fleet.ContainerManager) (m fleet.ContainerManager, check string, err error) {
	if want.Options == nil {
		want.Options = map[string]any{}
	}
	text, err := json.Marshal(want.Options)
	if err != nil {
		return m, "", err
	}
	attempt := ""
	if want.Type.HasNodes() {
		id, err := uuid.NewV7()
		if err != nil {
			return m, "", err
		}
		attempt = id.String()
	}
	row := secret.Row(s.tenant, "container_manager", want.Name)
	sealed, id, err := s.db.seal(secret.NewText(text), row)
	if err != nil {
		return m, "", err
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		check = attempt
		err := q.QueryRow(ctx, insertContainerManagerSQL, s.tenant, want.Name, string(want.Type), shown(want.Options), sealed, id, attempt).Scan(&m.Name, &m.Type, &m.Options)
		if !isNoRows(err) {
			return err
		}
		check = ""
		var there []byte
		err = q.QueryRow(ctx, sealedContainerManagerSQL, s.tenant, want.Name, "").Scan(&m.Name, &m.Type, &m.Options, &there)
		if isNoRows(err) {
			return errAgain // deleted in between
		}
		if err != nil {
			return err
		}
		opened, err := s.db.sealer.Open(there, row)
		if err != nil {
			return err
		}
		if m.Type != want.Type || !sameJSON(opened.Reveal(), text) {
			return fleet.Errorf(fleet.Conflict, "container manager %q exists with another type or other options; its options change with ?replace=true (commctl container_manager update), its type does not", want.Name)
		}
		return nil
	})
	if err != nil {
		return fleet.ContainerManager{}, "", err
	}
	return m, check, nil
}

// ContainerManagerChecked makes a container manager that was put be there for all, or
// puts options in force that are to replace others. It is a Conflict when somebody else
// has done so meanwhile.
//
// Cordons that one of this name has left when it was deleted by force are to be taken
// back from then on. On nodes that bear none of ours that changes nothing.
func (s *Store) ContainerManagerChecked(ctx context.Context, name, check string) error {
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		rollouts, err := s.lockLeft(ctx, q, name)
		if err != nil {
			return err
		}
		tag, err := q.Exec(ctx, checkedContainerManagerSQL, s.tenant, name, check)
		switch {
		case err != nil:
			return err
		case tag.RowsAffected() > 0:
			_, err = q.Exec(ctx, takeUpCordonsSQL, s.tenant, name, rollouts)
			return err
		}
		if err = s.replaceChecked(ctx, q, name, check); isNoRows(err) {
			return fleet.Errorf(fleet.Conflict, "container manager %q was put by somebody else at the same time; read it, and try again if it is not the one you want", name)
		}
		return err
	})
}

// ContainerManagerRefused forgets a container manager that was put.
func (s *Store) ContainerManagerRefused(ctx context.Context, name, check string) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		_, err := q.Exec(ctx, refusedContainerManagerSQL, s.tenant, name, check)
		return err
	})
}

// OpenContainerManager gives a container manager with all its options, to put it to
// use. check is as PutContainerManager gave it for one that is not checked yet, else "".
func (s *Store) OpenContainerManager(ctx context.Context, name, check string) (m fleet.ContainerManager, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		m, err = s.openContainerManager(ctx, q, name, check)
		return err
	})
	return m, err
}

func (s *Store) openContainerManager(ctx context.Context, q querier, name, check string) (m fleet.ContainerManager, err error) {
	var sealed []byte
	err = q.QueryRow(ctx, sealedContainerManagerSQL, s.tenant, name, check).Scan(&m.Name, &m.Type, &m.Options, &sealed)
	if err != nil {
		return m, orNotFound(err, "container manager", name)
	}
	opened, err := s.db.sealer.Open(sealed, secret.Row(s.tenant, "container_manager", m.Name))
	if err != nil {
		return m, err
	}
	m.Name, m.Options = name, nil
	return m, json.Unmarshal(opened.Reveal(), &m.Options)
}

// DeleteContainerManager deletes a container manager, also one that clusters name,
// and with it what it holds. The hosts stay in the state that they are in, and their
// nodes where they are. Operations that would ask it fail in the same transaction and are
// given back, so that the caller can cancel their workflows.
//
// While nodes of it bear cordons of rollouts it is a Conflict, since nobody could take
// those back. By force they are left as they are, until one of that name is there again, and
// the events of the rollouts say which.
func (s *Store) DeleteContainerManager(ctx context.Context, name string, force bool) (ended []fleet.Operation, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		ended = nil
		ids, cordons, err := s.lockOfManager(ctx, q, name, force)
		if err != nil {
			return err
		}
		if _, err := one(ctx, q, scanNothing, claimContainerManagerSQL, s.tenant, name); err != nil {
			return orNotFound(err, "container manager", name)
		}
		// The foreign key would lock the nodes in any order, so they are locked in ours before.
		if _, err := q.Exec(ctx, claimNodesOfManagerSQL, s.tenant, name); err != nil {
			return err
		}
		if err := s.leaveCordons(ctx, q, name, cordons, force); err != nil {
			return err
		}
		// From here on nobody else can put one on record.
		now, err := collect(ctx, q, pgx.RowTo[string], unfinishedOfManagerSQL, s.tenant, name)
		switch {
		case err != nil:
			return err
		case !slices.Equal(now, ids):
			return errAgain
		}
		for len(ids) > 0 {
			for _, id := range ids {
				op, err := s.endOperation(ctx, q, id, fleet.OperationFailed, "container manager "+name+" was deleted; what it has of the host stays there")
				if err != nil {
					return err
				}
				ended = append(ended, op)
			}
			// A register that ends may leave an unregister behind.
			if ids, err = collect(ctx, q, pgx.RowTo[string], unfinishedOfManagerSQL, s.tenant, name); err != nil {
				return err
			}
		}
		_, err = q.Exec(ctx, deleteContainerManagerSQL, s.tenant, name)
		return err
	})
	return ended, err
}

// lockOfManager keeps the operations that would ask a container manager, and their
// hosts, as they are until the transaction ends; by force, too, the rollouts whose
// cordons its nodes bear.
func (s *Store) lockOfManager(ctx context.Context, q querier, name string, force bool) (ids, cordons []string, err error) {
	if ids, err = collect(ctx, q, pgx.RowTo[string], unfinishedOfManagerSQL, s.tenant, name); err != nil {
		return nil, nil, err
	}
	if force {
		if cordons, err = collect(ctx, q, pgx.RowTo[string], cordoningSQL, s.tenant, name); err != nil {
			return nil, nil, err
		}
	}
	for _, id := range slices.Sorted(slices.Values(append(slices.Clone(ids), cordons...))) {
		if _, _, err := s.lockTurn(ctx, q, id); err != nil {
			return nil, nil, err
		}
	}
	addresses, err := collect(ctx, q, pgx.RowTo[string], lockOperationsSQL, ids)
	if err != nil {
		return nil, nil, err
	}
	_, err = q.Exec(ctx, lockHostRowsSQL, s.tenant, addresses)
	return ids, cordons, err
}

// leaveCordons wants that no node of a container manager, which is locked, bears a cordon
// of ours. By force it notes that they are left; rollouts are those that are locked.
func (s *Store) leaveCordons(ctx context.Context, q querier, name string, rollouts []string, force bool) error {
	if !force {
		out, err := one(ctx, q, pgx.RowToStructByPos[cordonsOut], cordonsOutSQL, s.tenant, name, namedHosts)
		if err == nil && out.Count > 0 {
			return out.conflict()
		}
		return err
	}
	now, err := collect(ctx, q, pgx.RowTo[string], cordoningSQL, s.tenant, name)
	switch {
	case err != nil:
		return err
	case slices.ContainsFunc(now, func(id string) bool { return !slices.Contains(rollouts, id) }):
		return errAgain
	}
	_, err = q.Exec(ctx, leaveCordonsSQL, s.tenant, name, "container manager "+name+" was deleted; if the node is cordoned it stays so until one of that name is created again, or somebody uncordons it")
	return err
}

// cordonsOut are the cordons that the nodes of a container manager bear.
type cordonsOut struct {
	Count      int
	Hosts      []string // the first of them
	Operations []string
}

func (c cordonsOut) conflict() *fleet.Error {
	nodes, them := "nodes are", "them"
	if c.Count == 1 {
		nodes, them = "node is", "it"
	}
	operations := "operation"
	if len(c.Operations) > 1 {
		operations = "operations"
	}
	return fleet.Errorf(fleet.Conflict, "%d %s cordoned by %s %s (%s); wait for the end, or delete it by force and uncordon %s yourself",
		c.Count, nodes, operations, strings.Join(c.Operations, ", "), someOf(c.Hosts, c.Count), them)
}

// secretOption matches the names of options whose values are secret. Those of the
// files of a certificate, certificate_path and certificate_key_path, it does not.
var secretOption = regexp.MustCompile(`(?i)token|password|passwd|passphrase|secret|credential|authorization|private[-_]?key|key[-_]?data|kubeconfig`)

// inURL matches whom a URL logs in as.
var inURL = regexp.MustCompile(`://[^/?#\s]*@`)

// shown gives options as anybody may see them, with secret.Redacted for every secret.
func shown(options map[string]any) map[string]any {
	out := make(map[string]any, len(options))
	for name, value := range options {
		if secretOption.MatchString(name) {
			out[name] = secret.Redacted
			continue
		}
		out[name] = shownValue(value)
	}
	return out
}

func shownValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return shown(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = shownValue(v[i])
		}
		return out
	case string:
		return inURL.ReplaceAllString(v, "://"+secret.Redacted+"@")
	}
	return value
}

// sameJSON compares two values by what they say.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
