package store

import (
	"context"
	"crypto/subtle"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// tokenColumns are what scanToken reads.
const tokenColumns = `id, name, owner, role, operations, created, expires, revoked, last_used`

const (
	createTokenSQL = `INSERT INTO api_token (tenant, id, digest, name, owner, role, operations, expires)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING ` + tokenColumns

	tokensSQL = `SELECT ` + tokenColumns + ` FROM api_token WHERE tenant = $1 AND ($2 = '' OR owner = $2) ORDER BY created DESC, id DESC`

	tokenSQL = `SELECT ` + tokenColumns + ` FROM api_token WHERE tenant = $1 AND id = $2`

	revokeTokenSQL = `UPDATE api_token SET revoked = coalesce(revoked, now()) WHERE tenant = $1 AND id = $2`

	goodTokenSQL = `SELECT ` + tokenColumns + `, digest, last_used IS NULL OR last_used < date_trunc('minute', now())
		FROM api_token WHERE tenant = $1 AND id = $2 AND revoked IS NULL AND expires > now()`

	// Of several at once one writes; the others find that it did.
	useTokenSQL = `UPDATE api_token SET last_used = date_trunc('minute', now())
		WHERE tenant = $1 AND id = $2 AND (last_used IS NULL OR last_used < date_trunc('minute', now())) RETURNING last_used`
)

// CreateToken puts an API token on record and gives it as stored. digest is the
// SHA-256 of its secret, which is not stored. Created is the database's.
func (s *Store) CreateToken(ctx context.Context, t fleet.Token, digest [32]byte) (stored fleet.Token, err error) {
	if t.Operations == nil {
		t.Operations = []string{}
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		stored, err = one(ctx, q, scanToken, createTokenSQL, s.tenant, t.ID, digest[:], t.Name, t.Owner, string(t.Role), t.Operations, t.Expires)
		return err
	})
	return stored, err
}

// Tokens lists the API tokens of an owner, or all for "", newest first, also those
// that are no good any more.
func (s *Store) Tokens(ctx context.Context, owner string) (tokens []fleet.Token, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		tokens, err = collect(ctx, q, scanToken, tokensSQL, s.tenant, owner)
		return err
	})
	return tokens, err
}

// Token gives one API token, also one that is no good any more.
func (s *Store) Token(ctx context.Context, id string) (t fleet.Token, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		t, err = one(ctx, q, scanToken, tokenSQL, s.tenant, id)
		return orNotFound(err, "token", id)
	})
	return t, err
}

// RevokeToken makes an API token no good from now on. Again is fine.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	return s.revoke(ctx, revokeTokenSQL, "token", id)
}

func (s *Store) revoke(ctx context.Context, sql, noun, id string) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, sql, s.tenant, id)
		if err == nil && tag.RowsAffected() == 0 {
			return notFound(noun, id)
		}
		return err
	})
}

// VerifyToken gives the API token with this id, and notes in which minute it was last
// used. It is NotFound when digest is not its secret's, when it has expired and when
// it is revoked. The clock is the database's.
func (s *Store) VerifyToken(ctx context.Context, id string, digest [32]byte) (t fleet.Token, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		var stored []byte
		var used pgtype.Timestamptz
		var note bool
		t, err = one(ctx, q, func(row pgx.CollectableRow) (fleet.Token, error) { return scanTokenAnd(row, &stored, &note) }, goodTokenSQL, kept, s.tenant, id)
		if err == nil && subtle.ConstantTimeCompare(stored, digest[:]) == 0 {
			err = pgx.ErrNoRows // the same answer, so that nobody learns which ids there are
		}
		if err != nil {
			return orNotFound(err, "token", id)
		}
		if !note {
			return nil
		}
		err := q.QueryRow(ctx, useTokenSQL, s.tenant, id).Scan(&used)
		if isNoRows(err) {
			return nil // somebody else noted it
		}
		t.LastUsed = utc(used)
		return err
	})
	if err != nil {
		return fleet.Token{}, err
	}
	return t, nil
}

func scanToken(row pgx.CollectableRow) (fleet.Token, error) { return scanTokenAnd(row) }

// scanTokenAnd reads columns behind tokenColumns, too.
func scanTokenAnd(row pgx.CollectableRow, more ...any) (fleet.Token, error) {
	var t fleet.Token
	var created, expires, revoked, used pgtype.Timestamptz
	err := row.Scan(append([]any{&t.ID, &t.Name, &t.Owner, &t.Role, &t.Operations, &created, &expires, &revoked, &used}, more...)...)
	t.Created, t.Expires, t.Revoked, t.LastUsed = utc(created), utc(expires), utc(revoked), utc(used)
	return t, err
}
