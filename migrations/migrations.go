// Package migrations holds the schema as numbered SQL files and applies and
// checks them. There is no way down: to go back, restore a backup. Every
// migration must leave the binary before it working, since both run during an
// upgrade, so Check accepts a schema that is newer than it needs.
package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

const (
	// lockRetry and lockTries bound how long Up waits for another Up.
	lockRetry = time.Second
	lockTries = 300

	undefinedTab  = "42P01" // undefined_table: nothing was migrated yet
	versionsQuery = "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied"
)

// Up brings the database to the newest version. Several may run at once, from
// several machines: an advisory lock lets one work and the others wait.
func Up(ctx context.Context, dsn string) error {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	db := stdlib.OpenDB(*config)
	provider, err := provider(db)
	if err != nil {
		return errors.Join(fmt.Errorf("migrate: %w", err), db.Close())
	}
	if _, err := provider.Up(ctx); err != nil {
		return errors.Join(fmt.Errorf("migrate the database: %w", err), provider.Close())
	}
	return provider.Close()
}

// Querier asks the database: a connection, a pool or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Check says whether the database is ready for this binary.
func Check(ctx context.Context, q Querier) error {
	needed, err := Needed()
	if err != nil {
		return err
	}
	var there int64
	err = q.QueryRow(ctx, versionsQuery).Scan(&there)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == undefinedTab {
		err = nil // version 0
	}
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if there < needed {
		return fmt.Errorf("schema version %d is older than version %d, which this binary needs; run: commissaire migrate", there, needed)
	}
	return nil
}

// Needed is the schema version that this binary needs.
func Needed() (int64, error) {
	sources, err := fs.Glob(files, "*.sql")
	if err != nil || len(sources) == 0 {
		return 0, errors.Join(errors.New("no migrations in this binary"), err)
	}
	return goose.NumericComponent(sources[len(sources)-1])
}

// Fingerprint is the same for two binaries with the same migrations. Tests name
// their template databases by it.
func Fingerprint() (string, error) {
	sources, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, name := range sources {
		text, err := files.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%q %d\n%s", name, len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(uint64(lockRetry/time.Second), lockTries))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
}
