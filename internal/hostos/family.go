package hostos

import (
	"slices"

	"commissaire/internal/fleet"
)

// Family is a way to upgrade and deploy that operating systems share. It says
// which command each act is there and what the answers mean. Commands are
// argument lists; they need root, LC_ALL=C, and no input.
//
// A new family is a file of its own that registers a value.
type Family interface {
	// Name is how operators know the family.
	Name() string

	// Stages says whether a change is prepared beside the running system and
	// comes with the next boot. Else it changes the running system.
	Stages() bool

	// Upgrade brings everything installed to the newest version that the host's
	// repositories offer. It may run once only. While another process holds the
	// package manager it waits, but for bootc not longer than lockWait.
	Upgrade() []string

	// Deploy stages a version, which fleet.ParseVersion has accepted. It may run
	// once only. Families that do not stage answer with a fleet.NotReady error.
	// now is what ParseDeployments read on the host.
	Deploy(version string, now Deployments) ([]string, error)

	// Rollback makes the next boot bring back what ran before the last change. It may
	// run once only, since a second one takes the first back. Families that cannot do
	// this safely answer with a fleet.NotReady error.
	Rollback() ([]string, error)

	// Installed asks which of these packages the host has; see ParseInstalled.
	Installed(packages []string) []string

	// Install installs packages, none of which may be there already: some families
	// would upgrade it. It may run once only, and waits as Upgrade does. Families that
	// stage answer with a fleet.NotReady error, others with a fleet.Invalid one when a
	// name is no package's.
	Install(packages []string) ([]string, error)

	// EnableRepositories are the commands without which packages for containers cannot
	// be found on a system, by its ID and VERSION_ID of os-release(5); none for most.
	// Repeating them changes nothing.
	EnableRepositories(os, version string) [][]string

	// Deployments reads what the host runs and what it will boot; nil for
	// families that do not stage.
	Deployments() []string
	ParseDeployments(exit int, stdout string) (Deployments, error)

	// Leftover reads what an upgrade should have brought and has not. Packages
	// that somebody holds or excludes are not among it. At most leftoverMost are
	// named.
	Leftover() []string
	ParseLeftover(exit int, stdout string) (packages []string, err error)

	// RebootNeeded reads whether the host says that it must be rebooted.
	RebootNeeded() []string
	// ParseRebootNeeded also gives the host's reason, "" when it gives none.
	ParseRebootNeeded(exit int, stdout string) (needed bool, why string, err error)

	// manager is the package manager that makes a host one of this family, ""
	// for families that stage; systems are the os-release(5) IDs that do so when
	// the package manager is not known.
	manager() string
	systems() []string
}

// various is a family that is not the same on all its systems.
type various interface {
	// on is the family of a system, by the ID of os-release(5).
	on(os string) Family
}

// Families are all families, by name.
func Families() []Family { return slices.Clone(families) }

var families []Family

// register is called once by the file of each family, before main begins.
func register(f Family) Family {
	families = append(families, f)
	slices.SortFunc(families, func(a, b Family) int {
		if a.Name() < b.Name() {
			return -1
		}
		return 1
	})
	return f
}

// FamilyOf tells a host's family by its facts. An image wins over packages,
// since the packages of a host that boots images cannot be upgraded one by one.
// Without a package manager, which facts of older versions do not have, the
// operating system's usual one counts. The error is for the operator.
func FamilyOf(os string, ostree, bootc bool, packageManager string) (Family, error) {
	switch {
	case bootc:
		return bootcFamily, nil
	case ostree:
		return rpmOSTreeFamily, nil
	}
	if err := refuseTransactional(os); err != nil {
		return nil, err
	}
	for _, f := range families {
		if m := f.manager(); m != "" && (packageManager == m || packageManager == "" && slices.Contains(f.systems(), os)) {
			if v, ok := f.(various); ok {
				f = v.on(os)
			}
			return f, nil
		}
	}
	if packageManager != "" {
		return nil, fleet.Errorf(fleet.NotReady, "the host's package manager %s is not supported", packageManager)
	}
	return nil, fleet.Errorf(fleet.NotReady, "no supported package manager is known on the host (its system is %q); bootstrap it again to look for one", os)
}
