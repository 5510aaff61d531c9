package config_test

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
)

func load(t *testing.T, args, environ []string) (*config.Loaded, error) {
	t.Helper()
	return loadFrom(t, args, environ, "")
}

func loadFrom(t *testing.T, args, environ []string, stdin string) (*config.Loaded, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Flags(fs)
	require.NoError(t, fs.Parse(args))
	return config.Load(fs, environ, strings.NewReader(stdin))
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func origins(c *config.Loaded) map[string]string {
	out := map[string]string{}
	for _, s := range c.View() {
		out[s.Setting] = s.Origin
	}
	return out
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := write(t, "c.conf", `{"listen-port": 1, "task_queue": "file", "log-level": "warn", "heartbeat-timeout": "3s", "self-auths": ["/a", "/b"], "trusted-proxies": ["10.0.0.1"]}`)
	c, err := load(t, []string{"--config-file", file, "-p3", "--self-auth=/c"},
		[]string{"COMMISSAIRE_LISTEN_PORT=2", "COMMISSAIRE_TASK_QUEUE=env", "COMMISSAIRE_TRUSTED_PROXIES=", "COMMISSAIRE_RUN=/x", "PATH=/bin"})
	require.NoError(t, err)
	require.Equal(t, 3, c.ListenPort, "flag before environment and file")
	require.Equal(t, "env", c.TaskQueue, "environment before file")
	require.Equal(t, "warn", c.LogLevel, "file before default")
	require.Equal(t, 3*time.Second, c.HeartbeatTimeout)
	require.Equal(t, "json", c.LogFormat, "default")
	require.Equal(t, []string{"/c"}, c.SelfAuths, "a list is replaced, not joined")
	require.Empty(t, c.TrustedProxies, "also by an empty one")
	require.Empty(t, c.Warnings)

	from := origins(c)
	require.Equal(t, "flag --listen-port", from["listen-port"])
	require.Equal(t, "flag --self-auth", from["self-auths"])
	require.Equal(t, "environment COMMISSAIRE_TASK_QUEUE", from["task-queue"])
	require.Equal(t, "environment COMMISSAIRE_TRUSTED_PROXIES", from["trusted-proxies"])
	require.Equal(t, "file "+file, from["log-level"])
	require.Equal(t, "default", from["log-format"])
	require.Len(t, from, len(config.Settings()))
}

func TestFiles(t *testing.T) {
	t.Parallel()
	yaml := write(t, "c.yaml", "listen-port: 7\nauthentication_plugins:\n  - name: oidc\n    client-id: x\n    roles: {alice: admin}\n    leeway: 5\n")
	c, err := load(t, nil, []string{"COMMISSAIRE_CONFIG_FILE=" + yaml})
	require.NoError(t, err)
	require.Equal(t, 7, c.ListenPort)
	want := []config.Plugin{{Name: "oidc", Options: map[string]any{"client_id": "x", "roles": map[string]any{"alice": "admin"}, "leeway": 5}}}
	require.Equal(t, want, c.AuthenticationPlugins)

	c, err = load(t, []string{"--no-config-file"}, []string{"COMMISSAIRE_CONFIG_FILE=" + yaml})
	require.NoError(t, err)
	require.Equal(t, 8000, c.ListenPort, "--no-config-file beats the environment")

	const members = `{"listen-port": "9", "authentication-plugins": [{"name": "oidc", "client_id": "x", "roles": {"alice": "admin"}, "leeway": 5}]}`
	c, err = loadFrom(t, []string{"-c", "-"}, nil, members)
	require.NoError(t, err)
	require.Equal(t, 9, c.ListenPort, "a number may be text")
	require.Equal(t, want, c.AuthenticationPlugins, "JSON and YAML give the same")
	require.Equal(t, "standard input", origins(c)["listen-port"])

	c, err = loadFrom(t, []string{"-c", "-"}, nil, "listen-port: 10\n")
	require.NoError(t, err)
	require.Equal(t, 10, c.ListenPort, "YAML on standard input")
}

// TestOldFile reads files in the form of the original server's.
func TestOldFile(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"-c", write(t, "commissaire.conf", `{
		"listen-interface": "127.0.0.1",
		"listen_port": 8001,
		"bus-uri": "redis://127.0.0.1:6379/",
		"bus_exchange": "commissaire",
		"exchange_name": "commissaire",
		"logging": {"version": 1},
		"register-store-handler": [],
		"storage_handlers": [{"type": "etcd"}],
		"custodia-socket-path": "/run/custodia.sock",
		"tls-pemfile": "/etc/commissaire/server.pem",
		"tls_clientverifyfile": null,
		"debug": true,
		"self-auths": ["/api/v0/secrets"],
		"authentication-plugins": [
			{"name": "commissaire_http.authentication.httpbasicauth", "filepath": "conf/users.json",
			 "users": {"a_b-c": {"hash": "$2a$12$x"}}},
			{"name": "httpauthclientcert", "cn": "ops"},
			{"name": "keystonepasswordauth", "url": "http://keystone:5000/v3/auth/tokens"}
		]}`)}, nil)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8001", c.Listen())
	require.Equal(t, "/etc/commissaire/server.pem", c.TLSPEMFile)
	require.Empty(t, c.TLSClientVerifyFile)
	require.Equal(t, "default", origins(c)["tls-clientverifyfile"], "null sets nothing")
	require.Equal(t, slog.LevelDebug, c.Level())
	require.Equal(t, []string{"/api/v0/secrets"}, c.SelfAuths)
	require.Equal(t, []config.Plugin{
		{Name: "commissaire_http.authentication.httpbasicauth", Options: map[string]any{
			"filepath": "conf/users.json", "users": map[string]any{"a_b-c": map[string]any{"hash": "$2a$12$x"}},
		}},
		{Name: "httpauthclientcert", Options: map[string]any{"cn": "ops"}},
		{Name: "keystonepasswordauth", Options: map[string]any{"url": "http://keystone:5000/v3/auth/tokens"}},
	}, c.AuthenticationPlugins, "names of users stay as they are")
	require.Len(t, c.Warnings, 1, "one warning for all that is ignored")
	require.Contains(t, c.Warnings[0], "bus-uri, bus_exchange, custodia-socket-path, exchange_name, logging, register-store-handler, storage_handlers")

	c, err = load(t, []string{"-c", write(t, "mvp.conf", `{"authentication-plugin": {"name": "httpbasicauth", "filepath": "u.json"}, "tls-keyfile": "k", "tls-certfile": "c"}`)}, nil)
	require.NoError(t, err)
	require.Equal(t, []config.Plugin{{Name: "httpbasicauth", Options: map[string]any{"filepath": "u.json"}}}, c.AuthenticationPlugins)
	require.Equal(t, "k", c.TLSKeyFile)
}

func TestOldFlags(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{
		"--no-config-file", "-i", "::1", "-p", "8443", "--debug", "--tls-pemfile=s.pem", "--tls-clientverifyfile=ca.pem",
		"--authentication-plugin", "keystonepasswordauth:url=http://keystone:5000/v3/auth/tokens?a=b,domain=Default",
		"--authentication-plugin=httpauthclientcert", "--self-auth", "/a", "--self-auth=/b,c", "--bus-uri=redis://x", "--bus-exchange", "y",
	}, []string{"ETCD_MACHINES=http://etcd"})
	require.NoError(t, err)
	require.Equal(t, "[::1]:8443", c.Listen())
	require.True(t, c.Debug)
	require.Equal(t, []config.Plugin{
		{Name: "keystonepasswordauth", Options: map[string]any{"url": "http://keystone:5000/v3/auth/tokens?a=b", "domain": "Default"}},
		{Name: "httpauthclientcert", Options: map[string]any{}},
	}, c.AuthenticationPlugins)
	require.Equal(t, []string{"/a", "/b,c"}, c.SelfAuths)
	require.Len(t, c.Warnings, 2)
	require.Contains(t, c.Warnings[0], "--bus-uri, --bus-exchange")
	require.Contains(t, c.Warnings[1], "ETCD_MACHINES")
}

func TestListsInTheEnvironment(t *testing.T) {
	t.Parallel()
	c, err := load(t, nil, []string{
		"COMMISSAIRE_SELF_AUTHS=/a, /b,", `COMMISSAIRE_TRUSTED_PROXIES=["10.0.0.0/8", "::1"]`,
		`COMMISSAIRE_AUTHENTICATION_PLUGINS=httpbasicauth:filepath=/u.json`,
	})
	require.NoError(t, err)
	require.Equal(t, []string{"/a", "/b"}, c.SelfAuths)
	require.Equal(t, []config.Plugin{{Name: "httpbasicauth", Options: map[string]any{"filepath": "/u.json"}}}, c.AuthenticationPlugins)
	prefixes, err := c.TrustedPrefixes()
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}, prefixes)

	c, err = load(t, nil, []string{`COMMISSAIRE_AUTHENTICATION_PLUGINS=[{"name": "apitoken"}, {"name": "httpauthclientcert", "cn": "x"}]`})
	require.NoError(t, err)
	require.Equal(t, []config.Plugin{{Name: "apitoken", Options: map[string]any{}}, {Name: "httpauthclientcert", Options: map[string]any{"cn": "x"}}}, c.AuthenticationPlugins)
	c, err = load(t, nil, []string{`COMMISSAIRE_AUTHENTICATION_PLUGINS=`})
	require.NoError(t, err)
	require.Empty(t, c.AuthenticationPlugins)
}

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"--no-config-file"}, nil)
	require.NoError(t, err)
	require.Equal(t, config.Defaults(), c.Config)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	file := func(text string) []string { return []string{"-c", write(t, "c.conf", text)} }
	plugins := func(text string) []string { return file(`{"authentication-plugins": ` + text + `}`) }
	for name, tc := range map[string]struct {
		args, env []string
		want      string
	}{
		"unknown member":        {args: file(`{"listen-prot": 1}`), want: "did you mean listen-port?"},
		"unknown variable":      {env: []string{"COMMISSAIRE_LOG_LEVL=info"}, want: "did you mean COMMISSAIRE_LOG_LEVEL?"},
		"missing file":          {args: []string{"-c", "/nonexistent/c.conf"}, want: "no such file"},
		"empty path":            {args: []string{"-c", ""}, want: "--config-file must not be empty"},
		"file and none":         {args: []string{"-c", "x", "--no-config-file"}, want: "not both"},
		"not an object":         {args: file(`[]`), want: "not an object"},
		"null":                  {args: file(`null`), want: "not an object"},
		"empty file":            {args: file(``), want: "not JSON"},
		"text after":            {args: file(`{} x`), want: "more text"},
		"YAML that is none":     {args: []string{"-c", write(t, "c.yml", "a: [")}, want: "c.yml"},
		"YAML that is text":     {args: []string{"-c", write(t, "c.yml", "secret@")}, want: "not an object"},
		"the same twice":        {args: file(`{"listen-port": 1, "listen_port": 2}`), want: "are the same setting"},
		"old and new list":      {args: file(`{"authentication-plugins": [], "authentication-plugin": {"name": "x"}}`), want: "are the same setting"},
		"number for text":       {args: file(`{"task-queue": 5}`), want: "task-queue: must be text"},
		"fraction":              {args: file(`{"listen-port": 80.5}`), want: "listen-port: must be a whole number"},
		"yes":                   {args: file(`{"debug": "yes"}`), want: "debug: must be true or false"},
		"list for text":         {args: file(`{"log-level": ["info"]}`), want: "log-level: must be text"},
		"text for a list":       {args: file(`{"self-auths": "/a"}`), want: "self-auths: must be a list"},
		"list with a number":    {args: file(`{"self-auths": ["/a", 5]}`), want: "self-auths: entry 2 must be text"},
		"not a path":            {args: []string{"--self-auth=api"}, want: `self-auths: "api" is not a path`},
		"plug-ins no list":      {args: plugins(`{"name": "x"}`), want: "must be a list of objects"},
		"plug-in no object":     {args: plugins(`["x"]`), want: "entry 1: must be an object"},
		"plug-in without name":  {args: plugins(`[{"name": "x"}, {"cn": "x"}]`), want: "entry 2: needs a name"},
		"option twice":          {args: plugins(`[{"name": "x", "ca-file": "", "ca_file": ""}]`), want: `plug-in "x": option ca_file is given twice`},
		"option no pair":        {args: []string{"--authentication-plugin=x:y"}, want: `plug-in "x": options are written option=value`},
		"option flag twice":     {args: []string{"--authentication-plugin=x:a=1,a=2"}, want: "option a is given twice"},
		"secret in argv":        {args: []string{"--authentication-plugin=x:client-secret=secret@"}, want: "process list"},
		"users in argv":         {args: []string{`--authentication-plugin=x:users={"a":{"hash":"secret@"}}`}, want: "option users is secret"},
		"bad JSON in variable":  {env: []string{`COMMISSAIRE_SELF_AUTHS=["secret@`}, want: "environment COMMISSAIRE_SELF_AUTHS: not JSON"},
		"bad level":             {args: []string{"--log-level=loud"}, want: "log-level: must be"},
		"bad duration":          {args: []string{"--heartbeat-timeout=soon"}, want: "flag --heartbeat-timeout: heartbeat-timeout: must be a duration"},
		"too short":             {args: []string{"--heartbeat-timeout=1ms"}, want: "heartbeat-timeout: must be between"},
		"bad port":              {args: []string{"--listen-port=70000"}, want: "listen-port: must be between"},
		"metrics, no colon":     {args: []string{"--metrics-listen=9000"}, want: "metrics-listen: must be address:port"},
		"metrics, no port":      {args: []string{"--metrics-listen=127.0.0.1:"}, want: "metrics-listen: must be address:port"},
		"metrics, bad port":     {args: []string{"--metrics-listen=127.0.0.1:70000"}, want: "metrics-listen: must be address:port"},
		"Temporal, no port":     {args: []string{"--temporal-address=foo"}, want: "temporal-address: must be host:port"},
		"Temporal, no host":     {args: []string{"--temporal-address=:7233"}, want: "temporal-address: must be host:port"},
		"mirror is a word":      {args: []string{"--registry-mirror=nonsense"}, want: "registry-mirror: must be a URL"},
		"mirror of FTP":         {args: []string{"--registry-mirror=ftp://x"}, want: "registry-mirror: must be a URL"},
		"mirror without host":   {args: []string{"--registry-mirror=https://"}, want: "registry-mirror: must be a URL"},
		"mirror with password":  {args: []string{"--registry-mirror=https://u:secret@h"}, want: "registry-mirror: must be a URL"},
		"empty port":            {env: []string{"COMMISSAIRE_LISTEN_PORT="}, want: "environment COMMISSAIRE_LISTEN_PORT: listen-port: must be a whole number"},
		"PEM and certificate":   {args: []string{"--tls-pemfile=a", "--tls-certfile=b", "--tls-keyfile=c"}, want: "tls-pemfile: must not be set together"},
		"certificate, no key":   {args: []string{"--tls-certfile=b"}, want: "must be set together"},
		"CA, no certificate":    {args: []string{"--tls-clientverifyfile=b"}, want: "set tls-pemfile"},
		"proxy by name":         {args: []string{"--trusted-proxy=proxy.example"}, want: "neither an IP address nor a network"},
		"network with host bit": {args: []string{"--trusted-proxy=10.1.2.3/8"}, want: "write 10.0.0.0/8"},
		"everybody a proxy":     {args: []string{"--trusted-proxy=0.0.0.0/0"}, want: "trusts everybody"},
		"password in argv":      {args: []string{"--database-url=postgres://u:secret@h/db"}, want: "holds a password"},
		"password in keyword":   {args: []string{"--database-url=host=h password=secret@"}, want: "holds a password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tc.args, tc.env)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "secret@")
		})
	}
}

// TestGoodAddresses: what is checked is taken in each of its forms.
func TestGoodAddresses(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{
		"--metrics-listen=:9091", "--metrics-listen=0.0.0.0:0", "--metrics-listen=[::1]:9091", "--metrics-listen=",
		"--temporal-address=temporal:7233", "--temporal-address=[::1]:7233", "--temporal-address=",
		"--registry-mirror=http://127.0.0.1:8080", "--registry-mirror=https://mirror.example/hub/", "--registry-mirror=",
	} {
		_, err := load(t, []string{"--no-config-file", flag}, nil)
		require.NoError(t, err, flag)
	}
}

func TestUnknownFlag(t *testing.T) {
	t.Parallel()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Flags(fs)
	require.ErrorContains(t, config.FlagError(fs, fs.Parse([]string{"--listen-prot=1"})), "did you mean --listen-port?")
	require.ErrorContains(t, config.FlagError(fs, fs.Parse([]string{"-x"})), "unknown shorthand flag: 'x' in -x")
}

func TestViewHasNoSecrets(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://u:hunter2@h/db", "postgres://u@h/db?password=hunter2&sslmode=disable", "postgresql://u:hunter2@h/db?sslpassword=hunter2",
		"host=h password=hunter2 dbname=db", `host=h password = 'hun\'ter2 hunter2' dbname=db`, "host=h user=hunter2 password=hunter2", "hunter2 :",
	} {
		c, err := load(t, nil, []string{"COMMISSAIRE_DATABASE_URL=" + dsn, "COMMISSAIRE_AUTHENTICATION_PLUGINS=" + `[
			{"name": "httpbasicauth", "filepath": "u.json", "users": {"alice": {"hash": "hunter2", "role": "viewer"}}},
			{"name": "keystonetokenauth", "url": "https://me:hunter2@keystone/", "list": [{"token": "hunter2"}]},
			{"name": "httpbasicauth", "users": "{\"alice\": {\"hash\": \"hunter2\"}}"},
			{"name": "httpbasicauth", "users": "{\"hash\": hunter2}"},
			{"name": "httpbasicauth", "users": "alice:hunter2"},
			{"name": "oidc", "clientSecret": "hunter2"},
			{"name": "oidc", "issuer": "https://idp/a@b", "token_url": "https://x", "client-secret": "hunter2"}]`})
		require.NoError(t, err)
		text, err := json.Marshal(c.View())
		require.NoError(t, err)
		require.NotContains(t, string(text), "hunter2", dsn)
		require.NotContains(t, string(text), `hun\`, dsn)
		for _, kept := range []string{"alice", "viewer", "u.json", "https://keystone/", "https://idp/a@b", "https://x"} {
			require.Contains(t, string(text), kept)
		}
		require.Equal(t, "https://me:hunter2@keystone/", c.AuthenticationPlugins[1].Options["url"], "only the view is redacted")
	}
	c, err := load(t, nil, []string{"COMMISSAIRE_DATABASE_URL=postgres://u:hunter2@h/db?sslmode=disable"})
	require.NoError(t, err)
	for _, s := range c.View() {
		if s.Setting == "database-url" {
			require.Equal(t, "postgres://u@h/db?sslmode=disable", s.Value)
		}
	}
}

func TestDSNFromFile(t *testing.T) {
	t.Parallel()
	c := config.Defaults()
	c.DatabaseURLFile = write(t, "dsn", "postgres://h/db\n")
	dsn, err := c.DSN()
	require.NoError(t, err)
	require.Equal(t, "postgres://h/db", dsn)
	c.DatabaseURL = "x"
	_, err = c.DSN()
	require.ErrorContains(t, err, "not both")
}

// FuzzPluginFlag: what an operator writes on the command line never panics, and
// what is taken survives being written down again.
func FuzzPluginFlag(f *testing.F) {
	for _, seed := range []string{"", "a", "a:", ":", "a:b", "a:b=c", "a:b=c:d=e,f=g", "a:=b", "a:b=c,b=d", "a:name=b", "a:token=b", "commissaire_http.authentication.keystonepasswordauth:url=http://k:5000/v3,domain=Default"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		config.Flags(fs)
		if err := fs.Set("authentication-plugin", text); err != nil {
			return
		}
		require.NoError(t, fs.Set("no-config-file", "true"))
		c, err := config.Load(fs, nil, strings.NewReader(""))
		if err != nil {
			return
		}
		require.Len(t, c.AuthenticationPlugins, 1)
		p := c.AuthenticationPlugins[0]
		require.NotEmpty(t, p.Name)
		rest := strings.TrimPrefix(text, p.Name+":")
		for option, value := range p.Options {
			require.Contains(t, strings.ReplaceAll(rest, "-", "_"), option+"="+strings.ReplaceAll(value.(string), "-", "_"))
		}
	})
}
