package api

import (
	"bytes"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"commissaire/api/docs"
)

func loadDocument(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(document)
	require.NoError(t, err)
	return doc
}

func TestDocumentAndItsExamplesAreValid(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	require.NoError(t, doc.Validate(t.Context(), openapi3.EnableExamplesValidation()))
	for name, schema := range doc.Components.Schemas {
		if schema.Value.Type.Is("object") && len(schema.Value.Properties) > 4 {
			require.NotNil(t, schema.Value.Example, "schema %s has no example", name)
		}
	}
}

func TestEveryRouteIsInTheDocumentAndServed(t *testing.T) {
	t.Parallel()
	documented := slices.Sorted(maps.Keys(mustLoad(document)))
	var served []string
	for _, r := range routes(Deps{Metrics: prometheus.NewRegistry()}).Routes() {
		served = append(served, r.Method+" "+r.Path)
	}
	slices.Sort(served)
	require.Equal(t, documented, served)
}

func TestOpenPathsAreThoseOfTheDocument(t *testing.T) {
	t.Parallel()
	for path, item := range loadDocument(t).Paths.Map() {
		for method, op := range item.Operations() {
			open := op.Security != nil && len(*op.Security) == 0
			require.Equal(t, open, isOpen(path), "%s %s", method, path)
			require.Equal(t, open, isOpen(strings.TrimSuffix(path, "/")+"/"), "%s %s/", method, path)
		}
	}
}

func TestOperationsAreDescribed(t *testing.T) {
	t.Parallel()
	ids := map[string]string{}
	for path, item := range loadDocument(t).Paths.Map() {
		for method, op := range item.Operations() {
			where := method + " " + path
			require.NotEmpty(t, op.Summary, where)
			require.Len(t, op.Tags, 1, where)
			require.Empty(t, ids[op.OperationID], "operationId %s is there twice", op.OperationID)
			ids[op.OperationID] = where
			if strings.HasPrefix(path, "/api/") {
				require.NotNil(t, op.Responses.Default(), "%s does not say how it fails", where)
			}
		}
	}
}

func TestEveryProblemHasAPage(t *testing.T) {
	t.Parallel()
	for kind := range statusOf {
		require.NotEmpty(t, docs.ProblemTitle(string(kind)), kind)
		_, ok := docs.ProblemText(strings.TrimPrefix(docs.ProblemURL(string(kind)), "/docs/problems/"))
		require.True(t, ok, kind)
	}
}

// TestGeneratedCodeIsCurrent generates again and compares. It needs the tool's
// source, which the module cache holds after the first build.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	t.Parallel()
	fresh := filepath.Join(t.TempDir(), "api.gen.go")
	config, err := os.ReadFile("gen/config.yaml")
	require.NoError(t, err)
	elsewhere := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(elsewhere, bytes.Replace(config, []byte("output: api.gen.go"), []byte("output: "+fresh), 1), 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=../../tools/go.mod", "oapi-codegen",
		"-config", elsewhere, "../openapi.yaml")
	cmd.Dir = "gen"
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), `Get "https://`) || strings.Contains(string(out), "dial tcp") || strings.Contains(string(out), "module lookup disabled") {
			t.Skipf("oapi-codegen is not in the module cache and cannot be fetched: %s", out)
		}
		t.Fatalf("oapi-codegen: %v\n%s", err, out)
	}
	want, err := os.ReadFile(fresh)
	require.NoError(t, err)
	have, err := os.ReadFile("gen/api.gen.go")
	require.NoError(t, err)
	require.True(t, string(want) == string(have), "api/gen is out of date: run go generate ./api/gen")
}

func TestNewHTTPServerHasAllTimeouts(t *testing.T) {
	t.Parallel()
	s := NewHTTPServer("127.0.0.1:0", http.NotFoundHandler(), discard)
	require.NotZero(t, s.ReadHeaderTimeout)
	require.NotZero(t, s.ReadTimeout)
	require.NotZero(t, s.WriteTimeout)
	require.NotZero(t, s.IdleTimeout)
	require.NotZero(t, s.MaxHeaderBytes)
	require.Greater(t, s.WriteTimeout, requestTimeout, "an answer after the deadline must still get out")
}
