package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// Vitals say how the record stands, over all tenants: what operators watch.
type Vitals struct {
	Hosts      map[fleet.HostState]int // states that no host has are left out
	Unfinished []Unfinished
	Cordons    int           // left out though their host runs have ended
	CordonAge  time.Duration // how long ago the host run of the oldest of them ended
	NoKeys     []uint32      // as MissingKeys
}

// Unfinished are the operations of one kind in one state that have not ended.
type Unfinished struct {
	Kind  fleet.OperationKind
	State string // pending, running, or waiting: running, and its record says what for
	Count int
	Quiet time.Duration // since the record of the quietest of them has grown
}

const (
	// unfinishedMost bounds the operations of a state whose records are looked at, the
	// oldest first: all others are younger.
	unfinishedMost = 1000

	countHostsSQL = `SELECT state, count(*) FROM host GROUP BY state`

	// An operation is as quiet as the younger of its last event and its last output.
	unfinishedVitalsSQL = `WITH open AS MATERIALIZED (
			(SELECT id, kind, state, waiting, created FROM operation WHERE state = 'pending' ORDER BY id LIMIT $1)
			UNION ALL
			(SELECT id, kind, state, waiting, created FROM operation WHERE state = 'running' ORDER BY id LIMIT $1)
		)
		SELECT o.kind, CASE WHEN o.state = 'running' AND coalesce(p.waiting, o.waiting) <> '' THEN 'waiting' ELSE o.state END AS standing, count(*),
			extract(epoch FROM clock_timestamp() - min(greatest(o.created, e.at, u.at)))::float8
		FROM open o LEFT JOIN rollout p ON p.operation_id = o.id
			LEFT JOIN LATERAL (SELECT at FROM event WHERE operation_id = o.id ORDER BY xid DESC, seq DESC LIMIT 1) e ON true
			LEFT JOIN LATERAL (SELECT at FROM output WHERE operation_id = o.id ORDER BY xid DESC, seq DESC LIMIT 1) u ON true
		GROUP BY o.kind, standing ORDER BY o.kind, standing`

	countCordonsSQL = `SELECT count(*), coalesce(extract(epoch FROM now() - min(finished)), 0)::float8
		FROM host_run WHERE cordon IN ('out', 'restoring') AND finished IS NOT NULL`
)

// Vitals reads them in one round trip.
func (db *DB) Vitals(ctx context.Context) (v Vitals, err error) {
	err = db.read(ctx, func(ctx context.Context, q querier) error {
		v = Vitals{Hosts: map[fleet.HostState]int{}}
		b := &pgx.Batch{}
		b.Queue(countHostsSQL).Query(func(rows pgx.Rows) error {
			var state fleet.HostState
			var n int
			_, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { v.Hosts[state] = n; return nil })
			return err
		})
		b.Queue(unfinishedVitalsSQL, unfinishedMost).Query(func(rows pgx.Rows) error {
			var u Unfinished
			var quiet float64
			_, err := pgx.ForEachRow(rows, []any{&u.Kind, &u.State, &u.Count, &quiet}, func() error {
				u.Quiet = seconds(quiet)
				v.Unfinished = append(v.Unfinished, u)
				return nil
			})
			return err
		})
		b.Queue(countCordonsSQL).QueryRow(func(row pgx.Row) error {
			var age float64
			err := row.Scan(&v.Cordons, &age)
			v.CordonAge = seconds(age)
			return err
		})
		b.Queue(keysInUseSQL).Query(func(rows pgx.Rows) error {
			needed, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
			v.NoKeys = db.lacks(needed)
			return err
		})
		return q.SendBatch(ctx, b).Close()
	})
	return v, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
