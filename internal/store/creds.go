package store

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"commissaire/internal/secret"
)

const (
	credsSQL = `SELECT remote_user, sealed FROM host_creds WHERE tenant = $1 AND address = $2`

	insertCredsSQL = `INSERT INTO host_creds (tenant, address, remote_user, sealed, key_id) VALUES ($1, $2, $3, $4, $5)`

	updateCredsSQL = `UPDATE host_creds SET remote_user = $3, sealed = $4, key_id = $5, changed = now() WHERE tenant = $1 AND address = $2`

	keysInUseSQL = `SELECT DISTINCT key_id FROM host_creds ORDER BY key_id`

	otherKeySQL = `SELECT tenant, address, sealed FROM host_creds WHERE key_id <> $1 LIMIT $2`

	resealSQL = `UPDATE host_creds SET sealed = $4, key_id = $5 WHERE tenant = $1 AND address = $2 AND sealed = $3`
)

const resealBatch = 200

// HostCreds gives what logs in to a host.
func (s *Store) HostCreds(ctx context.Context, address string) (c secret.HostCreds, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		c, err = s.creds(ctx, q, address)
		return err
	})
	return c, err
}

func (s *Store) creds(ctx context.Context, q querier, address string) (c secret.HostCreds, err error) {
	var sealed []byte
	if err := q.QueryRow(ctx, credsSQL, s.tenant, address).Scan(&c.RemoteUser, &sealed); err != nil {
		return c, orNotFound(err, "host", address)
	}
	c.PrivateKey, err = s.db.sealer.Open(sealed, credsRow(s.tenant, address))
	return c, err
}

// PutHostCreds replaces what logs in to an existing host.
func (s *Store) PutHostCreds(ctx context.Context, address string, c secret.HostCreds) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		return s.writeCreds(ctx, q, updateCredsSQL, address, c)
	})
}

func (s *Store) writeCreds(ctx context.Context, q querier, sql, address string, c secret.HostCreds) error {
	sealed, err := s.db.sealer.Seal(c.PrivateKey, credsRow(s.tenant, address))
	if err != nil {
		return err
	}
	id, err := secret.KeyID(sealed)
	if err != nil {
		return err
	}
	tag, err := q.Exec(ctx, sql, s.tenant, address, c.RemoteUser, sealed, int64(id))
	if err == nil && tag.RowsAffected() == 0 {
		return notFound("host", address)
	}
	return err
}

// credsRow names the place of sealed credentials; what is sealed for one host
// does not open for another.
func credsRow(tenant, address string) string { return secret.Row(tenant, "host_creds", address) }

// KeysInUse lists the ids of the keys that stored secrets need, of all tenants.
// A key that is not in it may be dropped (see secret.DropKey).
func (db *DB) KeysInUse(ctx context.Context) (ids []uint32, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		ids, err = collect(ctx, q, pgx.RowTo[uint32], keysInUseSQL)
		return err
	})
	return ids, err
}

// Reseal seals every stored secret of all tenants with the key in use, and says
// how many it changed. It may be cut off and run again.
func (db *DB) Reseal(ctx context.Context) (changed int, err error) {
	for {
		n, err := db.resealSome(ctx)
		changed += n
		if err != nil || n == 0 {
			return changed, err
		}
	}
}

func (db *DB) resealSome(ctx context.Context) (changed int, err error) {
	type row struct {
		Tenant, Address string
		Sealed          []byte
	}
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		rows, err := collect(ctx, q, pgx.RowToStructByPos[row], otherKeySQL, int64(db.sealer.PrimaryKeyID()), resealBatch)
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		for _, r := range rows {
			sealed, _, err := db.sealer.Reseal(r.Sealed, credsRow(r.Tenant, r.Address))
			if err != nil {
				return err
			}
			batch.Queue(resealSQL, r.Tenant, r.Address, r.Sealed, sealed, int64(db.sealer.PrimaryKeyID())).
				Exec(func(tag pgconn.CommandTag) error { changed += int(tag.RowsAffected()); return nil })
		}
		return q.SendBatch(ctx, batch).Close()
	})
	return changed, err
}
