package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
)

// TestDefaultDatabase changes the environment of the process, so it is not parallel.
func TestDefaultDatabase(t *testing.T) {
	for _, e := range os.Environ() {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, value) // put back in the end
			require.NoError(t, os.Unsetenv(name))
		}
	}
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"PGHOST": "/run/x", "PGUSER": "u", "PGPASSWORD": "hunter2"}, `socket /run/x/.s.PGSQL.5432, database "u", user "u"`},
		{map[string]string{"PGHOST": "db.example", "PGPORT": "6432", "PGDATABASE": "d"}, `host db.example, port 6432, database "d", user "u"`},
		{map[string]string{"PGHOST": "a,::1", "PGPORT": "1,2"}, `host a, port 1 or host ::1, port 2, database "d", user "u"`},
	} {
		for name, value := range c.env {
			t.Setenv(name, value)
		}
		text, err := config.DefaultDatabase()
		require.NoError(t, err)
		require.Equal(t, c.want, text)
	}
	t.Setenv("PGPORT", "many")
	_, err := config.DefaultDatabase()
	require.ErrorContains(t, err, "PG* environment: ")
	require.NotContains(t, err.Error(), "hunter2")
}

// TestAllThatIsWrongIsTold: with the settings as far as they can be used.
func TestAllThatIsWrongIsTold(t *testing.T) {
	t.Parallel()
	file := write(t, "c.conf", `{"listen-prot": 1, "debug": "yes", "task-queue": "q", "self-auths": ["a"]}`)
	c, err := load(t, []string{"-c", file, "--log-level=loud", "--worker-slots=x", "--authentication-plugin=x:y"}, []string{"COMMISSAIRE_LOG_LEVL=info", "COMMISSAIRE_TRUSTED_PROXIES=["})
	require.ErrorContains(t, err, "environment: unknown COMMISSAIRE_LOG_LEVL")
	for _, want := range []string{
		"environment COMMISSAIRE_TRUSTED_PROXIES: not JSON", "flag --authentication-plugin: ", "configuration file " + file + `: unknown member "listen-prot"`,
		"file " + file + ": debug: must be true or false", "flag --worker-slots: worker-slots: must be a whole number", "log-level: must be", `self-auths: "a" is not a path`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.Len(t, strings.Split(err.Error(), "\n"), 8, "each has a line of its own, and none is told twice")
	require.Equal(t, "q", c.TaskQueue)
	require.Equal(t, 200, c.WorkerSlots, "what cannot be used is as if it were not given")

	c, err = load(t, []string{"-c", "/nonexistent/c.conf", "--authentication-plugin=x:y"}, nil)
	require.Nil(t, c, "without the file nothing can be said of the settings")
	require.ErrorContains(t, err, "no such file")
	require.ErrorContains(t, err, "flag --authentication-plugin: ")
}
