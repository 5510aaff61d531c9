package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// DefaultDatabase says in words where Postgres is sought when no setting says: by
// the PG* environment and libpq's defaults. It connects to nothing, and its text
// holds no password.
func DefaultDatabase() (string, error) {
	c, err := pgconn.ParseConfig("")
	if err != nil {
		return "", fmt.Errorf("PG* environment: %w", err)
	}
	// Several hosts may be given, and each stands there once more for each way to
	// speak TLS.
	places := []string{place(c.Host, c.Port)}
	for _, f := range c.Fallbacks {
		if p := place(f.Host, f.Port); !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	database := c.Database
	if database == "" {
		database = c.User // as the server does
	}
	return fmt.Sprintf("%s, database %q, user %q", strings.Join(places, " or "), database, c.User), nil
}

func place(host string, port uint16) string {
	if network, address := pgconn.NetworkAddress(host, port); network == "unix" {
		return "socket " + address
	}
	return fmt.Sprintf("host %s, port %d", host, port)
}
