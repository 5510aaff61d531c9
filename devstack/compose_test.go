// Package devstack_test checks what is shipped to run Commissaire elsewhere
// against the settings and versions that this repository knows.
package devstack_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"commissaire/internal/config"
)

// service is what the tests need of a service in docker-compose.yml.
type service struct {
	Build         any
	Image         string
	User          string
	ContainerName string `yaml:"container_name"`
	ReadOnly      bool   `yaml:"read_only"`
	Privileged    bool
	CapAdd        []string `yaml:"cap_add"`
	CapDrop       []string `yaml:"cap_drop"`
	SecurityOpt   []string `yaml:"security_opt"`
	Command       []string
	Environment   map[string]string
	Ports         []string
	Networks      []string
	Volumes       []string
	Secrets       []string
	Configs       []struct{ Source string }
	Restart       string
	HealthCheck   *struct{ Test []string }              `yaml:"healthcheck"`
	DependsOn     map[string]struct{ Condition string } `yaml:"depends_on"`
}

type compose struct {
	Services map[string]service
	Networks map[string]struct{ Internal bool }
	Volumes  map[string]any
	Secrets  map[string]struct{ File string }
	Configs  map[string]struct{ File string }
}

func load(t *testing.T) compose {
	t.Helper()
	var c compose
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &c))
	require.NotEmpty(t, c.Services)
	return c
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", name))
	require.NoError(t, err)
	return string(b)
}

// oneShot services end by themselves.
var oneShot = []string{"temporal-schema", "migrate"}

func TestComposeIsHardened(t *testing.T) {
	t.Parallel()
	c := load(t)
	pinned := regexp.MustCompile(`^[a-z/-]+:\d+\.\d+(\.\d+)?(-alpine)?$`)
	numeric := regexp.MustCompile(`^([1-9]\d*|\$\{COMMISSAIRE_UID:-65532\}):([1-9]\d*|\$\{COMMISSAIRE_GID:-65532\})$`)
	for name, s := range c.Services {
		require.True(t, s.ReadOnly, "%s: the root file system is read-only", name)
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		require.Empty(t, s.CapAdd, name)
		require.Contains(t, s.SecurityOpt, "no-new-privileges:true", name)
		require.False(t, s.Privileged, name)
		require.Regexp(t, numeric, s.User, "%s runs as an ordinary user", name)
		require.Empty(t, s.ContainerName, "%s: a name of its own would forbid a second one", name)
		if s.Build == nil {
			require.Regexp(t, pinned, s.Image, "%s: the image has a version", name)
		}
		if slices.Contains(oneShot, name) {
			require.Equal(t, "on-failure", s.Restart, name)
		} else {
			require.NotNil(t, s.HealthCheck, "%s has a health check", name)
		}
		for variable, value := range s.Environment {
			secret := regexp.MustCompile(`(PASSWORD|PWD|SECRET|TOKEN|KEY)$`).MatchString(variable)
			require.False(t, secret || strings.Contains(value, "postgres://"), "%s: %s belongs in a secret file", name, variable)
		}
	}
}

func TestComposePublishesAPIAndUIOnly(t *testing.T) {
	t.Parallel()
	c := load(t)
	require.True(t, c.Networks["inside"].Internal)
	for name, s := range c.Services {
		switch name {
		case "api":
			require.Equal(t, []string{"${API_LISTEN:-127.0.0.1}:${API_PORT:-8000}:8000"}, s.Ports)
		case "temporal-ui":
			require.Equal(t, []string{"127.0.0.1:${TEMPORAL_UI_PORT:-8233}:8080"}, s.Ports)
		case "worker": // reaches hosts, is reached by nobody
			require.Empty(t, s.Ports)
			require.Contains(t, s.Networks, "outside")
		default:
			require.Empty(t, s.Ports, name)
			require.Equal(t, []string{"inside"}, s.Networks, name)
		}
	}
}

func TestComposeIsWhole(t *testing.T) {
	t.Parallel()
	c := load(t)
	for name, s := range c.Services {
		for other, on := range s.DependsOn {
			want := "service_healthy"
			if slices.Contains(oneShot, other) {
				want = "service_completed_successfully"
			}
			require.Contains(t, c.Services, other, name)
			require.Equal(t, want, on.Condition, "%s depends on %s", name, other)
		}
		for _, n := range s.Networks {
			require.Contains(t, c.Networks, n, name)
		}
		for _, secret := range s.Secrets {
			require.Contains(t, c.Secrets, secret, name)
		}
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			require.Contains(t, c.Volumes, volume, name)
		}
		for _, source := range s.Configs {
			require.FileExists(t, filepath.Join("..", c.Configs[source.Source].File), name)
		}
		for _, value := range s.Environment {
			if secret, ok := strings.CutPrefix(value, "/run/secrets/"); ok {
				require.Contains(t, s.Secrets, secret, name)
			}
		}
	}
	script := read(t, "scripts/compose-init")
	for name, s := range c.Secrets {
		require.Contains(t, script, filepath.Base(s.File), "scripts/compose-init makes secret %s", name)
	}
}

// The product reads every setting that is given to it, and accepts them.
func TestComposeSettings(t *testing.T) {
	t.Parallel()
	for name, s := range load(t).Services {
		if s.Build == nil {
			continue
		}
		require.Len(t, s.Command, 1, name)
		var environ []string
		for variable, value := range s.Environment {
			environ = append(environ, variable+"="+value)
		}
		flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
		config.Flags(flags)
		c, err := config.Load(flags, environ, strings.NewReader(""))
		require.NoError(t, err, name)
		require.Equal(t, "temporal:7233", c.TemporalAddress, name)
		if name == "api" {
			require.Equal(t, "0.0.0.0:8000", c.Listen())
		}
	}
}

// What production runs is what is tested here.
func TestVersionsAgree(t *testing.T) {
	t.Parallel()
	c, module := load(t), read(t, "devstack/go.mod")
	version := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindStringSubmatch(module)
		require.NotNil(t, found, pattern)
		return found[1]
	}
	server := version(`go\.temporal\.io/server v(\S+)`)
	require.Equal(t, "temporalio/server:"+server, c.Services["temporal"].Image)
	require.Equal(t, "temporalio/admin-tools:"+server, c.Services["temporal-schema"].Image)
	require.Equal(t, "temporalio/ui:"+version(`temporalio/ui-server/v2 v(\S+)`), c.Services["temporal-ui"].Image)
	require.Contains(t, read(t, "Dockerfile"), "FROM golang:"+version(`(?m)^go (\S+)$`)+"-")
}

func TestImageRunsAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	file := read(t, "Dockerfile")
	_, final, ok := strings.Cut(file, "\nFROM scratch\n")
	require.True(t, ok)
	require.Contains(t, final, "\nUSER 65532:65532\n")
	require.NotContains(t, final, "\nRUN ")
	ignored := read(t, ".dockerignore")
	for line := range strings.Lines(ignored) {
		if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			_, err := os.Stat(filepath.Join("..", dir))
			require.NoError(t, err, ".dockerignore names what is there")
		}
	}
	// Every package of the product is in the image's build.
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == ".." {
			return err
		}
		name, _ := filepath.Rel("..", path)
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
			return fs.SkipDir // a module of its own, which the product does not need
		}
		if m, _ := filepath.Glob(filepath.Join(path, "*.go")); len(m) > 0 && !strings.HasPrefix(name, "devstack") {
			top, _, _ := strings.Cut(name, string(filepath.Separator))
			require.Contains(t, ignored, "\n!"+top+"\n", "%s is needed to build the image", name)
		}
		if strings.HasPrefix(d.Name(), ".") || d.Name() == "devstack" {
			return fs.SkipDir
		}
		return nil
	}))
}

func TestUnits(t *testing.T) {
	t.Parallel()
	known := []string{}
	for _, s := range config.Settings() {
		known = append(known, s.Env)
	}
	units, err := filepath.Glob("../deploy/systemd/*.service")
	require.NoError(t, err)
	require.Len(t, units, 3)
	for _, unit := range units {
		name := filepath.Base(unit)
		text := read(t, filepath.Join("deploy/systemd", name))
		for _, found := range regexp.MustCompile(`(?m)^Environment=(\w+)=`).FindAllStringSubmatch(text, -1) {
			require.Contains(t, known, found[1], name)
		}
		for _, line := range []string{"User=commissaire", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "SystemCallFilter=@system-service"} {
			require.Contains(t, text, "\n"+line+"\n", name)
		}
		role := strings.TrimSuffix(strings.TrimPrefix(name, "commissaire-"), ".service")
		role = strings.TrimSuffix(role, "@") // several of them run on a machine
		require.Contains(t, text, "\nExecStart=/usr/bin/commissaire "+role+"\n")
	}
}
