package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"

	"commissaire/internal/profile"
	"commissaire/internal/remote"
	"commissaire/workflows"
)

// Configure makes the files of the profile be as they should. Each is compared first,
// and put in place whole; what has to read it again is noted on the host before, for
// Services. So repeating this changes what is still to change.
func (a *Hosts) Configure(ctx context.Context, in workflows.ContentStep) (workflows.Nothing, error) {
	return nothing(a.run(ctx, in.HostStep, func(ctx context.Context, s *stepRun) error {
		c, err := a.content(ctx, s, in.Profile)
		if err != nil {
			return err
		}
		changed := 0
		for _, f := range c.Files {
			put, err := s.put(ctx, f)
			if err != nil {
				return err
			}
			if put {
				changed++
			}
		}
		switch {
		case len(c.Files) == 0:
			s.note = "the profile has no files for this host"
		case changed > 0:
			s.note = fmt.Sprintf("%d of %s changed", changed, fileCount(len(c.Files)))
		case len(c.Files) == 1:
			s.note = "1 file is as it should be"
		default:
			s.note = fileCount(len(c.Files)) + " are as they should be"
		}
		lines := []string{s.note}
		for _, note := range c.Notes {
			lines = append(lines, "note: "+note)
		}
		return s.say(ctx, lines)
	}))
}

// put makes one file be as it should, and says whether it was not.
func (s *stepRun) put(ctx context.Context, f profile.File) (changed bool, err error) {
	want := remote.File{Path: f.Path, Mode: f.Mode, Owner: f.Owner, Content: f.Content, Secret: f.Secret}
	marks := slices.Clone(f.Restarts)
	if f.Unit {
		marks = append(marks, reloadMark)
	}
	err = s.contact(ctx, s.in.Unreachable, func(ctx context.Context, c *remote.Conn) error {
		found, err := c.ReadFile(ctx, f.Path)
		switch {
		case err != nil:
			return refusal(err, "%s cannot be read on the host", f.Path)
		case found.Other != "":
			return failed("%s is %s on the host, which is left alone; move it away, or choose another profile", f.Path, found.Other)
		case asItShould(found, want):
			return nil
		}
		if err := s.fence(ctx); err != nil {
			return err
		}
		if !changed { // said before it is done, since nobody could tell after that
			changed = true
			if err := s.say(ctx, difference(found, f)); err != nil {
				return err
			}
		}
		return refusal(c.WriteFile(ctx, want, !found.Holds(want.Content), marks...), "%s cannot be written on the host", f.Path)
	})
	return changed, err
}

func asItShould(found remote.FileFound, want remote.File) bool {
	return found.Holds(want.Content) && found.Mode == want.Mode && sameOwner(found, want.Owner)
}

// sameOwner takes an owner that is not known for the right one.
func sameOwner(found remote.FileFound, owner string) bool {
	return found.Owner == "" || found.Owner == owner
}

// difference tells people what changes in a file, without what is secret. That holds
// for what somebody else has put there, too: all who may read the record read this.
func difference(found remote.FileFound, want profile.File) (lines []string) {
	switch {
	case want.Secret && !found.Exists:
		return []string{want.Path + ": new; its content is not shown"}
	case found.Exists && found.Mode != want.Mode:
		lines = append(lines, fmt.Sprintf("%s: mode %04o becomes %04o", want.Path, found.Mode, want.Mode))
	}
	if found.Exists && !sameOwner(found, want.Owner) {
		lines = append(lines, fmt.Sprintf("%s: owner %s becomes %s", want.Path, printable(found.Owner), want.Owner))
	}
	switch {
	case found.Holds(want.Content):
		return lines
	case want.Secret:
		return append(lines, want.Path+": changed; its content is not shown")
	case found.Exists && want.Conceal:
		return append(lines, want.Path+": changed; what was there may hold secrets and is not shown")
	case found.Exists && found.Mode&0o004 == 0:
		return append(lines, want.Path+": changed; what was there is closed to others and is not shown")
	case found.Cut:
		return append(lines, want.Path+": changed; what was there is too long to be shown")
	}
	d := difflib.UnifiedDiff{
		A: splitLines(string(found.Content.Reveal())), B: splitLines(string(want.Content.Reveal())),
		FromFile: want.Path, ToFile: want.Path, Context: 3,
	}
	if !found.Exists {
		d.FromFile = "/dev/null"
	}
	// It fails only where it cannot write, and it writes into memory.
	text, _ := difflib.GetUnifiedDiffString(d)
	return append(lines, strings.TrimSuffix(text, "\n"))
}

// splitLines keeps the line breaks. A last line without one is told by a line of diff(1).
func splitLines(s string) []string {
	lines := strings.SplitAfter(s, "\n")
	last := len(lines) - 1
	if lines[last] == "" {
		return lines[:last]
	}
	lines[last] += "\n\\ No newline at end of file\n"
	return lines
}

// fileCount is so many files.
func fileCount(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
