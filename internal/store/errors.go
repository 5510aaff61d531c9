package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"commissaire/internal/fleet"
)

// errAgain makes tx run its function once more: somebody else won a race, and
// the next look at the rows sees who.
var errAgain = errors.New("lost a race too often")

// SQLSTATE codes (PostgreSQL, appendix A).
const (
	codeUniqueViolation     = "23505"
	codeForeignKeyViolation = "23503"
	codeSerialization       = "40001"
	codeDeadlock            = "40P01"
)

// unavailableCodes are what Postgres says when it cannot serve now. Two
// characters stand for a whole class.
var unavailableCodes = []string{
	"08",          // connection exceptions
	"53",          // out of disk, memory or connections
	"57P",         // shutting down, starting up, terminated by an administrator
	"57014",       // our statement timeout
	"55P03",       // our lock timeout
	"25P03",       // our transaction idled too long
	"28", "3D000", // wrong credentials, no such database: wrong only for the operator
	codeSerialization, codeDeadlock, // still, after maxAttempts
}

// errNoConnection marks that none was to be had from the pool.
var errNoConnection = errors.New("no connection to the database")

// failed turns an error of pgx into one for the caller. It is the one place
// that decides that Postgres does not answer; what it does not know is a fault
// of ours, which is no reason to try again.
func (db *DB) failed(ctx context.Context, err error) error {
	var known *fleet.Error
	var pgErr *pgconn.PgError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, errAgain):
		return unavailable("the database is too busy with this record; try again", err)
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("database call: %w", context.Canceled)
	case errors.Is(err, errNoConnection):
		return noAnswer(err)
	case errors.As(err, &pgErr):
		return db.refused(pgErr, err)
	case broken(err):
		// Idle connections of the pool are as dead as this one, so the next call
		// makes a new one. One that was merely slow says nothing about others.
		if !errors.Is(err, context.DeadlineExceeded) {
			db.pool.Reset()
		}
		return noAnswer(err)
	}
	return fmt.Errorf("database: %w", err)
}

func noAnswer(cause error) *fleet.Error {
	return unavailable("the database does not answer; try again", cause)
}

// broken says whether err is the end of a connection, or of the time it had
// (context.DeadlineExceeded is a net.Error).
func broken(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}

func (db *DB) refused(pgErr *pgconn.PgError, err error) error {
	for _, code := range unavailableCodes {
		if strings.HasPrefix(pgErr.Code, code) {
			if code == "57P" || code == "08" {
				db.pool.Reset()
			}
			return unavailable("the database cannot serve this now; try again", err)
		}
	}
	switch {
	case strings.HasPrefix(pgErr.Code, "22"):
		// Text that Postgres cannot hold: a zero byte, broken UTF-8, a number out of range.
		return &fleet.Error{Kind: fleet.Invalid, Detail: "a value holds characters or a number that cannot be stored", Err: errors.New(pgErr.Code)}
	case pgErr.Code == codeForeignKeyViolation && strings.HasSuffix(pgErr.ConstraintName, "_tenant_fk"):
		return fleet.Errorf(fleet.NotFound, "the tenant does not exist")
	}
	return fmt.Errorf("database: %w", err)
}

func unavailable(detail string, cause error) *fleet.Error {
	return &fleet.Error{Kind: fleet.Unavailable, Detail: detail, Err: cause}
}

// brokenByRace says whether a transaction should simply run again.
func brokenByRace(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code == codeSerialization || pgErr.Code == codeDeadlock)
}

// violates says whether err is the violation of this unique index.
func violates(err error, index string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == codeUniqueViolation && pgErr.ConstraintName == index
}

func notFound(noun, name string) *fleet.Error {
	return fleet.Errorf(fleet.NotFound, "%s %q does not exist", noun, name)
}

// orNotFound replaces "no rows" by an error that names what is missing.
func orNotFound(err error, noun, name string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return notFound(noun, name)
	}
	return err
}

func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
