// Package overlay builds the product with some lines of its source changed, as
// another release of it would have them, without touching the source.
package overlay

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Edit replaces the one place in a file where old stands by new. File is a path
// below the module's root.
type Edit struct{ File, Old, New string }

// Revision gives the product another revision of its workflows.
func Revision(have, want int) Edit {
	line := func(n int) string { return fmt.Sprintf("const Revision = %d\n", n) }
	return Edit{File: "workflows/revision.go", Old: line(have), New: line(want)}
}

// Build builds commissaire from the module at root, with the edits, as the file
// out. It needs the go command. An edit that does not fit is an error.
func Build(ctx context.Context, root, out string, edits ...Edit) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	texts := map[string]string{}
	for _, e := range edits {
		path := filepath.Join(root, e.File)
		text, ok := texts[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.Old); n != 1 {
			return fmt.Errorf("%s has %d places that read %q; an edit needs one", e.File, n, e.Old)
		}
		texts[path] = strings.Replace(text, e.Old, e.New, 1)
	}
	replace := map[string]string{}
	for path, text := range texts {
		file := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		replace[path] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return err
	}
	// Without the tables of a debugger it links in half the time.
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-overlay", list, "-o", out, "./cmd/commissaire")
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build commissaire with edits: %w\n%s", err, text)
	}
	return nil
}
