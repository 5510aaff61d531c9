// Package config holds every setting of Commissaire in one struct.
//
// One precedence, for every setting: command-line flag, then environment
// (COMMISSAIRE_ and the name in capitals, '-' as '_'), then file, then default.
// Unknown names in a file or in COMMISSAIRE_* variables are errors that name
// the nearest known one. docs/configuration.md is made from the struct.
package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Config is every setting. The tags are the whole truth about each: koanf is
// its name, default its default, usage what it does.
type Config struct {
	ListenInterface string `koanf:"listen-interface" default:"0.0.0.0" usage:"address the API listens on"`
	ListenPort      int    `koanf:"listen-port" default:"8000" usage:"TCP port the API listens on"`
	MetricsListen   string `koanf:"metrics-listen" default:"" usage:"address:port on which a worker serves /metrics, /livez and /readyz; empty for none (the API serves its own)"`

	DatabaseURL     string `koanf:"database-url" default:"" usage:"Postgres connection URL or keyword string; a password belongs in database-url-file, PGPASSFILE or the environment, and is refused on the command line"`
	DatabaseURLFile string `koanf:"database-url-file" default:"" usage:"file that holds the database-url"`

	TemporalAddress   string `koanf:"temporal-address" default:"" usage:"host:port of the Temporal frontend; empty: as the Temporal SDK's own environment says (TEMPORAL_ADDRESS, TEMPORAL_API_KEY, TEMPORAL_TLS_*, profiles), else 127.0.0.1:7233"`
	TemporalNamespace string `koanf:"temporal-namespace" default:"" usage:"Temporal namespace; empty: as the SDK's environment says, else default"`
	TaskQueue         string `koanf:"task-queue" default:"commissaire" usage:"Temporal task queue that operations are put on and workers take from"`

	SealingKeyFile string `koanf:"sealing-key-file" default:"" usage:"file with the keyset that seals credentials at rest; make it with 'commissaire key create'"`

	UsersFile string `koanf:"users-file" default:"" usage:"users.json with bcrypt hashes for HTTP Basic; without one every request is refused"`

	LogLevel  string `koanf:"log-level" default:"info" usage:"debug, info, warn or error"`
	LogFormat string `koanf:"log-format" default:"json" usage:"json or text"`

	HeartbeatTimeout time.Duration `koanf:"heartbeat-timeout" default:"10s" usage:"a step whose worker is silent for so long is given to another worker"`
	StepTimeout      time.Duration `koanf:"step-timeout" default:"30m" usage:"how long one step may take on a host; time without a worker does not count, and a new worker counts anew"`
	UnreachableAfter time.Duration `koanf:"unreachable-after" default:"2m" usage:"how long a host may be unreachable before the step on it fails"`
	RebootTimeout    time.Duration `koanf:"reboot-timeout" default:"10m" usage:"how long a host may take to come back with a new boot id; time without a worker does not count, and a new worker counts anew"`
	HoldTimeout      time.Duration `koanf:"hold-timeout" default:"1h" usage:"how long an operation waits for a host that another operation holds"`

	WorkerSlots     int           `koanf:"worker-slots" default:"200" usage:"steps that one worker runs at a time"`
	ShutdownTimeout time.Duration `koanf:"shutdown-timeout" default:"20s" usage:"how long requests and steps may finish after SIGTERM"`

	SSHDialTimeout      time.Duration `koanf:"ssh-dial-timeout" default:"10s" usage:"how long a TCP connection to a host may take"`
	SSHHandshakeTimeout time.Duration `koanf:"ssh-handshake-timeout" default:"20s" usage:"how long the SSH handshake and login may take after that"`
	SSHKeepalive        time.Duration `koanf:"ssh-keepalive" default:"5s" usage:"interval of SSH keepalives; three without an answer close the connection"`
	SSHMaxHandshakes    int           `koanf:"ssh-max-handshakes" default:"50" usage:"SSH handshakes that one worker has under way at a time"`
	SSHIdleTimeout      time.Duration `koanf:"ssh-idle-timeout" default:"1m" usage:"an SSH connection unused for so long is closed"`
}

// Listen gives the API's listen address as host:port.
func (c *Config) Listen() string {
	return net.JoinHostPort(c.ListenInterface, strconv.Itoa(c.ListenPort))
}

// DSN gives the Postgres connection string, from database-url or
// database-url-file. Without either it is "", which pgx reads as the PG*
// environment variables (libpq, "Environment Variables").
func (c *Config) DSN() (string, error) {
	if c.DatabaseURLFile == "" {
		return c.DatabaseURL, nil
	}
	if c.DatabaseURL != "" {
		return "", errors.New("set database-url or database-url-file, not both")
	}
	b, err := os.ReadFile(c.DatabaseURLFile)
	if err != nil {
		return "", fmt.Errorf("read database-url-file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Validate checks what can be checked without touching anything else.
func (c *Config) Validate() error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if c.ListenPort < 0 || c.ListenPort > 65535 {
		bad("listen-port", "must be between 0 and 65535")
	}
	if c.TaskQueue == "" {
		bad("task-queue", "must not be empty")
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		bad("log-level", "must be debug, info, warn or error")
	}
	switch c.LogFormat {
	case "json", "text":
	default:
		bad("log-format", "must be json or text")
	}
	for _, d := range []struct {
		name     string
		v        time.Duration
		min, max time.Duration
	}{
		{"heartbeat-timeout", c.HeartbeatTimeout, time.Second, 10 * time.Minute},
		{"step-timeout", c.StepTimeout, 10 * time.Second, 7 * 24 * time.Hour},
		{"unreachable-after", c.UnreachableAfter, time.Second, 24 * time.Hour},
		{"reboot-timeout", c.RebootTimeout, 5 * time.Second, 24 * time.Hour},
		{"hold-timeout", c.HoldTimeout, time.Second, 24 * time.Hour},
		{"shutdown-timeout", c.ShutdownTimeout, time.Second, time.Hour},
		{"ssh-dial-timeout", c.SSHDialTimeout, 100 * time.Millisecond, 10 * time.Minute},
		{"ssh-handshake-timeout", c.SSHHandshakeTimeout, 100 * time.Millisecond, 10 * time.Minute},
		{"ssh-keepalive", c.SSHKeepalive, 100 * time.Millisecond, 10 * time.Minute},
		{"ssh-idle-timeout", c.SSHIdleTimeout, 0, 24 * time.Hour},
	} {
		if d.v < d.min || d.v > d.max {
			bad(d.name, "must be between %s and %s", d.min, d.max)
		}
	}
	if c.WorkerSlots < 1 {
		bad("worker-slots", "must be at least 1")
	}
	if c.SSHMaxHandshakes < 1 {
		bad("ssh-max-handshakes", "must be at least 1")
	}
	return errors.Join(errs...)
}

// holdsPassword says whether a Postgres connection string carries a password
// of its own (not one from PGPASSWORD or a password file).
func holdsPassword(dsn string) bool {
	if dsn == "" {
		return false
	}
	without, err := pgconn.ParseConfig("")
	if err != nil {
		return strings.Contains(dsn, "password")
	}
	with, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return strings.Contains(dsn, "password") // unreadable: refuse rather than leak
	}
	return with.Password != "" && with.Password != without.Password
}
