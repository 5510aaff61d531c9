// Package hostsource asks others about hosts: an inventory over HTTP, or one of Ansible.
//
// Which sources there are stands in the settings only, since one of them runs a program:
// nobody who may use the API can choose which. Only workers ask.
package hostsource

import (
	"context"

	"commissaire/internal/fleet"
)

// Source is one that can be asked.
type Source interface {
	// Fetch gives what the source says now, by the address of the host as
	// fleet.ParseAddress gives it. It ends within the timeout of the source. An *Error says
	// what was wrong; a source says all or nothing.
	Fetch(ctx context.Context) (map[string]fleet.SourceFacts, error)
}

// MaxAnswer bounds what a source may say, in bytes. It is enough for 100,000 hosts.
const MaxAnswer = 32 << 20

// Error says why a source was of no use, in one sentence that may be shown: it holds no
// secret and nothing that the source printed.
type Error struct {
	Reason string
	// Passes: it may be better the next time. Otherwise somebody has to mend something.
	Passes bool
	// Said is what a program printed to its standard error at the end, for the log alone.
	Said string
}

func (e *Error) Error() string { return e.Reason }
