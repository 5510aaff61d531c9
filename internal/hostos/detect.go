package hostos

import (
	"strings"

	"commissaire/internal/fleet"
)

// Detect tells a host's family by what FactsScript printed. Unlike FamilyOf it was
// just looked, so a system's usual package manager does not stand in for none. The
// error is for the operator and names what was found.
func Detect(out string) (Family, error) {
	facts, err := ParseFacts(out)
	if err != nil {
		return nil, err
	}
	found := "the system is " + strings.TrimSpace(facts.OS+" "+facts.OSVersion)
	seen := otherManagers(out)
	if facts.PackageManager != "" {
		seen = append([]string{facts.PackageManager}, seen...)
	}
	if len(seen) > 0 {
		found += ", the host has " + strings.Join(seen, ", ")
	}
	if facts.PackageManager == "" && !facts.OSTree && !facts.Bootc {
		return nil, fleet.Errorf(fleet.NotReady, "the host has no package manager and no image that is supported (%s); supported are %s", found, familyNames())
	}
	f, err := FamilyOf(facts.OS, facts.OSTree, facts.Bootc, facts.PackageManager)
	if err != nil {
		return nil, fleet.Errorf(fleet.KindOf(err), "%v (%s)", err, found)
	}
	return f, nil
}

// otherManagers are the unsupported package managers that FactsScript saw, for people.
func otherManagers(out string) (seen []string) {
	for line := range strings.Lines(out) {
		names, ok := strings.CutPrefix(line, "other_managers=")
		if !ok {
			continue
		}
		for _, name := range strings.Fields(names) {
			if validToken(name) && len(seen) < 10 {
				seen = append(seen, name)
			}
		}
	}
	return seen
}

func familyNames() string {
	names := make([]string, len(families))
	for i, f := range families {
		names[i] = f.Name()
	}
	return strings.Join(names, ", ")
}
