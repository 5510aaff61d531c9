package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

const (
	networksSQL      = `SELECT name FROM network WHERE tenant = $1 ORDER BY name`
	networkSQL       = `SELECT name, type, options FROM network WHERE tenant = $1 AND name = $2`
	deleteNetworkSQL = `DELETE FROM network WHERE tenant = $1 AND name = $2`
	insertNetworkSQL = `INSERT INTO network (tenant, name, type, options) VALUES ($1, $2, $3, $4)
		ON CONFLICT ON CONSTRAINT network_pk DO NOTHING RETURNING name, type, options`
	sameNetworkSQL = `SELECT name, type, options, type = $3 AND options = $4 FROM network WHERE tenant = $1 AND name = $2`
)

// Networks lists the names, sorted.
func (s *Store) Networks(ctx context.Context) (names []string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		names, err = collect(ctx, q, pgx.RowTo[string], networksSQL, s.tenant)
		return err
	})
	return names, err
}

// Network gives one network.
func (s *Store) Network(ctx context.Context, name string) (n fleet.Network, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, networkSQL, s.tenant, name).Scan(&n.Name, &n.Type, &n.Options)
		return orNotFound(err, "network", name)
	})
	return n, err
}

// PutNetwork creates a network. Networks never change: the same one again is
// fine, a different one of that name is a Conflict.
func (s *Store) PutNetwork(ctx context.Context, want fleet.Network) (n fleet.Network, err error) {
	if want.Options == nil {
		want.Options = map[string]any{}
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		args := []any{s.tenant, want.Name, string(want.Type), want.Options}
		err := q.QueryRow(ctx, insertNetworkSQL, args...).Scan(&n.Name, &n.Type, &n.Options)
		if !isNoRows(err) {
			return err
		}
		var same bool
		err = q.QueryRow(ctx, sameNetworkSQL, args...).Scan(&n.Name, &n.Type, &n.Options, &same)
		switch {
		case isNoRows(err):
			return errAgain // deleted in between
		case err != nil:
			return err
		case !same:
			return fleet.Errorf(fleet.Conflict, "network %q exists with another type or other options; delete it first to change it", want.Name)
		}
		return nil
	})
	return n, err
}

// DeleteNetwork deletes a network, also one that clusters name.
func (s *Store) DeleteNetwork(ctx context.Context, name string) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, deleteNetworkSQL, s.tenant, name)
		if err == nil && tag.RowsAffected() == 0 {
			return notFound("network", name)
		}
		return err
	})
}
