package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"commissaire/internal/secret"
)

// sealedTables are all tables with secrets, by name, and the column that with the
// tenant is the key of each. A secret is bound to the three (see secret.Row).
var sealedTables = map[string]string{"host_creds": "address", "container_manager": "name", "join_token": "id"}

const (
	keysInUseSQL = `SELECT key_id FROM host_creds UNION SELECT key_id FROM container_manager
		UNION SELECT key_id FROM join_token WHERE key_id IS NOT NULL ORDER BY key_id`

	// These two take a table and its key by Sprintf.
	otherKeySQL = `SELECT tenant, %[2]s, sealed FROM %[1]s WHERE key_id <> $1 ORDER BY tenant, %[2]s LIMIT $2`
	resealSQL   = `UPDATE %[1]s SET sealed = $4, key_id = $5 WHERE tenant = $1 AND %[2]s = $2 AND sealed = $3`
)

const resealBatch = 200

// seal seals a secret for its place, and says by which key.
func (db *DB) seal(plain secret.Text, row string) (sealed []byte, key int64, err error) {
	if sealed, err = db.sealer.Seal(plain, row); err != nil {
		return nil, 0, err
	}
	id, err := secret.KeyID(sealed)
	return sealed, int64(id), err
}

// KeysInUse lists the ids of the keys that stored secrets need, of all tenants.
// A key that is not in it may be dropped (see secret.DropKey).
func (db *DB) KeysInUse(ctx context.Context) (ids []uint32, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		ids, err = collect(ctx, q, pgx.RowTo[uint32], keysInUseSQL)
		return err
	})
	return ids, err
}

// MissingKeys lists the ids of the keys that stored secrets need and that this process
// does not have: it cannot open those secrets.
func (db *DB) MissingKeys(ctx context.Context) ([]uint32, error) {
	needed, err := db.KeysInUse(ctx)
	if err != nil {
		return nil, err
	}
	return db.lacks(needed), nil
}

// lacks gives those of the keys that this process does not have.
func (db *DB) lacks(needed []uint32) []uint32 {
	have := db.sealer.KeyIDs()
	return slices.DeleteFunc(needed, func(id uint32) bool { return slices.Contains(have, id) })
}

// Reseal seals every stored secret of all tenants with the key in use, and says
// how many it changed. It may be cut off and run again.
func (db *DB) Reseal(ctx context.Context) (changed int, err error) {
	for table := range sealedTables {
		for {
			n, err := db.resealSome(ctx, table)
			changed += n
			if err != nil {
				return changed, err
			}
			if n == 0 {
				break
			}
		}
	}
	return changed, nil
}

func (db *DB) resealSome(ctx context.Context, table string) (changed int, err error) {
	type row struct {
		Tenant, Key string
		Sealed      []byte
	}
	key := sealedTables[table]
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		rows, err := collect(ctx, q, pgx.RowToStructByPos[row], fmt.Sprintf(otherKeySQL, table, key), int64(db.sealer.PrimaryKeyID()), resealBatch)
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		for _, r := range rows {
			sealed, _, err := db.sealer.Reseal(r.Sealed, secret.Row(r.Tenant, table, r.Key))
			if err != nil {
				return err
			}
			batch.Queue(fmt.Sprintf(resealSQL, table, key), r.Tenant, r.Key, r.Sealed, sealed, int64(db.sealer.PrimaryKeyID())).
				Exec(func(tag pgconn.CommandTag) error { changed += int(tag.RowsAffected()); return nil })
		}
		return q.SendBatch(ctx, batch).Close()
	})
	return changed, err
}
