package hostos

import "commissaire/internal/fleet"

// NamedCommand is one command of an operation on a host.
type NamedCommand struct {
	Step      string   // as the record names it
	Argv      []string // nil when the step runs no command
	Condition string   // when it runs, or how often, "" for always and once
}

// Commands lists what an operation of this kind runs on a host of the family, in
// order, without asking the host. version is what a deploy asks for.
func Commands(f Family, kind fleet.OperationKind, version string) ([]NamedCommand, error) {
	return nil, nil
}
