package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"commissaire/internal/config"
	"commissaire/internal/secret"
)

func run(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := root()
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestConfigView(t *testing.T) {
	t.Parallel()
	const file = `{"listen_port": 8001, "self-auths": ["/a"], "authentication-plugins": [{"name": "httpbasicauth", "users": {"a": {"hash": "$2a$12$x"}}}]}`
	args := []string{"config", "view", "-c", "-", "--log-level=warn"}

	out, err := run(t, file, args...)
	require.NoError(t, err)
	lines := map[string]string{}
	for line := range strings.Lines(out) {
		setting, rest, _ := strings.Cut(line, " ")
		lines[setting] = strings.Join(strings.Fields(rest), " ")
	}
	require.Len(t, lines, 1+len(config.Settings()))
	require.Equal(t, "VALUE ORIGIN", lines["SETTING"])
	require.Equal(t, "8001 standard input", lines["listen-port"])
	require.Equal(t, `["/a"] standard input`, lines["self-auths"])
	require.Equal(t, `[] default`, lines["trusted-proxies"])
	require.Equal(t, "warn flag --log-level", lines["log-level"])
	require.Equal(t, "10s default", lines["heartbeat-timeout"])
	require.Equal(t, `[{"name":"httpbasicauth","users":{"a":{"hash":"[redacted]"}}}] standard input`, lines["authentication-plugins"])

	for format, read := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": yaml.Unmarshal} {
		out, err := run(t, file, append(args, "-o", format)...)
		require.NoError(t, err)
		require.NotContains(t, out, "$2a$")
		var shown []config.Shown
		require.NoError(t, read([]byte(out), &shown), format)
		require.Len(t, shown, len(config.Settings()))
		require.Equal(t, "listen-port", shown[1].Setting)
		require.EqualValues(t, 8001, shown[1].Value)
		require.Equal(t, "standard input", shown[1].Origin)
	}
	var usage usageError
	_, err = run(t, file, append(args, "-o", "xml")...)
	require.ErrorAs(t, err, &usage)
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, users, pem := filepath.Join(dir, "seal.key"), filepath.Join(dir, "users.json"), filepath.Join(dir, "server.pem")
	require.NoError(t, secret.CreateKeyFile(key))
	require.NoError(t, os.WriteFile(users, []byte(`{}`), 0o600))
	require.NoError(t, os.WriteFile(pem, []byte(`hello`), 0o600))
	check := func(args ...string) (string, error) {
		return run(t, "", append([]string{"config", "check", "--no-config-file", "--listen-interface=127.0.0.1", "--users-file", users}, args...)...)
	}
	out, err := check("--sealing-key-file", key, "--database-url=postgres://u@h/db")
	require.NoError(t, err)
	require.Equal(t, "ok\n", out)
	var usage usageError
	_, err = check("--listen-prot=1")
	require.ErrorContains(t, err, "did you mean --listen-port")
	require.ErrorAs(t, err, &usage)
	for want, args := range map[string][]string{
		"sealing-key-file is not set":    nil,
		"server.pem holds no certifi":    {"--sealing-key-file", key, "--tls-pemfile", pem},
		"authentication-plugins: ":       {"--sealing-key-file", key, "--authentication-plugin=htpbasicauth"},
		"must not be set together":       {"--tls-pemfile", pem, "--tls-keyfile", pem},
		"commissaire.conf: no such file": {"-c", filepath.Join(dir, "commissaire.conf"), "--no-config-file=false"},
	} {
		out, err := check(args...)
		require.ErrorContains(t, err, want)
		require.NotErrorAs(t, err, &usage, want)
		require.NotContains(t, out, "ok\n", want)
	}
}

// TestConfigCheckTellsAllThatIsWrong: each on a line of its own.
func TestConfigCheckTellsAllThatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, missing := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "missing")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "users.json"), []byte(`{"a": {"hash": "hunter2"}}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(`hello`), 0o600))
	require.NoError(t, os.WriteFile(file, []byte(`
log-level: loud
worker-slots: none
sealing-key-file: `+missing+`
database-url: postgres://u:hunter2@h:port/db
tls-pemfile: `+missing+`
tls-clientverifyfile: `+dir+`/ca.pem
users-file: `+missing+`
authentication-plugins:
- {name: httpbasicauth, filepath: `+dir+`/users.json}
- {name: htpbasicauth}
- {name: oidc, issuer: x}
`), 0o600))
	out, err := run(t, "", "config", "check", "-c", file)
	require.Error(t, err)
	require.Empty(t, out)
	require.NotContains(t, err.Error(), "hunter2")
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{
		"worker-slots: must be a whole number", "log-level: must be", "key file", "database address: ", "TLS certificate: ", "CAs of client certificates: ",
		"htpbasicauth: there is no such plug-in", "oidc: option client_id is needed; option issuer must be a URL",
		"users-file: users of " + missing + ": ", "authentication-plugins: users of " + dir + `/users.json: user "a": the hash is not bcrypt`,
	} {
		require.Greater(t, len(lines), i, want)
		require.Contains(t, lines[i], want)
	}
	require.Len(t, lines, 10)
}

// TestConfigCheckNamesTheDatabase changes the environment of the process, so it is
// not parallel.
func TestConfigCheckNamesTheDatabase(t *testing.T) {
	key := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(key))
	for name, value := range map[string]string{"PGHOST": "db.example", "PGPORT": "6432", "PGUSER": "u", "PGDATABASE": "d", "PGPASSWORD": "hunter2"} {
		t.Setenv(name, value)
	}
	out, err := run(t, "", "config", "check", "--no-config-file", "--sealing-key-file", key)
	require.NoError(t, err)
	require.Equal(t, "note: database-url is not set; by the PG* environment and its defaults Postgres is sought at "+
		`host db.example, port 6432, database "d", user "u". This check does not connect to it.`+"\nok\n", out)
	t.Setenv("PGPORT", "many")
	out, err = run(t, "", "config", "check", "--no-config-file", "--sealing-key-file", key)
	require.ErrorContains(t, err, "database address: ")
	require.Empty(t, out)
}
