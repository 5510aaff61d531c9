// Package config holds every setting of Commissaire in one struct.
//
// One precedence, for every setting: command-line flag, then environment
// (COMMISSAIRE_ and the name in capitals, '-' as '_'), then file, then default.
// A list is taken whole from the highest of them that has it. Unknown names are
// errors that name the nearest known one. The file may be one of the original
// Commissaire. The table of docs/configuration.md is made from the struct.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Config is every setting. The tags are the whole truth about each: name is its
// name, flag that of its flag when it is another, default its default, usage what
// it does. A list has a flag in the singular, which may be given many times.
type Config struct {
	ListenInterface string `name:"listen-interface" default:"0.0.0.0" usage:"address the API listens on"`
	ListenPort      int    `name:"listen-port" default:"8000" usage:"TCP port the API listens on"`

	TLSPEMFile          string `name:"tls-pemfile" default:"" usage:"PEM file with the certificate (and its chain) and the private key of the API; without one, and without tls-certfile, the API speaks plain HTTP"`
	TLSCertFile         string `name:"tls-certfile" default:"" usage:"the certificate alone, in place of tls-pemfile; together with tls-keyfile"`
	TLSKeyFile          string `name:"tls-keyfile" default:"" usage:"the private key alone; together with tls-certfile"`
	TLSClientVerifyFile string `name:"tls-clientverifyfile" default:"" usage:"PEM file with the CAs, and their CRLs if any, that client certificates are checked against; with it every client must present one"`

	AuthenticationPlugins []Plugin `name:"authentication-plugins" flag:"authentication-plugin" usage:"who may call the API is asked of these, in this order; on the command line NAME or NAME:option=value,option=value; without any, and without users-file, every request is refused"`
	UsersFile             string   `name:"users-file" default:"" usage:"users.json with bcrypt hashes; short for the plug-in httpbasicauth with this filepath, before all others"`
	SelfAuths             []string `name:"self-auths" flag:"self-auth" usage:"paths that are served without authentication, each exactly as written"`
	TrustedProxies        []string `name:"trusted-proxies" flag:"trusted-proxy" usage:"addresses and networks (CIDR) of proxies whose X-Forwarded-For is believed"`

	MetricsListen string `name:"metrics-listen" default:"" usage:"address:port on which a worker serves /metrics, /livez and /readyz; empty for none (the API serves its own)"`

	DatabaseURL     string `name:"database-url" default:"" usage:"Postgres connection URL or keyword string; a password belongs in database-url-file, PGPASSFILE or the environment, and is refused on the command line"`
	DatabaseURLFile string `name:"database-url-file" default:"" usage:"file that holds the database-url"`

	TemporalAddress   string `name:"temporal-address" default:"" usage:"host:port of the Temporal frontend; empty: as the Temporal SDK's own environment says (TEMPORAL_ADDRESS, TEMPORAL_API_KEY, TEMPORAL_TLS_*, profiles), else 127.0.0.1:7233"`
	TemporalNamespace string `name:"temporal-namespace" default:"" usage:"Temporal namespace; empty: as the SDK's environment says, else default"`
	TaskQueue         string `name:"task-queue" default:"commissaire" usage:"Temporal task queue that operations are put on and workers take from; checks of hosts and pages of commands have others, named after it with -watch and -commands"`

	SealingKeyFile string `name:"sealing-key-file" default:"" usage:"file with the keyset that seals credentials at rest; make it with 'commissaire key create'"`

	Debug     bool   `name:"debug" default:"false" usage:"short for log-level debug, and stronger"`
	LogLevel  string `name:"log-level" default:"info" usage:"debug, info, warn or error"`
	LogFormat string `name:"log-format" default:"json" usage:"json or text"`

	HeartbeatTimeout time.Duration `name:"heartbeat-timeout" default:"10s" usage:"a step whose worker is silent for so long is given to another worker"`
	StepTimeout      time.Duration `name:"step-timeout" default:"30m" usage:"how long one step may take on a host; time without a worker does not count, and a new worker counts anew"`
	UnreachableAfter time.Duration `name:"unreachable-after" default:"2m" usage:"how long a host may be unreachable before the step on it fails"`
	RebootTimeout    time.Duration `name:"reboot-timeout" default:"10m" usage:"how long a host may take to come back with a new boot id; time without a worker does not count, and a new worker counts anew"`
	HoldTimeout      time.Duration `name:"hold-timeout" default:"1h" usage:"how long an operation waits for a host that another operation holds"`

	WatchInterval      time.Duration `name:"watch-interval" default:"1m" usage:"how often every host is checked while no operation is at work on it; 0s for never"`
	WatchSlow          time.Duration `name:"watch-slow" default:"5s" usage:"a host that takes longer than this to answer a check is slow; after 10 s it is unreachable"`
	WatchFailures      int           `name:"watch-failures" default:"3" usage:"so many failed checks in a row fail a host; the first good one takes that back"`
	WatchFactsInterval time.Duration `name:"watch-facts-interval" default:"1h" usage:"how old the facts of a host may become before a check reads them again"`

	BootstrapProfile       string `name:"bootstrap-profile" default:"container-host" usage:"what a bootstrap puts on hosts whose cluster names no profile: none, container-host or atomic-2017 (docs/hosts.md)"`
	RegistryMirror         string `name:"registry-mirror" default:"" usage:"URL of a mirror of Docker Hub that a bootstrap sets up on hosts; empty for none, but http://127.0.0.1:8080 in atomic-2017"`
	EtcdServerURL          string `name:"etcd-server-url" default:"" usage:"URL of the etcd of flannel, in atomic-2017"`
	EtcdCertificatePath    string `name:"etcd-certificate-path" default:"" usage:"PEM file on the workers with the client certificate that a bootstrap gives to hosts for that etcd; together with etcd-certificate-key-path"`
	EtcdCertificateKeyPath string `name:"etcd-certificate-key-path" default:"" usage:"PEM file on the workers with its key"`
	EtcdCertificateCAPath  string `name:"etcd-certificate-ca-path" default:"" usage:"PEM file on the workers with the authority of that etcd's certificate"`

	HostSources []Plugin `name:"host-sources" flag:"host-source" usage:"inventories that know facts of hosts, the same for servers and workers; on the command line NAME:type=…,option=value"`

	WorkerSlots     int           `name:"worker-slots" default:"200" usage:"steps that one worker runs at a time, and as many pages of commands beside them"`
	ShutdownTimeout time.Duration `name:"shutdown-timeout" default:"20s" usage:"how long requests and steps may finish after SIGTERM"`

	SSHDialTimeout      time.Duration `name:"ssh-dial-timeout" default:"10s" usage:"how long a TCP connection to a host may take"`
	SSHHandshakeTimeout time.Duration `name:"ssh-handshake-timeout" default:"20s" usage:"how long the SSH handshake and login may take after that"`
	SSHKeepalive        time.Duration `name:"ssh-keepalive" default:"5s" usage:"interval of SSH keepalives; three without an answer close the connection"`
	SSHMaxHandshakes    int           `name:"ssh-max-handshakes" default:"50" usage:"SSH handshakes that one worker has under way at a time; bastions and subnets have fewer, see hosts.md"`
	SSHIdleTimeout      time.Duration `name:"ssh-idle-timeout" default:"1m" usage:"an SSH connection unused for so long is closed"`
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

// Level gives the least level that is logged.
func (c *Config) Level() slog.Level {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(c.LogLevel)) // Validate has refused anything else
	if c.Debug {
		return slog.LevelDebug
	}
	return level
}

// TrustedPrefixes gives trusted-proxies as networks; a single address is one of
// its full length.
func (c *Config) TrustedPrefixes() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range c.TrustedProxies {
		p, err := parsePrefix(text)
		if err != nil {
			return nil, err
		}
		if p.Bits() == 0 {
			return nil, fmt.Errorf("%q trusts everybody, who could then say to come from anywhere", text)
		}
		out = append(out, p)
	}
	return out, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a network like 10.0.0.0/8", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a network like 10.0.0.0/8", text)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits beyond its length; write %s", text, p.Masked())
	}
	return p, nil
}

// Validate checks what can be checked without touching anything else. The error
// joins all that is wrong.
func (c *Config) Validate() error { return errors.Join(c.faults()...) }

func (c *Config) faults() (errs []error) {
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if c.ListenPort < 0 || c.ListenPort > 65535 {
		bad("listen-port", "must be between 0 and 65535")
	}
	if c.TLSPEMFile != "" && (c.TLSCertFile != "" || c.TLSKeyFile != "") {
		bad("tls-pemfile", "must not be set together with tls-certfile and tls-keyfile")
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		bad("tls-certfile", "must be set together with tls-keyfile")
	}
	if c.TLSClientVerifyFile != "" && c.TLSPEMFile == "" && c.TLSCertFile == "" {
		bad("tls-clientverifyfile", "needs a certificate for the API: set tls-pemfile")
	}
	for i, p := range c.AuthenticationPlugins { // package hostsource checks its own
		if p.Name == "" {
			bad("authentication-plugins", "entry %d: needs a name", i+1)
		}
	}
	for _, path := range c.SelfAuths {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
			bad("self-auths", "%q is not a path; it must begin with / and hold no query", path)
		}
	}
	if _, err := c.TrustedPrefixes(); err != nil {
		bad("trusted-proxies", "%s", err)
	}
	if c.MetricsListen != "" && !isHostPort(c.MetricsListen) {
		bad("metrics-listen", "must be address:port, such as 127.0.0.1:9091 or :9091")
	}
	if host, _, _ := net.SplitHostPort(c.TemporalAddress); c.TemporalAddress != "" && (host == "" || !isHostPort(c.TemporalAddress)) {
		bad("temporal-address", "must be host:port, such as 127.0.0.1:7233")
	}
	if c.RegistryMirror != "" && !isPlainURL(c.RegistryMirror) {
		bad("registry-mirror", "must be a URL such as https://mirror.example:5000, without a user, a query or a fragment")
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
	switch c.BootstrapProfile {
	case "none", "container-host", "atomic-2017":
	default:
		bad("bootstrap-profile", "must be none, container-host or atomic-2017")
	}
	if (c.EtcdCertificatePath == "") != (c.EtcdCertificateKeyPath == "") {
		bad("etcd-certificate-path", "must be set together with etcd-certificate-key-path")
	}
	if c.WatchInterval != 0 && (c.WatchInterval < time.Second || c.WatchInterval > 24*time.Hour) {
		bad("watch-interval", "must be 0s, or between %s and %s", time.Second, 24*time.Hour)
	}
	if c.WatchFailures < 1 || c.WatchFailures > 1000 {
		bad("watch-failures", "must be between 1 and 1000")
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
		{"watch-slow", c.WatchSlow, 100 * time.Millisecond, 10 * time.Second},
		{"watch-facts-interval", c.WatchFactsInterval, time.Second, 30 * 24 * time.Hour},
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
	return errs
}

// isHostPort says whether s is host:port; the host may be empty.
func isHostPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// isPlainURL says whether s is an address of http or https and nothing besides.
func isPlainURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
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
