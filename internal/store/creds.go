package store

import (
	"context"

	"commissaire/internal/secret"
)

const (
	credsSQL = `SELECT remote_user, sealed FROM host_creds WHERE tenant = $1 AND address = $2`

	insertCredsSQL = `INSERT INTO host_creds (tenant, address, remote_user, sealed, key_id) VALUES ($1, $2, $3, $4, $5)`

	updateCredsSQL = `UPDATE host_creds SET remote_user = $3, sealed = $4, key_id = $5, changed = now() WHERE tenant = $1 AND address = $2`
)

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
	if err := q.QueryRow(ctx, credsSQL, kept, s.tenant, address).Scan(&c.RemoteUser, &sealed); err != nil {
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
	sealed, id, err := s.db.seal(c.PrivateKey, credsRow(s.tenant, address))
	if err != nil {
		return err
	}
	tag, err := q.Exec(ctx, sql, s.tenant, address, c.RemoteUser, sealed, id)
	if err == nil && tag.RowsAffected() == 0 {
		return notFound("host", address)
	}
	return err
}

// credsRow names the place of sealed credentials; what is sealed for one host
// does not open for another.
func credsRow(tenant, address string) string { return secret.Row(tenant, "host_creds", address) }
