package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// Event is something that happened in an operation.
type Event struct {
	ID      string // where it stands among the events of its operation; a cursor
	At      time.Time
	Kind    string // operation, host, step, steer or output
	Address string // the host, "" for the operation's own
	Step    string
	Attempt int
	State   string // the new one; for steer what was done: pause, resume, cancel, approve, policy
	Reason  string
	By      string // who did it
	Detail  string // of a new policy: its members, as JSON
	// ExitCode is the command's, nil when none ended.
	ExitCode *int
	// Offset and Data are a piece of what a step printed, for the kind output.
	Offset int64
	Data   []byte
}

// EventFilter chooses events of an operation.
type EventFilter struct {
	After  string // ID of the last one that is known, "" for all
	Host   string // those of this host and the operation's own; "" means any host
	Output bool   // also what steps print
	Limit  int    // 0 means DefaultPage; at most MaxPage
}

// A transaction that is still open may write events that come before those of one
// that has ended, so only events are read before which none can come any more. One
// from the future is from another server, whose backup was restored here.
const settledSQL = `(xid < pg_snapshot_xmin(pg_current_snapshot()) OR xid >= pg_snapshot_xmax(pg_current_snapshot()))`

// What comes after a cursor ($2, $3), of all hosts or of one ($4).
const (
	eventsAfter = `FROM event WHERE operation_id = $1 AND (xid, seq) > ($2::text::xid8, $3::bigint) AND ($4 = '' OR address IN ('', $4))`

	outputAfter = `FROM output WHERE $5 AND operation_id = $1 AND (xid, seq) > ($2::text::xid8, $3::bigint)
			AND ($4 = '' OR step_id IN (SELECT id FROM step WHERE operation_id = $1 AND address = $4))`
)

const (
	eventsSQL = `SELECT xid, seq, at, kind, address, step, attempt, state, reason, by_whom, detail, exit_code, position, data FROM (
			SELECT *, sum(coalesce(octet_length(data), 0)) OVER (ORDER BY xid, seq) - coalesce(octet_length(data), 0) AS bytes_before FROM (
				(SELECT xid, seq, at, kind, address, step, attempt, state, reason, by_whom, detail, exit_code, 0::bigint AS position, NULL::bytea AS data
					` + eventsAfter + ` AND ` + settledSQL + ` ORDER BY xid, seq LIMIT $6)
				UNION ALL
				SELECT c.xid, c.seq, c.at, 'output', s.address, s.name, s.attempt, s.state, '', '', '', NULL, c.position, c.data
					FROM (SELECT * ` + outputAfter + ` AND ` + settledSQL + ` ORDER BY xid, seq LIMIT $6) c JOIN step s ON s.id = c.step_id
			) e ORDER BY xid, seq LIMIT $6
		) page WHERE bytes_before < $7 ORDER BY xid, seq`

	// The indexes have the order. Before Postgres has counted the rows of a new
	// operation it takes them for few, and would collect all by bitmap and sort them
	// for each page.
	inOrderSQL = `SELECT set_config('enable_bitmapscan', 'off', true)`

	moreEventsSQL = `SELECT EXISTS (SELECT ` + eventsAfter + `) OR EXISTS (SELECT ` + outputAfter + `)`
)

// maxEventBytes is how much output one call of Events gives: a piece that begins
// below it is the last.
const maxEventBytes = 1 << 20

// Events gives what happened in an operation, in one order for all readers, so that
// who goes on After the last one misses nothing. With much output a page is shorter
// than Limit, but only an empty list means that nothing more can be read now. Changes
// says when to look again; EventsAfter, whether to look again each second besides.
func (s *Store) Events(ctx context.Context, operationID string, f EventFilter) (events []Event, err error) {
	xid, seq, err := eventCursor(f.After)
	if err != nil {
		return nil, err
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.operation(ctx, q, operationSQL, operationID); err != nil {
			return err
		}
		b := &pgx.Batch{} // one transaction, to whose end the setting holds
		b.Queue(inOrderSQL)
		b.Queue(eventsSQL, operationID, xid, seq, f.Host, f.Output, pageSize(f.Limit), maxEventBytes).Query(func(rows pgx.Rows) error {
			events, err = pgx.CollectRows(rows, scanEvent)
			return err
		})
		return q.SendBatch(ctx, b).Close()
	})
	return events, err
}

// EventsAfter says whether there are events after f.After, also those that Events
// does not give yet because an older transaction of the server is open, whose end
// wakes nobody.
func (s *Store) EventsAfter(ctx context.Context, operationID string, f EventFilter) (more bool, err error) {
	xid, seq, err := eventCursor(f.After)
	if err != nil {
		return false, err
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.operation(ctx, q, operationSQL, operationID); err != nil {
			return err
		}
		return q.QueryRow(ctx, moreEventsSQL, operationID, xid, seq, f.Host, f.Output).Scan(&more)
	})
	return more, err
}

func scanEvent(row pgx.CollectableRow) (e Event, err error) {
	var xid, seq uint64
	var at pgtype.Timestamptz
	err = row.Scan(&xid, &seq, &at, &e.Kind, &e.Address, &e.Step, &e.Attempt, &e.State, &e.Reason, &e.By, &e.Detail, &e.ExitCode, &e.Offset, &e.Data)
	e.ID = strconv.FormatUint(xid, 10) + "-" + strconv.FormatUint(seq, 10)
	e.At = utc(at)
	return e, err
}

// eventCursor reads the id of an event; "" is before the first.
func eventCursor(id string) (xid string, seq int64, err error) {
	if id == "" {
		return "0", -1, nil
	}
	xid, after, _ := strings.Cut(id, "-")
	_, bad := strconv.ParseUint(xid, 10, 64)
	seq, err = strconv.ParseInt(after, 10, 64)
	if bad != nil || err != nil || seq < 0 {
		return "", 0, fleet.InvalidField("Last-Event-ID", "is not one that this list gave")
	}
	return xid, seq, nil
}
