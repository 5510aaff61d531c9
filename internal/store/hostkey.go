package store

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/fleet"
)

const (
	acceptKeySQL = `UPDATE host SET host_key = $3, host_key_print = $4, host_key_pinned = now()
		WHERE tenant = $1 AND address = $2 RETURNING host_key, host_key_print, host_key_pinned`

	pinFirstKeySQL = `UPDATE host SET host_key = coalesce(host_key, $3), host_key_print = coalesce(host_key_print, $4),
			host_key_pinned = coalesce(host_key_pinned, now())
		WHERE tenant = $1 AND address = $2 RETURNING host_key, host_key_print, host_key_pinned`
)

// AcceptHostKey pins the key that a host must present, in place of an older
// one: the decision of an operator.
func (s *Store) AcceptHostKey(ctx context.Context, address, authorizedKey string) (fleet.HostKey, error) {
	return s.pin(ctx, acceptKeySQL, address, authorizedKey)
}

// PinFirstHostKey pins the key of the first contact, and gives the key that is
// pinned: another one when somebody was faster. Repeating it is safe, since it
// never replaces one.
func (s *Store) PinFirstHostKey(ctx context.Context, address, authorizedKey string) (pinned string, err error) {
	k, err := s.pin(ctx, pinFirstKeySQL, address, authorizedKey)
	return k.Key, err
}

func (s *Store) pin(ctx context.Context, sql, address, authorizedKey string) (k fleet.HostKey, err error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(authorizedKey))
	if err != nil {
		return k, fleet.InvalidField("host_key", "is no public key in authorized_keys form, like \"ssh-ed25519 AAAA…\"")
	}
	// Without comment, so that equal keys are equal texts.
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		var pinned pgtype.Timestamptz
		err := q.QueryRow(ctx, sql, s.tenant, address, text, ssh.FingerprintSHA256(key)).Scan(&k.Key, &k.Fingerprint, &pinned)
		k.Pinned = utc(pinned)
		return orNotFound(err, "host", address)
	})
	return k, err
}
