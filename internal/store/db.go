package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"commissaire/internal/secret"
	"commissaire/migrations"
)

// Every wait for Postgres ends: the server gives up first, then we do.
const (
	lockTimeout      = 5 * time.Second
	statementTimeout = 10 * time.Second
	callTimeout      = 15 * time.Second // one method of the store
	acquireTimeout   = 5 * time.Second  // a connection from the pool
	// idleTimeout is for a process that was stopped in the middle of a transaction.
	// It is below lockTimeout, so that whoever waits for its locks gets them.
	idleTimeout    = 4 * time.Second
	connectTimeout = 3 * time.Second
	pingTimeout    = 3 * time.Second
)

const (
	// defaultMaxConns is for a DSN without pool_max_conns.
	defaultMaxConns = 10
	// maxAttempts bounds how often a transaction that lost a race runs again.
	maxAttempts = 10
)

// kept, before the arguments of a statement, lets Postgres keep its plan. It is for
// what is asked often and finds its rows the same way whatever the arguments are.
const kept = pgx.QueryExecModeCacheStatement

// DB is the database of all tenants. It is safe for concurrent use.
type DB struct {
	pool     *pgxpool.Pool
	sealer   *secret.Sealer
	changes  changes
	patience time.Duration // how many times each of the limits above is waited for
}

// Store is the part of one tenant.
type Store struct {
	db     *DB
	tenant string
}

// querier runs statements: a connection or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Open prepares the use of a database. It does not connect, so it works while
// Postgres is down; Ping says whether it answers.
func Open(ctx context.Context, dsn string, sealer *secret.Sealer) (*DB, error) {
	return openDB(ctx, dsn, sealer, 1)
}

// openDB is Open with limits that are patience times as long.
func openDB(ctx context.Context, dsn string, sealer *secret.Sealer, patience time.Duration) (*DB, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("database address: %w", err)
	}
	if !strings.Contains(dsn, "pool_max_conns") {
		config.MaxConns = defaultMaxConns
	}
	if config.ConnConfig.ConnectTimeout == 0 || config.ConnConfig.ConnectTimeout > patience*connectTimeout {
		config.ConnConfig.ConnectTimeout = patience * connectTimeout
	}
	settings := config.ConnConfig.RuntimeParams
	if settings["application_name"] == "" {
		settings["application_name"] = "commissaire"
	}
	settings["timezone"] = "UTC"
	settings["lock_timeout"] = milliseconds(patience * lockTimeout)
	settings["statement_timeout"] = milliseconds(patience * statementTimeout)
	settings["idle_in_transaction_session_timeout"] = milliseconds(patience * idleTimeout)
	// What foreign keys and triggers ask, once for each row, keeps its plan. It is made
	// with the sizes of the tables at that time, and they grow: a scan of a table that
	// is small now must not be what is kept. A scan that cannot be avoided counts as
	// very costly then, which is no reason to compile it.
	settings["plan_cache_mode"] = "auto"
	settings["enable_seqscan"] = "off"
	settings["jit"] = "off"
	// Statements have no names, and so are planned for their arguments each time: with
	// optional filters, or lists of any length, a plan for all of them could use no index.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return &DB{pool: pool, sealer: sealer, patience: patience}, nil
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// Ping says whether Postgres answers, within 3 s.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.patience*pingTimeout)
	defer cancel()
	return db.read(ctx, func(ctx context.Context, q querier) error {
		_, err := q.Exec(ctx, "SELECT 1")
		return err
	})
}

// CheckSchema says whether Postgres answers, within 3 s, with the schema that
// this binary needs.
func (db *DB) CheckSchema(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.patience*pingTimeout)
	defer cancel()
	return db.read(ctx, func(ctx context.Context, q querier) error { return migrations.Check(ctx, q) })
}

// Close ends all connections, after the calls that still run.
func (db *DB) Close() {
	db.changes.close()
	db.pool.Close()
}

// For gives the store of one tenant.
func (db *DB) For(tenant string) *Store { return &Store{db: db, tenant: tenant} }

// read runs f on a connection, without a transaction. Single statements that
// write use it too.
func (db *DB) read(ctx context.Context, f func(ctx context.Context, q querier) error) error {
	ctx, cancel := context.WithTimeout(ctx, db.patience*callTimeout)
	defer cancel()
	return db.failed(ctx, db.onConn(ctx, func(conn *pgxpool.Conn) error { return f(ctx, conn) }))
}

// tx runs f in a transaction. f may run several times: when Postgres broke a
// deadlock, or when f says errAgain because it lost a race.
func (db *DB) tx(ctx context.Context, f func(ctx context.Context, q querier) error) error {
	ctx, cancel := context.WithTimeout(ctx, db.patience*callTimeout)
	defer cancel()
	var err error
	for range maxAttempts {
		err = db.onConn(ctx, func(conn *pgxpool.Conn) error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return f(ctx, tx) })
		})
		if !errors.Is(err, errAgain) && !brokenByRace(err) {
			break
		}
	}
	return db.failed(ctx, err)
}

func (db *DB) onConn(ctx context.Context, f func(conn *pgxpool.Conn) error) error {
	acquireCtx, cancel := context.WithTimeout(ctx, db.patience*acquireTimeout)
	defer cancel()
	conn, err := db.pool.Acquire(acquireCtx)
	if err != nil {
		return errors.Join(errNoConnection, err)
	}
	defer conn.Release()
	return f(conn)
}

// utc gives the zero time for NULL.
func utc(t pgtype.Timestamptz) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

// collect gives all rows of a query; an empty list, not nil, when there are none.
func collect[T any](ctx context.Context, q querier, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	out, err := pgx.CollectRows(rows, scan)
	if out == nil {
		out = []T{}
	}
	return out, err
}

// one gives the only row of a query, or pgx.ErrNoRows.
func one[T any](ctx context.Context, q querier, scan pgx.RowToFunc[T], sql string, args ...any) (T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		var none T
		return none, err
	}
	return pgx.CollectExactlyOneRow(rows, scan)
}
