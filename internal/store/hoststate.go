package store

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// applyEventSQL is the only statement that changes a host's state. $3 and $4
// are the rows of fleet.HostTransitions for the event, so a host in a state
// that the event does not fit is left alone.
//
// A host that was added again after the operation ($6) was created is another
// machine for it, and left alone too. Only a host that was bootstrapped before
// can recover ($7 is the event, $9 those that say so). Leaving bootstrapping ($8) for a
// prepared state ($10) is when a bootstrap succeeds. That a host broke ($11) which had
// failed ($12) before it was ever bootstrapped is no news: the reason of that stays. One
// that is lost ($13) may have its state back by a check; what it failed of before stands.
const applyEventSQL = `UPDATE host h SET
		state = t.new_state,
		state_since = CASE WHEN h.state = t.new_state THEN h.state_since ELSE now() END,
		reason = $5,
		watch_prior = CASE WHEN $7 = $13 THEN h.state ELSE h.watch_prior END,
		state_operation = coalesce($6::uuid, h.state_operation),
		bootstrapped = CASE WHEN h.state = $8 AND t.new_state = ANY ($10) THEN now() ELSE h.bootstrapped END
	FROM unnest($3::text[], $4::text[]) AS t (old_state, new_state)
	WHERE h.tenant = $1 AND h.address = ANY ($2) AND h.state = t.old_state
		AND ($6::uuid IS NULL OR h.created <= (SELECT created FROM operation WHERE id = $6 AND tenant = $1))
		AND ($7 <> ALL ($9) OR h.bootstrapped IS NOT NULL)
		AND ($7 <> $11 OR h.state <> $12 OR h.bootstrapped IS NOT NULL)
	RETURNING h.address`

// lockHostRowsSQL makes applyEventSQL see the newest state: an UPDATE that
// waited for another would not look at the other rows of its table again.
const lockHostRowsSQL = `SELECT FROM host WHERE tenant = $1 AND address = ANY ($2) ORDER BY address FOR NO KEY UPDATE`

// stateChange is an event that happened to some hosts.
type stateChange struct {
	addresses []string
	event     fleet.HostEvent
	reason    string
	operation string // "" when no operation caused it
}

// applyEvent changes the state of hosts by the transition table, and gives the
// addresses of those that the event fitted.
func (s *Store) applyEvent(ctx context.Context, q querier, c stateChange) ([]string, error) {
	if _, err := q.Exec(ctx, lockHostRowsSQL, s.tenant, c.addresses); err != nil {
		return nil, err
	}
	var from, to []string
	for _, t := range fleet.HostTransitions {
		if t.Event == c.event {
			from, to = append(from, string(t.From)), append(to, string(t.To))
		}
	}
	reason := c.reason
	if c.event == fleet.HostBroke {
		reason = because(reason)
	}
	var operation *string
	if c.operation != "" {
		operation = &c.operation
	}
	again := []string{string(fleet.HostRecovered), string(fleet.HostReturned)}
	prepared := []string{string(fleet.HostDisassociated), string(fleet.HostActive)}
	return collect(ctx, q, pgx.RowTo[string], applyEventSQL, s.tenant, c.addresses, from, to, reason, operation,
		string(c.event), string(fleet.HostBootstrapping), again, prepared, string(fleet.HostBroke), string(fleet.HostFailed), string(fleet.HostLost))
}

// Two changes of one row in one transaction make Postgres look at the foreign
// key again, so the cluster is locked first, to keep the order of locks.
const keepClusterOfSQL = `SELECT FROM cluster c JOIN host h ON h.tenant = c.tenant AND h.cluster = c.name
	WHERE h.tenant = $1 AND h.address = $2 FOR KEY SHARE OF c`

const recordFactsSQL = `UPDATE host SET os = $3, os_version = $4, ostree = $5, cpus = $6, memory = $7, space = $8, boot_id = $9,
		bootc = $11, package_manager = $12, last_check = now()
	WHERE tenant = $1 AND address = $2 AND created <= (SELECT created FROM operation WHERE id = $10 AND tenant = $1)`

// RecordFacts stores what investigation found, and that the host was reached
// now. A host that is being bootstrapped moves on to bootstrapping; any other
// keeps its state, since facts are true of it too. Repeating it is safe: facts
// are overwritten by newer ones.
func (s *Store) RecordFacts(ctx context.Context, id, address string, f fleet.Facts) error {
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.lockUnfinished(ctx, q, id); err != nil {
			return err
		}
		if _, err := q.Exec(ctx, keepClusterOfSQL, s.tenant, address); err != nil {
			return err
		}
		tag, err := q.Exec(ctx, recordFactsSQL, s.tenant, address, f.OS, f.OSVersion, f.OSTree, f.CPUs, f.Memory, f.Space, f.BootID, id,
			f.Bootc, f.PackageManager)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return notFound("host", address)
		}
		_, err = s.applyEvent(ctx, q, stateChange{addresses: []string{address}, event: fleet.HostFactsFound, operation: id})
		return err
	})
}

// storable replaces what no column holds, broken UTF-8 and zero bytes, in a
// reason. Reasons may quote what a host said, and a failure that cannot be
// written down would be lost.
func storable(reason string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(reason, "\uFFFD"), "\x00", "\uFFFD")
}

// because keeps the promise that every failure says why, also when its caller
// does not know.
func because(reason string) string {
	if reason == "" {
		return "it failed and gave no reason; see its last step"
	}
	return reason
}
