package temporal

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/tools/common/schema"
	toolsql "go.temporal.io/server/tools/sql"
)

// Names of the databases on Postgres.
const (
	database           = "temporal"
	visibilityDatabase = "temporal_visibility"
)

// Connections that each of the four services may hold to each database. All
// share one Postgres with Commissaire.
const (
	connections           = 10
	visibilityConnections = 5
)

// prepareState gives the databases, with the schema that this server needs.
func prepareState(ctx context.Context, dsn string, l logger) (map[string]config.DataStore, error) {
	if dsn == "" {
		return inMemory()
	}
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("the address of Postgres is not a postgres:// URL") // not shown: it may hold a password
	}
	history, visibility := postgres(u, database, connections), postgres(u, visibilityDatabase, visibilityConnections)
	if err := migrate(ctx, u, history, "postgresql/v12/temporal", l); err != nil {
		return nil, err
	}
	if err := migrate(ctx, u, visibility, "postgresql/v12/visibility", l); err != nil {
		return nil, err
	}
	return map[string]config.DataStore{defaultStore: {SQL: history}, visibilityStore: {SQL: visibility}}, nil
}

func postgres(u *url.URL, name string, connections int) *config.SQL {
	password, _ := u.User.Password()
	attributes := map[string]string{}
	for key, values := range u.Query() {
		attributes[key] = values[0]
	}
	return &config.SQL{
		PluginName: postgresql.PluginNamePGX, DatabaseName: name,
		User: u.User.Username(), Password: password,
		ConnectAddr: u.Host, ConnectProtocol: "tcp", ConnectAttributes: attributes,
		MaxConns: connections, MaxIdleConns: connections, MaxConnLifetime: time.Hour,
	}
}

// migrate updates the schema of a database, or makes the database. A new one
// gets its name last, so that a start that was cut off leaves nothing behind
// that looks whole.
func migrate(ctx context.Context, u *url.URL, c *config.SQL, schemaName string, l logger) error {
	admin := *u
	admin.Path = "/postgres"
	conn, err := pgx.Connect(ctx, admin.String())
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", c.DatabaseName).Scan(&there); err != nil {
		return fmt.Errorf("look for database %s: %w", c.DatabaseName, err)
	}
	if there {
		return updateSchema(c, schemaName, l)
	}
	fresh := *c
	fresh.DatabaseName += "_unfinished"
	unfinished, name := pgx.Identifier{fresh.DatabaseName}.Sanitize(), pgx.Identifier{c.DatabaseName}.Sanitize()
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + unfinished + " WITH (FORCE)", "CREATE DATABASE " + unfinished} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make database %s: %w", c.DatabaseName, err)
		}
	}
	if err := createSchema(&fresh, c.DatabaseName, schemaName, l); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+unfinished+" RENAME TO "+name); err != nil {
		return fmt.Errorf("make database %s: %w", c.DatabaseName, err)
	}
	return nil
}

func createSchema(c *config.SQL, finalName, schemaName string, l logger) error {
	err := onDatabase(c, l, func(db *toolsql.Connection) error {
		return schema.NewSetupSchemaTask(db, &schema.SetupConfig{InitialVersion: "0.0"}, l).Run()
	})
	if err != nil {
		return err
	}
	if err := updateSchema(c, schemaName, l); err != nil {
		return err
	}
	// The schema's version stands under the name of its database.
	return onDatabase(c, l, func(db *toolsql.Connection) error {
		return db.Exec("UPDATE schema_version SET db_name = $1", finalName)
	})
}

// updateSchema does nothing on a schema that is up to date, and repeats what an
// update that was cut off had not finished.
func updateSchema(c *config.SQL, schemaName string, l logger) error {
	return onDatabase(c, l, func(db *toolsql.Connection) error {
		return schema.NewUpdateSchemaTask(db, &schema.UpdateConfig{DBName: c.DatabaseName, SchemaName: schemaName}, l).Run()
	})
}

func onDatabase(c *config.SQL, l logger, f func(*toolsql.Connection) error) error {
	single := *c
	single.MaxConns, single.MaxIdleConns = 1, 1
	db, err := toolsql.NewConnection(&single, l)
	if err == nil {
		defer db.Close()
		err = f(db)
	}
	if err != nil {
		return fmt.Errorf("schema of database %s: %w", c.DatabaseName, err)
	}
	return nil
}

// inMemory gives one SQLite database that lives as long as the server.
func inMemory() (map[string]config.DataStore, error) {
	c := &config.SQL{
		PluginName: sqlite.PluginName, DatabaseName: uuid.NewString(),
		ConnectAttributes: map[string]string{"mode": "memory", "cache": "shared", "setup": "true"},
	}
	return map[string]config.DataStore{defaultStore: {SQL: c}, visibilityStore: {SQL: c}}, nil
}
