// Package version says which build this is.
package version

import "runtime/debug"

// Version is set when a release is built (-ldflags "-X commissaire/internal/version.Version=1.2.3").
var Version = "0.1.0-dev"

// commit is set by make build, for builds without Go's own record.
var commit string

// Commit gives the commit that was built, as far as the build recorded it.
func Commit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
