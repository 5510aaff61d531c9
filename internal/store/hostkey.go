package store

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/fleet"
)

const (
	// Another key is most often that of another machine, on which nothing was done yet. So
	// checks must not give it the state that the one before it had, and why a host failed
	// that had another key is told no more: only a bootstrap helps now.
	acceptKeySQL = `UPDATE host SET host_key = $3, host_key_print = $4, host_key_pinned = now(),
			watch_prior = CASE WHEN host_key = $3 THEN watch_prior ELSE '' END,
			reason = CASE WHEN host_key = $3 OR watch_prior = '' AND (host_key IS NULL OR state <> 'failed') THEN reason ELSE $5 END
		WHERE tenant = $1 AND address = $2 RETURNING host_key, host_key_print, host_key_pinned`

	pinFirstKeySQL = `UPDATE host SET host_key = coalesce(host_key, $3), host_key_print = coalesce(host_key_print, $4),
			host_key_pinned = coalesce(host_key_pinned, now())
		WHERE tenant = $1 AND address = $2 AND created <= (SELECT created FROM operation WHERE id = $5 AND tenant = $1)
		RETURNING host_key`
)

const otherKeyReason = "another host key was accepted since the host failed; bootstrap it"

// AcceptHostKey pins the key that a host must present, in place of an older
// one: the decision of an operator. A host that was lost to checks stays failed
// with another key until a bootstrap has looked at it.
func (s *Store) AcceptHostKey(ctx context.Context, address, authorizedKey string) (k fleet.HostKey, err error) {
	text, print, err := parseHostKey(authorizedKey)
	if err != nil {
		return k, err
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		k, err = s.pin(ctx, q, address, text, print)
		return err
	})
	return k, err
}

func (s *Store) pin(ctx context.Context, q querier, address, text, print string) (k fleet.HostKey, err error) {
	var pinned pgtype.Timestamptz
	err = q.QueryRow(ctx, acceptKeySQL, s.tenant, address, text, print, otherKeyReason).Scan(&k.Key, &k.Fingerprint, &pinned)
	k.Pinned = utc(pinned)
	return k, orNotFound(err, "host", address)
}

// PinFirstHostKey pins the key of the first contact, made by operation id, and
// gives the key that is pinned: another one when somebody was faster. It is a
// Conflict when the operation has ended and NotFound when the host was added
// after it, so that a worker that was thought dead cannot pin the key of a
// machine that is gone. Repeating it is safe, since it never replaces one.
func (s *Store) PinFirstHostKey(ctx context.Context, id, address, authorizedKey string) (pinned string, err error) {
	text, print, err := parseHostKey(authorizedKey)
	if err != nil {
		return "", err
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.lockUnfinished(ctx, q, id); err != nil {
			return err
		}
		err := q.QueryRow(ctx, pinFirstKeySQL, s.tenant, address, text, print, id).Scan(&pinned)
		return orNotFound(err, "host", address)
	})
	return pinned, err
}

// parseHostKey gives a public key without its comment, so that equal keys are
// equal texts, and its fingerprint.
func parseHostKey(authorizedKey string) (text, print string, err error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(authorizedKey))
	if err != nil {
		return "", "", fleet.InvalidField("host_key", "is no public key in authorized_keys form, like \"ssh-ed25519 AAAA…\"")
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), ssh.FingerprintSHA256(key), nil
}
