package worker_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	sdk "go.temporal.io/sdk/worker"

	"commissaire/activities"
	"commissaire/worker"
)

// recording is a registry that only remembers.
type recording struct {
	sdk.Registry
	workflows, activities []string
}

func (r *recording) RegisterWorkflow(w any) {
	name := runtime.FuncForPC(reflect.ValueOf(w).Pointer()).Name()
	r.workflows = append(r.workflows, name[strings.LastIndexByte(name, '.')+1:])
}

func (r *recording) RegisterActivityWithOptions(_ any, o activity.RegisterOptions) {
	r.activities = append(r.activities, o.Name)
}

// A step that nobody bound would be found out only by an operation that never
// ends.
func TestEverythingIsBound(t *testing.T) {
	t.Parallel()
	var r recording
	worker.Register(&r, new(activities.Record), new(activities.Hosts), new(activities.Nodes), new(activities.Watch), new(activities.Sources), new(activities.Commands))
	worker.RegisterPages(&r, new(activities.Commands))
	workflows, steps := declared(t)
	require.NotEmpty(t, workflows)
	require.NotEmpty(t, steps)
	require.ElementsMatch(t, workflows, r.workflows)
	require.ElementsMatch(t, steps, r.activities)
	slices.Sort(steps)
	require.Equal(t, slices.Compact(slices.Clone(steps)), steps, "every step has a name of its own")
}

// declared reads from the source of package workflows, since a program cannot
// list its variables: every Step[…]{"name"}, and every exported function of a
// workflow's form that takes one input.
func declared(t *testing.T) (workflows, steps []string) {
	t.Helper()
	files, err := filepath.Glob("../workflows/*.go")
	require.NoError(t, err)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.IsExported() && len(n.Type.Params.List) == 2 && isSelector(n.Type.Params.List[0].Type, "workflow", "Context") {
					workflows = append(workflows, n.Name.Name)
				}
			case *ast.CompositeLit:
				generic, ok := n.Type.(*ast.IndexListExpr)
				if !ok {
					break
				}
				if name, ok := generic.X.(*ast.Ident); !ok || name.Name != "Step" {
					break
				}
				require.Len(t, n.Elts, 1, "a step has its name only")
				name, err := strconv.Unquote(n.Elts[0].(*ast.BasicLit).Value)
				require.NoError(t, err)
				steps = append(steps, name)
			}
			return true
		})
	}
	return workflows, steps
}

func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg && s.Sel.Name == name
}
