package hostos

import "commissaire/internal/fleet"

// NamedCommand is one command of an operation on a host.
type NamedCommand struct {
	Step      string   // as the record names it
	Argv      []string // nil when the step only looks at the boot id
	Condition string   // when it runs or what it waits for, "" for always
}

// anImage stands for the image that a host runs, where the host is not asked.
const anImage = "PRESENT-IMAGE"

// Commands lists what an operation of this kind runs on a host of the family, in
// order, without asking the host. version is what a deploy asks for. It is an
// error when the family cannot do it.
func Commands(f Family, kind fleet.OperationKind, version string) ([]NamedCommand, error) {
	if !kind.Rollout() {
		return nil, fleet.Errorf(fleet.Invalid, "%s is no operation that rolls over hosts", kind)
	}
	list := []NamedCommand{{"check", CanReboot(), ""}}
	when := ""
	if kind != fleet.KindRestart {
		change, err := changes(f, kind, version)
		if err != nil {
			return nil, err
		}
		list = append(append(list, change...), NamedCommand{"reboot-needed", f.RebootNeeded(), ""})
		when = "if the host says that it is needed"
	}
	return append(list,
		NamedCommand{"reboot", Reboot(), when},
		NamedCommand{"wait", nil, "after a reboot, until the host answers with another boot id"},
		NamedCommand{"verify", SystemState(), ""},
		NamedCommand{"settle", SystemState(), "when min_ready is set, after that time"},
	), nil
}

func changes(f Family, kind fleet.OperationKind, version string) ([]NamedCommand, error) {
	switch {
	case kind == fleet.KindUpgrade && f.Stages():
		return []NamedCommand{{"stage", f.Upgrade(), ""}}, nil
	case kind == fleet.KindUpgrade:
		return []NamedCommand{{"upgrade", f.Upgrade(), ""}, {"verify-packages", f.Leftover(), ""}}, nil
	}
	deploy, err := f.Deploy(version, Deployments{Booted: Deployment{Image: anImage}})
	if err != nil {
		return nil, err
	}
	return []NamedCommand{{"stage", f.Deployments(), ""}, {"stage", deploy, ""}}, nil
}
