package deploycheck

import (
	"path/filepath"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/stretchr/testify/require"
)

// TestCompose: what docker compose config does, by the library that it does it with.
func TestCompose(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for name, env := range map[string][]string{
		"as it is":   nil,
		"as in .env": {"COMMISSAIRE_VERSION=1.2.3", "COMMISSAIRE_COMMIT=abc", "COMMISSAIRE_UID=1000", "COMMISSAIRE_GID=1000", "API_LISTEN=0.0.0.0", "API_PORT=80", "TEMPORAL_UI_PORT=8080"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
				cli.WithWorkingDirectory(root), cli.WithEnv(env), cli.WithResolvedPaths(true))
			require.NoError(t, err)
			project, err := options.LoadProject(t.Context())
			require.NoError(t, err)
			require.Equal(t, "commissaire", project.Name)
			require.Len(t, project.Services, 7)
			for _, s := range project.Services {
				require.True(t, s.ReadOnly, s.Name)
			}
			version, commit := "0.1.0-dev", "unknown"
			if env != nil {
				version, commit = "1.2.3", "abc"
			}
			for _, name := range []string{"migrate", "api", "worker"} {
				args := project.Services[name].Build.Args
				require.Equal(t, []string{version, commit}, []string{*args["VERSION"], *args["COMMIT"]}, name)
			}
		})
	}
}
