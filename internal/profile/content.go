package profile

import (
	"io/fs"

	"commissaire/internal/secret"
)

// Content is what a profile puts on a host, in the order of the fields. All of it may
// be done again, and changes nothing then.
type Content struct {
	// Repositories are commands without which Packages cannot be found.
	Repositories [][]string
	// Packages come in groups, one after the other.
	Packages [][]string
	// Files come after all packages, which may bring files of the same names.
	Files []File
	// Services are enabled and started, one after the other. Before that, those that
	// a changed file names in Restarts are restarted, each once: those that stand here
	// in this order, all others first, in the order of Files.
	Services []string
	// Notes are for the operator: what the host needs and the profile does not do.
	Notes []string
}

// File is a file as it shall be on the host, below folders of mode 0755.
type File struct {
	Path     string // absolute
	Mode     fs.FileMode
	Owner    string // as chown(1) takes it
	Content  secret.Text
	Secret   bool     // not even a diff of Content may be shown
	Conceal  bool     // what was there before may hold somebody's passwords: no diff of that
	Unit     bool     // the service manager reads it: hostos.ReloadServices when it changed
	Restarts []string // services that read it when they start
}

// owner of every file.
const owner = "root:root"

// public is a file that everybody on the host may read.
func public(path, content string, restarts ...string) File {
	return File{Path: path, Mode: 0o644, Owner: owner, Content: secret.NewText([]byte(content)), Restarts: restarts}
}

// concealing is a public file in whose place one with a secret may be.
func concealing(f File) File {
	f.Conceal = true
	return f
}

// private is a file with a secret in it.
func private(path string, content []byte, restarts ...string) File {
	return File{Path: path, Mode: 0o600, Owner: owner, Content: secret.NewText(content), Secret: true, Restarts: restarts}
}
