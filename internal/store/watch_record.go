package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// Checked is what a check found of a host.
type Checked struct {
	Host   HostToCheck
	At     time.Time // when it began, by the clock of Postgres
	State  fleet.WatchState
	Reason string       // what was in the way
	BootID string       // that the host is in now, "" when it was not reached
	Facts  *fleet.Facts // nil when they were not read
}

// WatchRecorded counts what came of checks.
type WatchRecorded struct {
	Written int // the others were overtaken by something fresher
	Lost    int // hosts that failed by this
	Found   int // hosts that were lost and answer again
}

// recordWatchSQL writes down what checks found, and changes the state of hosts that are
// lost or found by the rows of fleet.HostTransitions for these events ($4 to $6).
//
// It writes nothing where something fresher is known: the host was added again, has
// another port, host key or credentials, an operation is at work on it or has ended its
// work since the check began, or a later check was faster. Failures begin anew when an
// operation has reached the host since the last check. A boot that follows one which the
// step $7 of an operation was to end is that operation's. $8 is when the first of the
// checks began: only the newest host runs are looked at. A host that answers and does not
// work counts as failed after $9 seconds of that, not counting those before an operation
// reached it. A host that was lost and fails checks anew has their reason.
const recordWatchSQL = `WITH seen AS (
		SELECT s.*, o.state AS old_state, o.watch_prior AS prior,
			since.since, stuck.stuck,
			CASE WHEN NOT s.failed AND NOT stuck.stuck THEN 0 WHEN o.last_check > o.watched THEN 1 ELSE o.watch_failures + 1 END AS failures
		FROM jsonb_to_recordset($2) AS s (address text, port integer, created timestamptz, pinned timestamptz, changed timestamptz, at timestamptz,
				state text, reason text, failed boolean, works boolean, reached boolean, boot_id text, facts boolean, os text, os_version text,
				ostree boolean, bootc boolean, package_manager text, cpus integer, memory integer, space bigint)
			JOIN host o ON o.tenant = $1 AND o.address = s.address
			CROSS JOIN LATERAL (SELECT CASE WHEN o.watch_state = s.state AND (s.works OR s.failed OR o.last_check <= o.watched) THEN o.watch_since ELSE s.at END) AS since (since)
			CROSS JOIN LATERAL (SELECT s.reached AND NOT s.works AND since.since <= s.at - make_interval(secs => $9)) AS stuck (stuck)
		WHERE o.created = s.created AND o.port = s.port AND o.host_key_pinned = s.pinned AND (o.watched IS NULL OR o.watched < s.at)
			AND (SELECT c.changed FROM host_creds c WHERE c.tenant = $1 AND c.address = s.address) = s.changed
			AND NOT EXISTS (SELECT FROM host_run r WHERE r.tenant = $1 AND r.address = s.address AND r.state IN ('staging', 'running') AND r.holds)
			AND NOT EXISTS (SELECT FROM host_run r WHERE r.tenant = $1 AND r.address = s.address AND r.finished > $8 AND r.finished > s.at AND r.started IS NOT NULL AND r.holds)
	), judged AS (
		SELECT seen.*,
			CASE WHEN stuck THEN format('%s since %sZ, which is too long', reason, to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')) ELSE reason END AS says,
			CASE
			WHEN failures >= $3 THEN 'lost'
			WHEN works AND prior = 'active' AND EXISTS (SELECT FROM node n WHERE n.tenant = $1 AND n.address = seen.address AND n.ready AND NOT n.leaving) THEN 'found-held'
			WHEN works AND prior <> '' THEN 'found' END AS event
		FROM seen
	)
	UPDATE host h SET
		watch_state = j.state,
		watch_reason = j.says,
		watch_since = j.since,
		watch_failures = j.failures,
		watched = j.at,
		last_check = CASE WHEN j.reached THEN greatest(h.last_check, j.at) ELSE h.last_check END,
		rebooted = CASE WHEN j.boot_id <> '' AND h.boot_id <> '' AND j.boot_id <> h.boot_id AND NOT EXISTS (
				SELECT FROM host_run r WHERE r.tenant = $1 AND r.address = h.address AND r.boot_id = h.boot_id
					AND (SELECT true FROM step s WHERE s.operation_id = r.operation_id AND s.address = r.address AND s.name = $7 LIMIT 1))
			THEN j.at ELSE h.rebooted END,
		boot_id = CASE WHEN j.boot_id <> '' THEN j.boot_id ELSE h.boot_id END,
		watch_facts = CASE WHEN j.facts THEN j.at ELSE h.watch_facts END,
		os = CASE WHEN j.facts THEN j.os ELSE h.os END,
		os_version = CASE WHEN j.facts THEN j.os_version ELSE h.os_version END,
		ostree = CASE WHEN j.facts THEN j.ostree ELSE h.ostree END,
		bootc = CASE WHEN j.facts THEN j.bootc ELSE h.bootc END,
		package_manager = CASE WHEN j.facts THEN j.package_manager ELSE h.package_manager END,
		cpus = CASE WHEN j.facts THEN j.cpus ELSE h.cpus END,
		memory = CASE WHEN j.facts THEN j.memory ELSE h.memory END,
		space = CASE WHEN j.facts THEN j.space ELSE h.space END,
		state = coalesce(t.new_state, h.state),
		state_since = CASE WHEN t.event IS NULL THEN h.state_since ELSE now() END,
		state_operation = CASE WHEN t.event IS NULL THEN h.state_operation END,
		reason = CASE
			WHEN t.event = 'lost' OR j.event = 'lost' AND j.prior <> '' AND j.failures = $3 THEN format('%s at %s checks in a row: %s', j.state, j.failures, j.says)
			WHEN t.event IS NULL THEN h.reason ELSE '' END,
		watch_prior = CASE WHEN t.event = 'lost' THEN h.state WHEN t.event IS NULL THEN h.watch_prior ELSE '' END
	FROM judged j LEFT JOIN unnest($4::text[], $5::text[], $6::text[]) AS t (old_state, event, new_state) ON t.old_state = j.old_state AND t.event = j.event
	WHERE h.tenant = $1 AND h.address = j.address
	RETURNING coalesce(t.event, '')`

// checkedRow is a row of what recordWatchSQL reads.
type checkedRow struct {
	Address        string           `json:"address"`
	Port           int              `json:"port"`
	Created        time.Time        `json:"created"`
	Pinned         time.Time        `json:"pinned"`
	Changed        time.Time        `json:"changed"`
	At             time.Time        `json:"at"`
	State          fleet.WatchState `json:"state"`
	Reason         string           `json:"reason"`
	Failed         bool             `json:"failed"`
	Works          bool             `json:"works"`
	Reached        bool             `json:"reached"`
	BootID         string           `json:"boot_id"`
	Facts          bool             `json:"facts"`
	OS             string           `json:"os"`
	OSVersion      string           `json:"os_version"`
	OSTree         bool             `json:"ostree"`
	Bootc          bool             `json:"bootc"`
	PackageManager string           `json:"package_manager"`
	CPUs           int              `json:"cpus"`
	Memory         int              `json:"memory"`
	Space          int64            `json:"space"`
}

func (c Checked) row() checkedRow {
	r := checkedRow{
		Address: c.Host.Address, Port: c.Host.Port, Created: c.Host.created, Pinned: c.Host.pinned, Changed: c.Host.changed, At: c.At,
		State: c.State, Reason: storable(c.Reason), Failed: c.State.Failed(), Works: c.State.Works(), Reached: c.State.Reached(), BootID: c.BootID,
	}
	if f := c.Facts; f != nil {
		r.Facts, r.OS, r.OSVersion, r.OSTree, r.Bootc, r.PackageManager = true, f.OS, f.OSVersion, f.OSTree, f.Bootc, f.PackageManager
		r.CPUs, r.Memory, r.Space = f.CPUs, f.Memory, f.Space
	}
	return r
}

// watchEvents are what checks tell hosts.
var watchEvents = []fleet.HostEvent{fleet.HostLost, fleet.HostFound, fleet.HostFoundHeld}

// RecordChecks writes down what checks found, where nothing fresher is known. A host is
// failed after so many failed checks in a row, and has its state back at the first good
// one, unless something else has changed its state since. Repeating it changes nothing.
func (s *Store) RecordChecks(ctx context.Context, checks []Checked, failures int) (done WatchRecorded, err error) {
	if len(checks) == 0 {
		return done, nil
	}
	rows, addresses, first := make([]checkedRow, len(checks)), make([]string, len(checks)), checks[0].At
	for i, c := range checks {
		rows[i], addresses[i] = c.row(), c.Host.Address
		if c.At.Before(first) {
			first = c.At
		}
	}
	var from, event, to []string
	for _, t := range fleet.HostTransitions {
		for _, e := range watchEvents {
			if t.Event == e {
				from, event, to = append(from, string(t.From)), append(event, string(t.Event)), append(to, string(t.To))
			}
		}
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		done = WatchRecorded{}
		// In a statement of its own, so that the next one sees all that was written before.
		if _, err := q.Exec(ctx, lockHostRowsSQL, s.tenant, addresses); err != nil {
			return err
		}
		happened, err := collect(ctx, q, pgx.RowTo[fleet.HostEvent], recordWatchSQL, s.tenant, rows, failures, from, event, to, fleet.StepReboot, first, fleet.RebootingMost.Seconds())
		done.Written = len(happened)
		for _, e := range happened {
			switch e {
			case fleet.HostLost:
				done.Lost++
			case fleet.HostFound, fleet.HostFoundHeld:
				done.Found++
			}
		}
		return err
	})
	return done, err
}
