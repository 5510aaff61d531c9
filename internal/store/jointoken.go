package store

import (
	"context"
	"crypto/subtle"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// HostJoin is a host that adds itself with a join token.
type HostJoin struct {
	TokenID     string
	Address     string
	Port        int    // 0 means 22
	HostKey     string // authorized_keys form
	Cluster     string // "" for what the token says, which else it must be
	RemoteUser  string // the same
	RequestedBy string
	RequestID   string
}

// joinTokenColumns are what scanJoinToken reads.
const joinTokenColumns = `id, cluster, remote_user, public_key, created_by, created, expires, revoked, used, used_by`

const (
	createJoinTokenSQL = `INSERT INTO join_token (tenant, id, digest, cluster, remote_user, public_key, sealed, key_id, created_by, expires)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING ` + joinTokenColumns

	joinTokensSQL = `SELECT ` + joinTokenColumns + ` FROM join_token WHERE tenant = $1 ORDER BY created DESC, id DESC`

	joinTokenSQL = `SELECT ` + joinTokenColumns + ` FROM join_token WHERE tenant = $1 AND id = $2`

	forgetExpiredSQL = `UPDATE join_token SET sealed = NULL, key_id = NULL WHERE tenant = $1 AND expires <= now() AND sealed IS NOT NULL`

	revokeJoinTokenSQL = `UPDATE join_token SET revoked = coalesce(revoked, now()), sealed = NULL, key_id = NULL WHERE tenant = $1 AND id = $2`

	goodJoinTokenSQL = `SELECT ` + joinTokenColumns + `, digest FROM join_token
		WHERE tenant = $1 AND id = $2 AND revoked IS NULL AND expires > now()`

	// Expired is as the clock says now: the transaction may have waited for another one.
	lockJoinTokenSQL = `SELECT ` + joinTokenColumns + `, sealed, used_host_key, expires <= clock_timestamp() FROM join_token
		WHERE tenant = $1 AND id = $2 FOR NO KEY UPDATE`

	// The key moves to the credentials of the host. now() is the host's created, too.
	useJoinTokenSQL = `UPDATE join_token SET used = now(), used_by = $3, used_host_key = $4, sealed = NULL, key_id = NULL WHERE tenant = $1 AND id = $2`
)

// CreateJoinToken puts a join token on record and gives it as stored. digest is the
// SHA-256 of its secret, which is not stored; private is the key that logs in to the
// host and stays sealed. Those of tokens that have expired unused are forgotten on the
// way. A cluster that does not exist is a Conflict.
func (s *Store) CreateJoinToken(ctx context.Context, t fleet.JoinToken, digest [32]byte, private secret.Text) (stored fleet.JoinToken, err error) {
	sealed, key, err := s.db.seal(private, joinTokenRow(s.tenant, t.ID))
	if err != nil {
		return stored, err
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if t.Cluster != "" {
			if err := s.clusterExists(ctx, q, t.Cluster); err != nil {
				return err
			}
		}
		if _, err := q.Exec(ctx, forgetExpiredSQL, s.tenant); err != nil {
			return err
		}
		stored, err = one(ctx, q, scanJoinToken, createJoinTokenSQL, s.tenant, t.ID, digest[:], t.Cluster, t.RemoteUser, t.PublicKey, sealed, key, t.CreatedBy, t.Expires)
		return err
	})
	return stored, err
}

// JoinTokens lists the join tokens, newest first, also those that are no good any more.
func (s *Store) JoinTokens(ctx context.Context) (tokens []fleet.JoinToken, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		tokens, err = collect(ctx, q, scanJoinToken, joinTokensSQL, s.tenant)
		return err
	})
	return tokens, err
}

// JoinToken gives one join token, also one that is no good any more.
func (s *Store) JoinToken(ctx context.Context, id string) (t fleet.JoinToken, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		t, err = one(ctx, q, scanJoinToken, joinTokenSQL, s.tenant, id)
		return orNotFound(err, "join token", id)
	})
	return t, err
}

// RevokeJoinToken makes a join token no good from now on, and forgets its private
// key. Again is fine.
func (s *Store) RevokeJoinToken(ctx context.Context, id string) error {
	return s.revoke(ctx, revokeJoinTokenSQL, "join token", id)
}

// VerifyJoinToken gives the join token with this id, also when it was used: whether
// it serves once more is for JoinHost. It is NotFound when digest is not its secret's,
// when it has expired and when it is revoked. The clock is the database's.
func (s *Store) VerifyJoinToken(ctx context.Context, id string, digest [32]byte) (t fleet.JoinToken, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		var stored []byte
		t, err = one(ctx, q, func(row pgx.CollectableRow) (fleet.JoinToken, error) { return scanJoinTokenAnd(row, &stored) }, goodJoinTokenSQL, s.tenant, id)
		if err == nil && subtle.ConstantTimeCompare(stored, digest[:]) == 0 {
			err = pgx.ErrNoRows // the same answer, so that nobody learns which ids there are
		}
		return orNotFound(err, "join token", id)
	})
	if err != nil {
		return fleet.JoinToken{}, err
	}
	return t, nil
}

// JoinHost registers a host by a join token, which is used then: as PutHost does, with
// the key, the user and the cluster of the token, and with its host key pinned. The
// same host may come again with the same host key, until the token expires: it is
// given as stored, and the operation is nil. Every other use of a token that was used,
// and one that has expired, is revoked or does not exist, is Forbidden. A token whose
// use is refused otherwise (Conflict, for an address that is registered already) can
// be used later.
func (s *Store) JoinHost(ctx context.Context, j HostJoin) (h fleet.Host, op *fleet.Operation, err error) {
	key, print, err := parseHostKey(j.HostKey)
	if err != nil {
		return h, nil, err
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		op = nil
		var sealed []byte
		var usedKey string
		var expired bool
		t, err := one(ctx, q, func(row pgx.CollectableRow) (fleet.JoinToken, error) {
			return scanJoinTokenAnd(row, &sealed, &usedKey, &expired)
		}, lockJoinTokenSQL, s.tenant, j.TokenID)
		switch {
		case isNoRows(err):
			return fleet.Errorf(fleet.Forbidden, "the join token does not exist")
		case err != nil:
			return err
		case expired:
			return fleet.Errorf(fleet.Forbidden, "the join token has expired; make another one")
		case !t.Revoked.IsZero():
			return fleet.Errorf(fleet.Forbidden, "the join token is revoked; make another one")
		}
		if err := fits(t, j); err != nil {
			return err
		}
		if !t.Used.IsZero() {
			h, err = s.joinedBy(ctx, q, t, j.Address, usedKey == key)
			return err
		}
		private, err := s.db.sealer.Open(sealed, joinTokenRow(s.tenant, t.ID))
		if err != nil {
			return err
		}
		h, op, err = s.putHost(ctx, q, HostPut{
			Address: j.Address, Port: j.Port, Cluster: t.Cluster, HostKey: key, RequestedBy: j.RequestedBy, RequestID: j.RequestID,
			Creds: secret.HostCreds{RemoteUser: t.RemoteUser, PrivateKey: private},
		}, print)
		if err != nil {
			return err
		}
		_, err = q.Exec(ctx, useJoinTokenSQL, s.tenant, t.ID, j.Address, key)
		return err
	})
	if err != nil {
		return fleet.Host{}, nil, err
	}
	return h, op, nil
}

// fits says whether a host asks for what its token is for.
func fits(t fleet.JoinToken, j HostJoin) error {
	var field string
	switch {
	case j.Cluster != "" && j.Cluster != t.Cluster:
		field = "cluster"
	case j.RemoteUser != "" && j.RemoteUser != t.RemoteUser:
		field = "remote_user"
	default:
		return nil
	}
	e := fleet.Errorf(fleet.Forbidden, "the join token is for another %s; leave it out, or make another token", field)
	e.Fields = []fleet.FieldError{{Field: field, Detail: "is not that of the join token"}}
	return e
}

// joinedBy gives the host that a token added, to that host alone. One that was deleted
// and added again since is another one.
func (s *Store) joinedBy(ctx context.Context, q querier, t fleet.JoinToken, address string, sameKey bool) (fleet.Host, error) {
	refused := fleet.Errorf(fleet.Forbidden, "the join token was used by another host; make one for each")
	if address != t.UsedBy || !sameKey {
		return fleet.Host{}, refused
	}
	h, err := s.host(ctx, q, address)
	if fleet.KindOf(err) == fleet.NotFound || err == nil && !h.Created.Equal(t.Used) {
		return fleet.Host{}, refused
	}
	return h, err
}

// joinTokenRow names the place of a sealed private key.
func joinTokenRow(tenant, id string) string { return secret.Row(tenant, "join_token", id) }

func scanJoinToken(row pgx.CollectableRow) (fleet.JoinToken, error) { return scanJoinTokenAnd(row) }

// scanJoinTokenAnd reads columns behind joinTokenColumns, too.
func scanJoinTokenAnd(row pgx.CollectableRow, more ...any) (fleet.JoinToken, error) {
	var t fleet.JoinToken
	var created, expires, revoked, used pgtype.Timestamptz
	err := row.Scan(append([]any{&t.ID, &t.Cluster, &t.RemoteUser, &t.PublicKey, &t.CreatedBy, &created, &expires, &revoked, &used, &t.UsedBy}, more...)...)
	t.Created, t.Expires, t.Revoked, t.Used = utc(created), utc(expires), utc(revoked), utc(used)
	return t, err
}
