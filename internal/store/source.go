package store

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

const (
	// What another source has said goes with it: its labels at once, and its facts with the
	// next check, which reads those of the host.
	setSourceSQL = `UPDATE host SET source = $3,
			source_facts = CASE WHEN source = $3 THEN source_facts ELSE '{}' END,
			labels = CASE WHEN source = $3 THEN labels ELSE labels - ARRAY(SELECT jsonb_object_keys(coalesce(source_facts -> 'labels', '{}'))) END,
			watch_facts = CASE WHEN source = $3 OR source_facts = '{}' THEN watch_facts ELSE 'epoch' END
		WHERE tenant = $1 AND address = $2`

	insertHostRunsOfSourceSQL = `INSERT INTO host_run (operation_id, tenant, address, position)
		SELECT $1, tenant, address, row_number() OVER (ORDER BY address) - 1 FROM host WHERE tenant = $2 AND source = $3`

	hostsOfSourcesSQL = `SELECT source, count(*) FROM host WHERE tenant = $1 AND source <> '' GROUP BY source`

	latestSyncsSQL = `SELECT ` + operationColumns + ` FROM unnest($2::text[]) AS named (source)
			CROSS JOIN LATERAL (SELECT * FROM operation x WHERE x.tenant = $1 AND x.source = named.source AND NOT x.dry_run ORDER BY x.id DESC LIMIT 1) o
			LEFT JOIN rollout p ON p.operation_id = o.id`

	lastGoodSyncsSQL = `SELECT source, extract(epoch FROM clock_timestamp() - at)::float8 FROM (SELECT named.source, coalesce(
			(SELECT finished FROM operation x WHERE x.tenant = $1 AND x.source = named.source AND x.state = 'succeeded' AND NOT x.dry_run ORDER BY x.id DESC LIMIT 1),
			(SELECT created FROM operation x WHERE x.tenant = $1 AND x.source = named.source AND NOT x.dry_run ORDER BY x.id LIMIT 1)) AS at
		FROM unnest($2::text[]) AS named (source)) s WHERE at IS NOT NULL`

	unsyncedSQL = `SELECT address FROM host_run WHERE tenant = $1 AND operation_id = $2 AND state = 'pending'
		ORDER BY position LIMIT $3 FOR NO KEY UPDATE`

	// A host that was added again since is another machine.
	hostsToSyncSQL = `SELECT ` + hostColumns + `, h.source_facts, h.created <= o.created
		FROM host h, operation o WHERE h.tenant = $1 AND h.address = ANY ($3) AND o.id = $2 ORDER BY h.address FOR NO KEY UPDATE OF h`

	// Hosts of the source that the sync has no run of yet.
	hostsOfScheduledSQL = `SELECT ` + hostColumns + `, h.source_facts
		FROM host h, operation o WHERE h.tenant = $1 AND h.source = $3 AND h.address > $4 AND o.id = $2 AND h.created <= o.created
			AND NOT EXISTS (SELECT FROM host_run r WHERE r.operation_id = $2 AND r.address = h.address)
		ORDER BY h.address LIMIT $5`

	takeUpHostsSQL = `INSERT INTO host_run (operation_id, tenant, address, position)
		SELECT $1, $2, address, coalesce((SELECT max(position) FROM host_run WHERE operation_id = $1), -1) + row_number() OVER (ORDER BY address)
		FROM unnest($3::text[]) AS a (address)`

	// A trigger puts the facts of the source above those of the host.
	setSourceFactsSQL = `UPDATE host h SET source_facts = r.source_facts, labels = r.labels
		FROM jsonb_to_recordset($2::jsonb) AS r (address text, source_facts jsonb, labels jsonb) WHERE h.tenant = $1 AND h.address = r.address`

	// A host is at work at no moment that others see, so that a sync waits for nobody.
	endSyncsSQL = `UPDATE host_run r SET state = e.state, reason = e.reason, finished = now(),
			started = CASE WHEN e.state = 'succeeded' THEN now() END, rolling = CASE WHEN e.state = 'succeeded' THEN now() END
		FROM jsonb_to_recordset($3::jsonb) AS e (address text, state text, reason text)
		WHERE r.tenant = $1 AND r.operation_id = $2 AND r.address = e.address`

	insertSyncStepsSQL = `INSERT INTO step (tenant, operation_id, address, name, attempt, state, reason, output_size, stored_to, stored_bytes, finished)
		SELECT $1, $2, address, $4, 1, 'succeeded', reason, octet_length(diff), octet_length(diff), octet_length(diff), now()
		FROM jsonb_to_recordset($3::jsonb) AS e (address text, reason text, diff text)`

	insertDiffsSQL = `INSERT INTO output (step_id, position, data) SELECT s.id, 0, convert_to(e.diff, 'UTF8')
		FROM jsonb_to_recordset($2::jsonb) AS e (address text, diff text) JOIN step s ON s.operation_id = $1 AND s.address = e.address AND s.name = $3
		WHERE e.diff <> ''`

	strangersSQL = `SELECT named.address FROM unnest($2::text[]) AS named (address)
		WHERE NOT EXISTS (SELECT FROM host h WHERE h.tenant = $1 AND h.address = named.address) ORDER BY named.address COLLATE "C"`

	countSyncedSQL = `SELECT count(*) FILTER (WHERE s.output_size > 0), count(*) FILTER (WHERE s.output_size = 0), count(*) FILTER (WHERE s.id IS NULL)
		FROM host_run r LEFT JOIN step s ON s.operation_id = r.operation_id AND s.address = r.address WHERE r.tenant = $1 AND r.operation_id = $2`

	setSyncSQL = `UPDATE operation SET sync = $3 WHERE tenant = $1 AND id = $2 AND finished IS NULL`
)

// syncPage is how many hosts are synced in one transaction.
const syncPage = 500

// PutHostSource says where facts of a host come from besides the host; "" for nowhere.
// What another source has said does not stand above the host's own facts any more, and
// the labels that it has said are gone.
func (s *Store) PutHostSource(ctx context.Context, address, source string) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error { return s.setSource(ctx, q, address, source) })
}

func (s *Store) setSource(ctx context.Context, q querier, address, source string) error {
	tag, err := q.Exec(ctx, setSourceSQL, s.tenant, address, source)
	if err == nil && tag.RowsAffected() == 0 {
		return notFound("host", address)
	}
	return err
}

// SourceUse says how many hosts have each of the sources, and how the last sync of each
// went, dry runs aside; a source that nobody uses, or asked, is in neither.
func (s *Store) SourceUse(ctx context.Context, sources []string) (hosts map[string]int, last map[string]fleet.Operation, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		hosts, last = map[string]int{}, map[string]fleet.Operation{}
		rows, err := q.Query(ctx, hostsOfSourcesSQL, s.tenant)
		if err != nil {
			return err
		}
		var name string
		var n int
		if _, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error { hosts[name] = n; return nil }); err != nil {
			return err
		}
		ops, err := collect(ctx, q, scanOperation, latestSyncsSQL, s.tenant, sources)
		for _, op := range ops {
			last[op.Source] = op
		}
		return err
	})
	return hosts, last, err
}

// SourceAges says how long ago the last good sync of each of the sources ended, dry runs
// aside; while none was good, how long ago the first one was ordered. Sources that nobody
// asked are left out.
func (s *Store) SourceAges(ctx context.Context, sources []string) (ages map[string]time.Duration, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		ages = map[string]time.Duration{}
		rows, err := q.Query(ctx, lastGoodSyncsSQL, s.tenant, sources)
		if err != nil {
			return err
		}
		var name string
		var age float64
		_, err = pgx.ForEachRow(rows, []any{&name, &age}, func() error { ages[name] = seconds(age); return nil })
		return err
	})
	return ages, err
}

// synced is what became of a host in a sync.
type synced struct {
	Address     string             `json:"address"`
	State       fleet.HostRunState `json:"state"`
	Reason      string             `json:"reason"`
	Diff        string             `json:"diff"`
	SourceFacts fleet.SourceFacts  `json:"source_facts"`
	Labels      map[string]string  `json:"labels"`

	changes bool // something is to be written
}

// SyncHosts gives the hosts of a sync the facts that its source has found, and puts on
// record what that changed; of a dry run, what it would change. It is a Conflict when the
// operation has ended. Repeating it is safe: hosts that are done stay so, and the counts
// are those of all.
func (s *Store) SyncHosts(ctx context.Context, id string, found map[string]fleet.SourceFacts) (counts fleet.SyncCounts, err error) {
	same, missing, err := s.takeUpHosts(ctx, id, found)
	if err != nil {
		return counts, err
	}
	for more := true; more; {
		err := s.db.tx(ctx, func(ctx context.Context, q querier) error {
			more, err = s.syncSome(ctx, q, id, found)
			return err
		})
		if err != nil {
			return counts, err
		}
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.lockUnfinished(ctx, q, id); err != nil {
			return err
		}
		strangers, err := collect(ctx, q, pgx.RowTo[string], strangersSQL, s.tenant, slices.Collect(maps.Keys(found)))
		if err != nil {
			return err
		}
		kept := min(len(strangers), fleet.MaxStrangers)
		counts = fleet.SyncCounts{Strangers: strangers[:kept], More: len(strangers) - kept}
		if err := q.QueryRow(ctx, countSyncedSQL, s.tenant, id).Scan(&counts.Changed, &counts.Same, &counts.Missing); err != nil {
			return err
		}
		counts.Same += same
		counts.Missing += missing
		_, err = q.Exec(ctx, setSyncSQL, s.tenant, id, counts)
		return err
	})
	return counts, err
}

// takeUpHosts gives a scheduled sync host runs for the hosts that it changes, and counts
// the others: those that stay the same, and those that its source does not know. Of any
// other sync, all hosts have runs from its order on.
func (s *Store) takeUpHosts(ctx context.Context, id string, found map[string]fleet.SourceFacts) (same, missing int, err error) {
	for after, more := "", true; more; {
		var last string
		var pageSame, pageMissing int
		err := s.db.tx(ctx, func(ctx context.Context, q querier) error {
			more, pageSame, pageMissing = false, 0, 0
			op, err := s.lockUnfinished(ctx, q, id)
			if err != nil || op.RequestedBy != fleet.BySchedule {
				return err
			}
			var changed []string
			page, err := collect(ctx, q, func(row pgx.CollectableRow) (address string, err error) {
				var said fleet.SourceFacts
				h, err := scanHostAnd(row, &said)
				facts, known := found[h.Address]
				done := syncedHost(h, said, facts)
				switch {
				case !known || done.State == fleet.HostRunSkipped:
					pageMissing++
				case done.changes:
					changed = append(changed, h.Address)
				default:
					pageSame++
				}
				return h.Address, err
			}, hostsOfScheduledSQL, s.tenant, id, op.Source, after, syncPage)
			if err != nil || len(page) == 0 {
				return err
			}
			last, more = page[len(page)-1], len(page) == syncPage
			_, err = q.Exec(ctx, takeUpHostsSQL, id, s.tenant, changed)
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		after, same, missing = last, same+pageSame, missing+pageMissing
	}
	return same, missing, nil
}

// syncSome does it for a page of hosts; more says that there may be others.
func (s *Store) syncSome(ctx context.Context, q querier, id string, found map[string]fleet.SourceFacts) (more bool, err error) {
	op, err := s.lockUnfinished(ctx, q, id)
	if err != nil {
		return false, err
	}
	addresses, err := collect(ctx, q, pgx.RowTo[string], unsyncedSQL, s.tenant, id, syncPage)
	if err != nil || len(addresses) == 0 {
		return false, err
	}
	type known struct {
		fleet.Host
		said fleet.SourceFacts
		same bool // the host that the operation was ordered for
	}
	read, err := collect(ctx, q, func(row pgx.CollectableRow) (k known, err error) {
		k.Host, err = scanHostAnd(row, &k.said, &k.same)
		return k, err
	}, hostsToSyncSQL, s.tenant, id, addresses)
	if err != nil {
		return false, err
	}
	hosts := map[string]known{}
	for _, h := range read {
		hosts[h.Address] = h
	}
	var all, succeeded, changed []synced
	for _, address := range addresses {
		h, there := hosts[address]
		facts, said := found[address]
		done := synced{Address: address, State: fleet.HostRunSkipped}
		switch {
		case !there || !h.same:
			done.Reason = "the host was removed since"
		case h.Source != op.Source:
			done.Reason = "the host has another source since"
		case !said:
			done.Reason = "source " + op.Source + " does not know this host; its facts stay as they are"
		default:
			done = syncedHost(h.Host, h.said, facts)
		}
		all = append(all, done)
		if done.State == fleet.HostRunSucceeded {
			succeeded = append(succeeded, done)
		}
		if done.changes && !op.DryRun {
			changed = append(changed, done)
		}
	}
	if _, err := q.Exec(ctx, setSourceFactsSQL, s.tenant, list(changed)); err != nil {
		return false, err
	}
	if _, err := q.Exec(ctx, endSyncsSQL, s.tenant, id, all); err != nil {
		return false, err
	}
	if _, err := q.Exec(ctx, insertSyncStepsSQL, s.tenant, id, list(succeeded), fleet.StepSync); err != nil {
		return false, err
	}
	_, err = q.Exec(ctx, insertDiffsSQL, id, list(succeeded), fleet.StepSync)
	return len(addresses) == syncPage, err
}

// list is an empty one in JSON, not null, when there is nothing.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// syncedHost says what becomes of a host whose source says facts, and said others before.
func syncedHost(h fleet.Host, before, facts fleet.SourceFacts) synced {
	done := synced{Address: h.Address, State: fleet.HostRunSucceeded, SourceFacts: facts}
	after := facts.Over(h, before)
	if err := fleet.CheckLabels(after.Labels); err != nil {
		done.State, done.Reason = fleet.HostRunSkipped, "with the labels of its source the host would have too many; its facts stay as they are"
		return done
	}
	done.Labels, done.Diff = after.Labels, fleet.FactsDiff(h, after)
	if done.Diff == "" {
		done.Reason = "nothing has changed"
	}
	done.changes = done.Diff != "" || !reflect.DeepEqual(before, facts)
	return done
}
