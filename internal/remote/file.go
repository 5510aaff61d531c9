package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"commissaire/internal/secret"
)

// maxFile bounds a file to write, in bytes.
const maxFile = 1 << 20

// File is a regular file of a host, as it is or as it shall be.
type File struct {
	Path    string      // absolute
	Mode    fs.FileMode // permissions alone
	Owner   string      // user:group; "" of a file that was read without root
	Content secret.Text
	Secret  bool // no old one that we wrote may stay, for WriteFile
}

// FileFound is what is at a path.
type FileFound struct {
	Exists bool
	File          // as far as there is one
	Sum    string // SHA-256 of its content in hex, "" where the host has no sha256sum
	Cut    bool   // only the first 64 KiB of its content are here
	Other  string // what it is when it is no regular file, "" else
}

// Holds says whether this is the content of the file. Of a file that was cut nobody
// knows without its Sum, which counts as no.
func (f FileFound) Holds(content secret.Text) bool {
	if f.Sum == "" {
		return f.Exists && !f.Cut && f.Content.Equal(content)
	}
	sum := sha256.Sum256(content.Reveal())
	return f.Sum == hex.EncodeToString(sum[:])
}

// ReadFile looks at a path of the host. That nothing is there is no error.
func (c *Conn) ReadFile(ctx context.Context, name string) (FileFound, error) {
	found := FileFound{File: File{Path: name}}
	if err := checkPath(name); err != nil {
		return found, err
	}
	r, err := c.fileScript(ctx, `c_look "$1"`, name)
	if err != nil {
		return found, err
	}
	head, content, _ := strings.Cut(string(r.Stdout), "\n")
	words := strings.Fields(head)
	switch {
	case head == "absent":
		return found, nil
	case head == "link":
		found.Other = "a symbolic link"
		return found, nil
	case head == "other":
		found.Other = "no regular file"
		return found, nil
	case len(words) != 4 || words[0] != "file" || words[3] != "-" && !sumPattern.MatchString(words[3]):
		return found, c.fail(HostUnusable, fmt.Errorf("the host does not say what %s is", name))
	}
	mode, err := strconv.ParseUint(words[1], 8, 32)
	if err != nil {
		return found, c.fail(HostUnusable, fmt.Errorf("the host does not say which mode %s has", name))
	}
	found.Exists, found.Mode, found.Cut = true, fs.FileMode(mode), r.Truncated
	if words[2] != "-" {
		found.Owner = words[2]
	}
	if words[3] != "-" {
		found.Sum = words[3]
	}
	found.Content = secret.NewText([]byte(content))
	return found, nil
}

var sumPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// WriteFile puts a file in place: whoever reads it finds the old one or the new one,
// also when the host dies over it. Folders on the way are made with mode 0755. marks
// are noted before, each for RemoveMark. With backup the file that is there gets a
// second name, Path and ".before-commissaire", unless something has that name already
// or the file is what we once wrote. Where the host has no sha256sum, and of secrets,
// all that came after our first one counts as such.
// What cannot be done on this host, or anywhere, is a *FileError.
func (c *Conn) WriteFile(ctx context.Context, f File, backup bool, marks ...string) error {
	content := f.Content.Reveal()
	switch {
	case len(content) > maxFile:
		return &FileError{fmt.Sprintf("%s is larger than %d bytes", f.Path, maxFile)}
	case strings.ContainsRune(string(content), 0):
		return &FileError{fmt.Sprintf("the content of %s holds a NUL byte", f.Path)}
	case f.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("%s cannot have the mode %s", f.Path, f.Mode)
	}
	if err := errors.Join(checkPath(f.Path), checkMarks(marks)); err != nil {
		return err
	}
	keep := ""
	switch {
	case backup && f.Secret:
		keep = "secret"
	case backup:
		keep = "backup"
	}
	script := "c_content=" + Quote(string(content)) + "\n" + `c_write "$@"`
	_, err := c.fileScript(ctx, script, append([]string{
		f.Path, strconv.FormatUint(uint64(f.Mode), 8), f.Owner, strconv.Itoa(len(content)), keep,
	}, marks...)...)
	return err
}

// Marks lists what WriteFile has noted and nobody has taken back.
func (c *Conn) Marks(ctx context.Context) ([]string, error) {
	r, err := c.fileScript(ctx, "c_marked_services")
	return strings.Fields(string(r.Stdout)), err
}

// RemoveMark takes a mark back. That there is none is no error.
func (c *Conn) RemoveMark(ctx context.Context, mark string) error {
	if err := checkMarks([]string{mark}); err != nil {
		return err
	}
	_, err := c.fileScript(ctx, `c_unmark "$1"`, mark)
	return err
}

// FileError says why a file cannot be read or written, by the host's words or ours.
type FileError struct{ Said string }

func (e *FileError) Error() string { return e.Said }

// fileScript runs a script of files, which fails by its exit code.
func (c *Conn) fileScript(ctx context.Context, script string, args ...string) (Result, error) {
	r, err := c.Script(ctx, hostLibrary+fileScript+"c_files\n"+script+"\n", args...)
	if err == nil && r.ExitCode != 0 {
		err = &FileError{Said: strings.Join(strings.Fields(strings.ToValidUTF8(string(r.Stderr), "?")), " ")}
	}
	return r, err
}

func checkPath(name string) error {
	if !path.IsAbs(name) || path.Clean(name) != name || name == "/" {
		return fmt.Errorf("%q is no absolute path of a file", name)
	}
	return checkWords([]string{name})
}

// markName holds names of services as systemd knows them, and those that begin with a dot.
var markName = regexp.MustCompile(`^[A-Za-z0-9.@_:\\-]{1,200}$`)

func checkMarks(marks []string) error {
	for _, mark := range marks {
		if !markName.MatchString(mark) || strings.Trim(mark, ".") == "" {
			return fmt.Errorf("%q is no name of a service", mark)
		}
	}
	return nil
}
