package workflows_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/workflows"
)

var update = flag.Bool("update", false, "write testdata/revision.txt anew")

// TestRevision makes whoever changes this package think about operations that
// are under way: testdata/revision.txt holds the revision and a digest of the
// code. Comments and layout do not count.
func TestRevision(t *testing.T) {
	t.Parallel()
	const file = "testdata/revision.txt"
	is := fmt.Sprintf("%d %x\n", workflows.Revision, digest(t))
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(is), 0o644))
	}
	was, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(was), is, "the code of this package has changed. Where a history of the old code could replay differently, "+
		"guard the change by workflow.GetVersion, add one to Revision and record its histories (make histories). Then, or when it could not, "+
		"run this test with -update")
}

// digest is over the tokens of the package's code, file by file.
func digest(t *testing.T) []byte {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	sum := sha256.New()
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		set := token.NewFileSet()
		var s scanner.Scanner
		s.Init(set.AddFile(path, -1, len(text)), text, nil, 0)
		fmt.Fprintln(sum, path)
		for {
			_, tok, literal := s.Scan()
			if tok == token.EOF {
				break
			}
			if tok != token.SEMICOLON { // some are written by the layout
				fmt.Fprintln(sum, tok, literal)
			}
		}
	}
	return sum.Sum(nil)
}
