package hostos_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, path)
}

// verb shows what a method of a family answers.
type verb struct {
	method string
	ask    func(hostos.Family) ([]string, error)
}

func plain(method string, ask func(hostos.Family) []string) verb {
	return verb{method, func(f hostos.Family) ([]string, error) { return ask(f), nil }}
}

// verbs has every method of hostos.Family that answers with a command.
var verbs = []verb{
	plain("Upgrade", hostos.Family.Upgrade),
	plain("Leftover", hostos.Family.Leftover),
	plain("RebootNeeded", hostos.Family.RebootNeeded),
	plain("Deployments", hostos.Family.Deployments),
	{"Deploy", func(f hostos.Family) ([]string, error) {
		return f.Deploy("43", hostos.Deployments{Booted: hostos.Deployment{Image: "quay.io/os:42"}})
	}},
	{"Rollback", hostos.Family.Rollback},
	plain("Installed", func(f hostos.Family) []string { return f.Installed([]string{"podman", "cri-o"}) }),
	{"Install", func(f hostos.Family) ([]string, error) { return f.Install([]string{"podman", "cri-o"}) }},
}

// others are the methods without a command, or with those of a system, which are in
// TestSystems.
var others = []string{"Name", "Stages", "EnableRepositories", "ParseDeployments", "ParseLeftover", "ParseRebootNeeded"}

// TestCommands: what each family runs for each verb, word by word. A script stands as
// the names of the files that it is made of.
func TestCommands(t *testing.T) {
	t.Parallel()
	contract := reflect.TypeFor[hostos.Family]()
	for i := range contract.NumMethod() {
		method := contract.Method(i)
		if method.IsExported() && !slices.Contains(others, method.Name) {
			require.True(t, slices.ContainsFunc(verbs, func(v verb) bool { return v.method == method.Name }), "the verb %s has no row in verbs", method.Name)
		}
	}
	for _, f := range hostos.Families() {
		var b strings.Builder
		for _, v := range verbs {
			argv, err := v.ask(f)
			switch {
			case err != nil:
				fmt.Fprintf(&b, "%s: refused: %v\n", v.method, err)
			case argv == nil:
				fmt.Fprintf(&b, "%s: nothing\n", v.method)
			default:
				fmt.Fprintf(&b, "%s: %s\n", v.method, words(t, argv))
			}
		}
		golden(t, "testdata/argv/"+f.Name()+".txt", b.String())
	}
}

// TestCommonCommands: the verbs that are the same everywhere.
func TestCommonCommands(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, c := range []struct {
		verb string
		argv []string
	}{
		{"Identify", hostos.Identify()},
		{"CanReboot", hostos.CanReboot()},
		{"Reboot", hostos.Reboot()},
		{"SystemState", hostos.SystemState()},
		{"EnableService", hostos.EnableService("kubelet")},
		{"StartService", hostos.StartService("kubelet")},
		{"RestartService", hostos.RestartService("kubelet")},
		{"ReloadServices", hostos.ReloadServices()},
		{"ServiceState", hostos.ServiceState("kubelet")},
		{"ServiceState", hostos.ServiceState("podman.socket")},
	} {
		fmt.Fprintf(&b, "%s: %s\n", c.verb, words(t, c.argv))
	}
	golden(t, "testdata/argv/common.txt", b.String())
}

// words prints a command with its script by the names of files.
func words(t *testing.T, argv []string) string {
	t.Helper()
	shown := slices.Clone(argv)
	if len(argv) > 2 && argv[0] == "sh" && strings.Contains(argv[2], "\n") {
		shown[2] = "{" + strings.Join(filesOf(t, argv[2]), " ") + "}"
	}
	return strings.Join(shown, " ")
}

func filesOf(t *testing.T, script string) (names []string) {
	t.Helper()
	files, err := filepath.Glob("script/*.sh")
	require.NoError(t, err)
	for script != "" {
		i := slices.IndexFunc(files, func(file string) bool {
			content, err := os.ReadFile(file)
			return err == nil && strings.HasPrefix(script, string(content))
		})
		require.GreaterOrEqual(t, i, 0, "a script is not made of files: %s", script)
		content, err := os.ReadFile(files[i])
		require.NoError(t, err)
		names = append(names, filepath.Base(files[i]))
		script = strings.TrimPrefix(script, string(content))
	}
	return names
}
