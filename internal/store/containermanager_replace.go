package store

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// nextSuffix makes the name under which new options of a container manager are kept
// while they are checked. No container manager can have it, and nobody sees the row.
const nextSuffix = "/new"

const (
	lockContainerManagerSQL = `SELECT name, type, sealed FROM container_manager WHERE tenant = $1 AND name = $2 AND checking IS NULL FOR NO KEY UPDATE`

	nextContainerManagerSQL = `SELECT options, sealed, created FROM container_manager WHERE tenant = $1 AND name = $2 AND checking = $3`

	// created is since when it has its options. Later than those were put which are to
	// replace them: others have come in between.
	replaceContainerManagerSQL = `UPDATE container_manager SET options = $3, sealed = $4, key_id = $5, created = clock_timestamp()
		WHERE tenant = $1 AND name = $2 AND checking IS NULL AND ($6::timestamptz IS NULL OR created <= $6)`

	// As rare as creating a container manager, so it may read all host runs.
	cordonsLeftSQL = `SELECT DISTINCT operation_id::text FROM host_run WHERE tenant = $1 AND cordon_manager = $2 AND cordon = 'left' ORDER BY 1`

	takeUpCordonsSQL = `UPDATE host_run SET cordon = 'restoring' WHERE tenant = $1 AND operation_id = ANY ($3::uuid[]) AND cordon_manager = $2 AND cordon = 'left'`
)

// ReplaceContainerManager gives a container manager other options, all at once: what it
// holds stays, and so do cordons. An option that is given as ContainerManager shows it
// stays as it is, so secrets need not be known. fits says what is wrong with the options
// as they would be. m is as ContainerManager would give it then. NotFound: there is none
// of that name. Conflict: it is of another type.
//
// Where check is not "", the options in force stay until ContainerManagerChecked.
func (s *Store) ReplaceContainerManager(ctx context.Context, want fleet.ContainerManager, fits func(fleet.ContainerManager) error) (m fleet.ContainerManager, check string, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		check = ""
		var sealed []byte
		err := q.QueryRow(ctx, lockContainerManagerSQL, s.tenant, want.Name).Scan(&m.Name, &m.Type, &sealed)
		switch {
		case err != nil:
			return orNotFound(err, "container manager", want.Name)
		case m.Type != want.Type:
			return fleet.Errorf(fleet.Conflict, "container manager %q is of type %s, which cannot be changed", m.Name, m.Type)
		}
		opened, err := s.db.sealer.Open(sealed, secret.Row(s.tenant, "container_manager", m.Name))
		if err != nil {
			return err
		}
		var stored map[string]any
		if err := json.Unmarshal(opened.Reveal(), &stored); err != nil {
			return err
		}
		next := fleet.ContainerManager{Name: m.Name, Type: m.Type, Options: withKept(want.Options, stored)}
		if err := fits(next); err != nil {
			return err
		}
		m.Options = shown(next.Options)
		text, err := json.Marshal(next.Options)
		switch {
		case err != nil:
			return err
		case sameJSON(opened.Reveal(), text):
			return nil
		case !m.Type.HasNodes():
			return s.replaceOptions(ctx, q, m.Name, m.Options, secret.NewText(text), pgtype.Timestamptz{})
		}
		check, err = s.putToCheck(ctx, q, next, secret.NewText(text))
		return err
	})
	if err != nil {
		return fleet.ContainerManager{}, "", err
	}
	return m, check, nil
}

// withKept gives options with what is given as it is shown as it is stored.
func withKept(given, stored map[string]any) map[string]any {
	out, visible := make(map[string]any, len(given)), shown(stored)
	for name, value := range given {
		if was, there := visible[name]; there && reflect.DeepEqual(value, was) {
			value = stored[name]
		}
		out[name] = value
	}
	return out
}

// putToCheck puts new options beside those in force, and names the attempt.
func (s *Store) putToCheck(ctx context.Context, q querier, m fleet.ContainerManager, options secret.Text) (check string, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	name := m.Name + nextSuffix
	sealed, key, err := s.db.seal(options, secret.Row(s.tenant, "container_manager", name))
	if err != nil {
		return "", err
	}
	_, err = q.Exec(ctx, insertContainerManagerSQL, s.tenant, name, string(m.Type), shown(m.Options), sealed, key, id.String())
	return id.String(), err
}

// replaceChecked puts options in force that putToCheck has put beside them; pgx.ErrNoRows
// when they are not there any more.
func (s *Store) replaceChecked(ctx context.Context, q querier, name, check string) error {
	next := name + nextSuffix
	var visible map[string]any
	var sealed []byte
	var put pgtype.Timestamptz
	if err := q.QueryRow(ctx, nextContainerManagerSQL, s.tenant, next, check).Scan(&visible, &sealed, &put); err != nil {
		return err
	}
	options, err := s.db.sealer.Open(sealed, secret.Row(s.tenant, "container_manager", next))
	if err != nil {
		return err
	}
	if err := s.replaceOptions(ctx, q, name, visible, options, put); err != nil {
		return err
	}
	_, err = q.Exec(ctx, refusedContainerManagerSQL, s.tenant, name, check)
	return err
}

// replaceOptions puts options in force. put is when they were put, NULL for just now.
func (s *Store) replaceOptions(ctx context.Context, q querier, name string, visible map[string]any, options secret.Text, put pgtype.Timestamptz) error {
	sealed, key, err := s.db.seal(options, secret.Row(s.tenant, "container_manager", name))
	if err != nil {
		return err
	}
	tag, err := q.Exec(ctx, replaceContainerManagerSQL, s.tenant, name, visible, sealed, key, put)
	if err == nil && tag.RowsAffected() == 0 {
		return pgx.ErrNoRows
	}
	return err
}

// lockLeft keeps the rollouts as they are whose cordons a container manager of this name
// has left when it was deleted by force.
func (s *Store) lockLeft(ctx context.Context, q querier, name string) (rollouts []string, err error) {
	if rollouts, err = collect(ctx, q, pgx.RowTo[string], cordonsLeftSQL, s.tenant, name); err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(slices.Values(rollouts)) {
		if _, _, err := s.lockTurn(ctx, q, id); err != nil {
			return nil, err
		}
	}
	return rollouts, nil
}
