package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
)

func load(t *testing.T, args, environ []string) (*config.Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Flags(fs)
	require.NoError(t, fs.Parse(args))
	return config.Load(fs, environ)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := write(t, "c.conf", `{"listen-port": 1, "task_queue": "file", "log-level": "warn", "heartbeat-timeout": "3s"}`)
	c, err := load(t, []string{"--config-file", file, "--listen-port=3"}, []string{"COMMISSAIRE_LISTEN_PORT=2", "COMMISSAIRE_TASK_QUEUE=env", "COMMISSAIRE_RUN=/x", "PATH=/bin"})
	require.NoError(t, err)
	require.Equal(t, 3, c.ListenPort, "flag before environment and file")
	require.Equal(t, "env", c.TaskQueue, "environment before file")
	require.Equal(t, "warn", c.LogLevel, "file before default")
	require.Equal(t, 3*time.Second, c.HeartbeatTimeout)
	require.Equal(t, "json", c.LogFormat, "default")

	yaml := write(t, "c.yaml", "listen-port: 7\n")
	c, err = load(t, nil, []string{"COMMISSAIRE_CONFIG_FILE=" + yaml})
	require.NoError(t, err)
	require.Equal(t, 7, c.ListenPort)
}

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	c, err := load(t, nil, nil)
	require.NoError(t, err)
	require.Equal(t, config.Defaults(), c)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args, env []string
		want      string
	}{
		"unknown member":      {args: []string{"-c", write(t, "c.conf", `{"listen-prot": 1}`)}, want: "did you mean listen-port?"},
		"unknown variable":    {env: []string{"COMMISSAIRE_LOG_LEVL=info"}, want: "did you mean COMMISSAIRE_LOG_LEVEL?"},
		"missing file":        {args: []string{"-c", "/nonexistent/c.conf"}, want: "no such file"},
		"not an object":       {args: []string{"-c", write(t, "c.conf", `[]`)}, want: "configuration file"},
		"bad level":           {args: []string{"--log-level=loud"}, want: "log-level: must be"},
		"bad duration":        {args: []string{"--heartbeat-timeout=soon"}, want: "invalid duration"},
		"too short":           {args: []string{"--heartbeat-timeout=1ms"}, want: "heartbeat-timeout: must be between"},
		"bad port":            {args: []string{"--listen-port=70000"}, want: "listen-port: must be between"},
		"password in argv":    {args: []string{"--database-url=postgres://u:secret@h/db"}, want: "holds a password"},
		"password in keyword": {args: []string{"--database-url=host=h password=secret"}, want: "holds a password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tc.args, tc.env)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "secret@")
		})
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
