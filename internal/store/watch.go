package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// HostToCheck is a host as a check found it on record. What the check finds is true of
// that host only, with these credentials, and not of one that was changed since.
type HostToCheck struct {
	Address string
	Port    int
	HostKey string // pinned, in authorized_keys form
	BootID  string // as it is known
	Facts   bool   // they are old, so they are to be read again
	Creds   secret.HostCreds
	Bastion *Bastion  // nil for none
	Read    time.Time // when it was read here, by the clock of Postgres

	through                  string // address of its bastion
	created, pinned, changed time.Time
}

const (
	watchedSQL = `SELECT tenant, name FROM cluster UNION ALL SELECT name, '' FROM tenant ORDER BY 1, 2`

	// What is bootstrapped now, or was never, is nobody's concern here. Neither is what an
	// operation is at work on: it looks itself.
	toWatch = ` FROM host h WHERE h.tenant = $1 AND ($2 <> '' AND h.cluster = $2 OR $2 = '' AND h.cluster IS NULL)
			AND h.bootstrapped IS NOT NULL AND h.host_key IS NOT NULL AND h.state IN ('active', 'disassociated', 'failed')`

	watchPagesSQL = `SELECT address FROM (SELECT h.address, row_number() OVER (ORDER BY h.address) AS n` + toWatch + `) p WHERE n % $3 = 0 ORDER BY address`

	countToWatchSQL = `SELECT count(*)` + toWatch

	// How old facts may be differs between hosts, half of the interval to all of it, so that
	// hosts that came together are not read together for ever.
	hostsToCheckSQL = `SELECT h.address, h.port, h.host_key, h.boot_id,
			coalesce(h.watch_facts, h.bootstrapped) < now() - make_interval(secs => $5 * (0.5 + (hashtext(h.address) & 1023) / 2048.0)),
			c.remote_user, c.sealed, h.created, h.host_key_pinned, c.changed, now(), ` + bastionOf + `
		FROM (SELECT h.*` + toWatch + ` AND h.address > $3 AND ($4 = '' OR h.address <= $4)) h
			JOIN host_creds c ON c.tenant = h.tenant AND c.address = h.address
		WHERE NOT EXISTS (SELECT FROM host_run r WHERE r.tenant = h.tenant AND r.address = h.address AND r.state IN ('staging', 'running') AND r.holds)
		ORDER BY h.address`

	watchStatesSQL = `SELECT watch_state, count(*), extract(epoch FROM clock_timestamp() - max(watched))::float8 FROM host GROUP BY watch_state`
)

// Watched lists what there is to watch, over all tenants.
func (db *DB) Watched(ctx context.Context) (all []fleet.Watched, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		all, err = collect(ctx, q, pgx.RowToStructByPos[fleet.Watched], watchedSQL, kept)
		return err
	})
	return all, err
}

// WatchStanding says how watching stands, over all tenants.
type WatchStanding struct {
	Found  map[fleet.WatchState]int // hosts by what their last check found
	Newest *time.Duration           // since the newest check, nil when there was none
}

// WatchStanding reads it.
func (db *DB) WatchStanding(ctx context.Context) (w WatchStanding, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		w = WatchStanding{Found: map[fleet.WatchState]int{}}
		rows, err := q.Query(ctx, watchStatesSQL)
		if err != nil {
			return err
		}
		var state fleet.WatchState
		var n int
		var age *float64
		_, err = pgx.ForEachRow(rows, []any{&state, &n, &age}, func() error {
			w.Found[state] = n
			if age != nil {
				if newest := seconds(*age); w.Newest == nil || newest < *w.Newest {
					w.Newest = &newest
				}
			}
			return nil
		})
		return err
	})
	return w, err
}

// WatchPages cuts the hosts of a cluster (of none for "") that are watched into pages of
// so many hosts, or of more when these would be more than most pages. It gives the last
// address of each page but the last one.
func (s *Store) WatchPages(ctx context.Context, cluster string, hosts, most int) (bounds []string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		var n int
		if err := q.QueryRow(ctx, countToWatchSQL, s.tenant, cluster).Scan(&n); err != nil {
			return err
		}
		hosts = max(hosts, (n+most-1)/most)
		bounds, err = collect(ctx, q, pgx.RowTo[string], watchPagesSQL, s.tenant, cluster, hosts)
		if n > 0 && n%hosts == 0 && len(bounds) > 0 {
			bounds = bounds[:len(bounds)-1] // its page is the last one
		}
		return err
	})
	return bounds, err
}

// HostsToCheck gives the hosts of a cluster (of none for "") behind one address up to
// another ("" for no bound) that are to be checked now. facts is how old their facts may
// be. Those whose credentials cannot be opened are left out and counted: that is no fault
// of theirs.
func (s *Store) HostsToCheck(ctx context.Context, cluster, after, upTo string, facts time.Duration) (hosts []HostToCheck, sealed int, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		rows, err := q.Query(ctx, hostsToCheckSQL, s.tenant, cluster, after, upTo, facts.Seconds())
		if err != nil {
			return err
		}
		var h HostToCheck
		var box []byte
		bastions := map[string]bool{}
		into := []any{&h.Address, &h.Port, &h.HostKey, &h.BootID, &h.Facts, &h.Creds.RemoteUser, &box, &h.created, &h.pinned, &h.changed, &h.Read, &h.through}
		_, err = pgx.ForEachRow(rows, into, func() error {
			key, err := s.db.sealer.Open(box, credsRow(s.tenant, h.Address))
			if err != nil {
				sealed++
				return nil
			}
			h.Creds.PrivateKey = key
			if h.through != "" {
				bastions[h.through] = true
			}
			hosts = append(hosts, h)
			return nil
		})
		if err != nil {
			return err
		}
		logins, err := s.bastions(ctx, q, slices.Collect(maps.Keys(bastions)))
		if err != nil {
			return err
		}
		for i := range hosts {
			hosts[i].Bastion = logins[hosts[i].through]
		}
		all := len(hosts)
		hosts = slices.DeleteFunc(hosts, func(h HostToCheck) bool { return h.through != "" && h.Bastion == nil })
		sealed += all - len(hosts)
		return nil
	})
	return hosts, sealed, err
}
