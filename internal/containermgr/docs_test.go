package containermgr

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
)

// documented is the part of docs/kubernetes.md between a mark and the next end.
func documented(t *testing.T, mark string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/kubernetes.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(text), "<!-- "+mark+" -->\n")
	require.True(t, ok, mark)
	part, _, ok := strings.Cut(rest, "<!-- end -->\n")
	require.True(t, ok, mark)
	return part
}

// firstCells are the names in the first column of a table.
func firstCells(table string) (names []string) {
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		names = append(names, row[1])
	}
	return names
}

func TestDocsGiveTheRights(t *testing.T) {
	t.Parallel()
	text := strings.TrimSuffix(strings.TrimPrefix(documented(t, "rules"), "```yaml\n"), "```\n")
	var role rbacv1.ClusterRole
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &role))
	require.Equal(t, Rules(), role.Rules)
}

func TestDocsExplainEveryOption(t *testing.T) {
	t.Parallel()
	_, err := options.Parse(map[string]any{"none": true}) // which lists them
	require.Error(t, err)
	_, all, ok := strings.Cut(err.Error(), "there are ")
	require.True(t, ok)
	require.ElementsMatch(t, strings.Split(all, ", "), firstCells(documented(t, "options")))
}

func TestDocsExplainTheWholeDrain(t *testing.T) {
	t.Parallel()
	var members []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[fleet.Drain]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		members = append(members, name)
	}
	require.Equal(t, members, firstCells(documented(t, "drain")))
}

func TestDocsExplainEveryCause(t *testing.T) {
	t.Parallel()
	require.Equal(t, causes(t), firstCells(documented(t, "causes")))
}

// causes reads the constants that findings name, in their order.
func causes(t *testing.T) (all []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "doctor.go", nil, parser.ParseComments)
	require.NoError(t, err)
	for _, d := range file.Decls {
		block, ok := d.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST || !strings.HasPrefix(block.Doc.Text(), "Causes of findings") {
			continue
		}
		for _, spec := range block.Specs {
			value, err := strconv.Unquote(spec.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			all = append(all, value)
		}
	}
	require.NotEmpty(t, all)
	return all
}
